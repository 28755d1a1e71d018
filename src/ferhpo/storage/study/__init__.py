"""The Optuna study of a sweep, on disk.

sweep_study.py    ask, record and end trials; used by the driver
journal.py        the file study.jsonl, also half-written or damaged
sampler_state.py  the state of CMA-ES as numbers, without a pickle
"""
