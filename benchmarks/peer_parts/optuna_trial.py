"""A study of plain Optuna that holds the workload's learning rates, and the objective that trains one of them."""

from pathlib import Path

import optuna
import pytorch_lightning as pl

from peer_parts.common import BARE, Workload, train


def make_study(workload: Workload, storage: optuna.storages.BaseStorage) -> optuna.Study:
    """Return the study in the storage. Whoever makes it also enqueues the learning rates."""
    study = optuna.create_study(
        storage=storage,
        study_name="peer",
        direction="maximize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
        if workload.prune
        else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    if not study.trials:
        for lr in workload.lrs:
            study.enqueue_trial({"lr": lr})
    return study


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
