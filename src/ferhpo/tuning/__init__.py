"""Run a sweep or a single training from its configuration to the model registry.

sweep.py      the verb `sweep`
train.py      the verb `train`
plan.py       the verb `plan`
preflight.py  what is refused before anything is created
session.py    what is open while a sweep runs
finish.py     the end of a sweep in tracking
result.py     what a sweep returns
"""
