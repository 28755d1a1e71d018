"""What a sweep records in MLflow.

sweep_run.py   the parent run, and the description of every run
trial_runs.py  the runs of trials
models.py      exported and registered models
sync.py        the verb `sync`
promote.py     the verb `promote`
"""
