"""A sweep's folder on disk.

sweep.py         the folder and sweep.json
study.py         the Optuna study, as its driver writes it
trial_record.py  trials, as anyone reads them
journal.py       the study's file
lock.py          the lock of the one driver
checkpoints.py   where checkpoints are, and which are kept
test_log.py      the log of test evaluations
listing.py       the sweeps of an output folder
provenance.py    versions and git commit
"""
