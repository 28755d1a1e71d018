"""Digests of small real sweeps: equal before and after a refactoring, on one machine, or it changed what trials do.

    python benchmarks/same_trials.py            # about three minutes on two cores
    PYTHONPATH=../other-checkout/src python benchmarks/same_trials.py

One slot, a fixed seed, ASHA, a network that trains: one sweep for each sampler, one with folds, one recorded in MLflow.
Digested are the journal of the study, without times, machine and process, and every parameter, metric and tag in
MLflow.
"""

import hashlib
import json
import tempfile
from pathlib import Path

import ferhpo

SMALL = [
    "num_trials=6",
    "compute.max_concurrent=1",
    "compute.num_cpus=1",
    "data.num_train=256",
    "data.num_val=128",
    "data.num_test=64",
    "trainer.max_epochs=4",
    "scheduler.max_t=4",
    "scheduler.grace_period=1",
    "scheduler.reduction_factor=2",
]
SWEEPS = {
    "random": ["sampler=random", "tracking=none"],
    "tpe": ["sampler=tpe_quick", "tracking=none", "num_trials=9"],
    "cmaes": ["sampler=cmaes", "tracking=none", "sampler.n_startup_trials=3", "~space.model.block_channels"],
    "qmc": ["sampler=qmc", "tracking=none"],
    "grid": ["sampler=grid", "tracking=none", "~space.optim", "~space.model.num_blocks", "~space.model.block_channels"],
    "folds": ["sampler=tpe_quick", "tracking=none", "num_trials=4", "data.folds=2", "trainer.max_epochs=2",
              "scheduler.max_t=2"],
    "mlflow": ["sampler=tpe_quick", "num_trials=4"],
}  # fmt: skip
# What differs from run to run: times, rates, and where it ran
PASSING = {
    "datetime_start", "datetime_complete", "seconds", "epoch_seconds", "images_per_second", "device_memory_mb", "pid",
    "node", "worker_id", "timestamp",
}  # fmt: skip


def stripped(value: object) -> object:
    """A JSON value without what differs from run to run."""
    if isinstance(value, dict):
        return {key: stripped(child) for key, child in value.items() if key not in PASSING}
    return [stripped(child) for child in value] if isinstance(value, list) else value


def of_journal(path: Path) -> str:
    lines = [json.dumps(stripped(json.loads(line)), sort_keys=True) for line in path.read_text().splitlines()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def of_store(folder: Path) -> str:
    """Everything that MLflow was told, less times, versions and addresses."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = {}
    for run in client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000):
        metrics = {
            key: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
            if key not in PASSING
        }
        tags = {
            key: value
            for key, value in run.data.tags.items()
            if key.startswith("ferhpo.") and not key.startswith(("ferhpo.git", "ferhpo.version", "ferhpo.sweep_id"))
            and key.removeprefix("ferhpo.") not in PASSING and key != "ferhpo.trial"
        }  # fmt: skip
        params = {key: value for key, value in run.data.params.items() if str(folder) not in value}
        found[run.info.run_name] = [params, metrics, tags]
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        for name, overrides in SWEEPS.items():
            folder = Path(temporary) / name
            result = ferhpo.sweep("demo", [*SMALL, *overrides, f"output_dir={folder}"])
            states = ", ".join(f"{count} {state.lower()}" for state, count in sorted(result.counts.items()))
            digest = of_journal(folder / "demo" / "study.jsonl")
            more = f"  store {of_store(folder)}" if name == "mlflow" else ""
            print(f"{name:7} {digest}{more}  {states}", flush=True)


if __name__ == "__main__":
    main()
