"""The folder of a sweep on disk.

sweep.py           the folder: create, load, save
meta.py            sweep.json: its content, and the names that are taken
study/             the Optuna study, which the driver writes
trial_record.py    trials as records, for any reader
lock.py            the lock that allows one driver per sweep
checkpoints.py     where checkpoints are, and which are kept
evaluation_log.py  the test log: every evaluation on test
listing.py         the sweeps of an output folder
provenance.py      versions, git commit, overrides, own code
frames.py          trials as pandas frames, and in notebooks
"""
