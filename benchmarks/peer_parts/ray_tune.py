"""Ray Tune as its documentation shows it with Lightning; with the argument `reuse`, reuse_actors=True.

TuneReportCheckpointCallback, OptunaSearch, ASHAScheduler and MLflowLoggerCallback. By default, Ray starts a new process
for each trial. Where no trial may be stopped, ASHA's grace period is the whole training.
"""

import sys
from pathlib import Path

import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.integration.pytorch_lightning import TuneReportCheckpointCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from peer_parts.common import train
from peer_parts.workload import read_workload

workload, folder = read_workload(), Path.cwd()


def trial(config):
    report = TuneReportCheckpointCallback({"val_acc": "val_acc", "val_loss": "val_loss"}, on="validation_end")
    train(workload, config["lr"], folder, report)


ray.init(num_cpus=workload.slots * workload.threads)
tuner = tune.Tuner(
    tune.with_resources(trial, {"cpu": workload.threads}),
    param_space={"lr": tune.loguniform(1e-4, 1e-1)},
    tune_config=tune.TuneConfig(
        metric="val_acc",
        mode="max",
        num_samples=len(workload.lrs),
        search_alg=OptunaSearch(points_to_evaluate=[{"lr": lr} for lr in workload.lrs]),
        scheduler=ASHAScheduler(
            max_t=workload.epochs, grace_period=1 if workload.prune else workload.epochs, reduction_factor=3
        ),
        max_concurrent_trials=workload.slots,
        reuse_actors="reuse" in sys.argv,
    ),
    run_config=tune.RunConfig(
        name="peer",
        storage_path=str(folder / "ray"),
        callbacks=[MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="peer")],
    ),
)
results = tuner.fit()
if results.num_errors:
    sys.exit(f"{results.num_errors} of {len(results)} trials failed: {results.errors[0]}")
