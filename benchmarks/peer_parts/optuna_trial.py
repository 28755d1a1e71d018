"""The objective of the two peers that are plain Optuna."""

from pathlib import Path

import optuna
import pytorch_lightning as pl

from peer_parts.common import BARE, train
from peer_parts.workload import Workload


class Prune(pl.Callback):
    """Report each epoch to Optuna, and stop the trial if its pruner says so."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def on_validation_end(self, trainer, pl_module):
        self.trial.report(trainer.callback_metrics["val_acc"].item(), trainer.current_epoch + 1)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def make_objective(workload: Workload, folder: Path):
    def objective(trial: optuna.Trial) -> float:
        return train(workload, trial.suggest_float("lr", 1e-4, 1e-1, log=True), folder, Prune(trial), **BARE)

    return objective
