"""Run a sweep or a single training from its configuration to the model registry.

sweep.py      the verb `sweep`
train.py      the verb `train`
plan.py       the verb `plan`
preflight.py  the checks before anything is created
session.py    opens and closes study, tracking and figures
finish.py     completes a sweep in tracking
result.py     what a sweep returns
"""
