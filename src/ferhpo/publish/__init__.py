"""What MLflow is told about a sweep.

sweep_run.py   the parent run and what describes each run
trial_runs.py  the runs of trials
models.py      exported and registered models
sync.py        the verbs `sync` and `promote`
"""
