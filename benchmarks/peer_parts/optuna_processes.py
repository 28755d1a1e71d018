"""Plain Optuna in one process for each slot, which share a JournalStorage file; each runs an equal share of the trials.

Without an argument, this is the program that makes the study and starts the others, with the argument `worker`.
"""

import subprocess
import sys
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend

from peer_parts.optuna_study import make_study
from peer_parts.workload import read_workload

workload = read_workload()
study = make_study(workload, optuna.storages.JournalStorage(JournalFileBackend("study.jsonl")))
if "worker" in sys.argv:
    from peer_parts.optuna_trial import make_objective  # imports torch, which the first process does not need

    study.optimize(make_objective(workload, Path.cwd()), n_trials=len(workload.lrs) // workload.slots)
else:
    command = [sys.executable, "-m", "peer_parts.optuna_processes", "worker"]
    workers = [subprocess.Popen(command) for _ in range(workload.slots)]
    sys.exit(max(worker.wait() for worker in workers))
