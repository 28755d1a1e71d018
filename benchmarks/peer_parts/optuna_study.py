"""The study of the two peers that are plain Optuna: it holds the workload's learning rates. Imports no torch."""

import optuna

from peer_parts.workload import Workload


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
