"""Plain Optuna in one process, with a thread for each slot (n_jobs), a study in memory and, if asked for, a pruner."""

from pathlib import Path

import optuna

from peer_parts.common import read_workload
from peer_parts.optuna_trial import make_objective, make_study

workload = read_workload()
study = make_study(workload, optuna.storages.InMemoryStorage())
study.optimize(make_objective(workload, Path.cwd()), n_trials=len(workload.lrs), n_jobs=workload.slots)
