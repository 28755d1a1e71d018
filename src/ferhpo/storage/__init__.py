"""The folder of a sweep on disk.

sweep.py           the folder and sweep.json
study.py           the Optuna study, which the driver writes
trial_record.py    trials as records, for any reader
journal.py         the file of the study
lock.py            the lock that allows one driver per sweep
checkpoints.py     where checkpoints are, and which are kept
evaluation_log.py  the test log: every evaluation on test
listing.py         the sweeps of an output folder
provenance.py      versions and git commit
"""
