"""Plain Optuna in one process, with a thread for each slot (n_jobs), a study in memory and, if asked for, a pruner."""

from pathlib import Path

import optuna

from peer_parts.optuna_study import make_study
from peer_parts.optuna_trial import make_objective
from peer_parts.workload import read_workload

workload = read_workload()
study = make_study(workload, optuna.storages.InMemoryStorage())
study.optimize(make_objective(workload, Path.cwd()), n_trials=len(workload.lrs), n_jobs=workload.slots)
