"""Hydra's Optuna sweeper, which trains a batch of trials, waits for all of them, then asks for the next batch.

The learning rates are a grid. The launcher is the basic one, which runs one job after the other, or joblib's, with
`hydra/launcher=joblib`.
"""

from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore

from peer_parts.common import BARE, train
from peer_parts.workload import read_workload

workload, folder = read_workload(), Path.cwd()
config = {
    "defaults": [
        {"override hydra/sweeper": "optuna"},
        {"override hydra/sweeper/sampler": "grid"},
        "_self_",
    ],
    "lr": 0.001,
    "hydra": {
        "mode": "MULTIRUN",
        "sweeper": {
            "direction": "maximize",
            "n_trials": len(workload.lrs),
            "n_jobs": workload.slots,
            "params": {"lr": f"choice({','.join(map(repr, workload.lrs))})"},
        },
    },
}
ConfigStore.instance().store("config", config)


@hydra.main(version_base=None, config_path=None, config_name="config")
def trial(config):
    return train(workload, config.lr, folder, **BARE)


trial()
