"""Describe sweeps and trials in MLflow: configuration, data set, tags, view."""

from collections.abc import Mapping
from typing import Any

import yaml

from ferhpo.config.folds import num_folds
from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.keys import leaves
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings, view_url

CURVES = ("val_loss", "train_loss")  # beside the objective, in the view


def run_tags(record: Sweep, data: FaceData) -> dict[str, str]:
    """Tags that say under what a run was made: git state, versions, split."""
    git = {f"ferhpo.git.{key}": value for key, value in record.meta["git"].items()}
    versions = {f"ferhpo.version.{key}": value for key, value in record.meta["versions"].items()}
    folds = num_folds(record.config)
    split = data.split_name if folds is None else f"{data.split_name}, {folds} folds"
    confirms = {"ferhpo.confirms": record.config["confirm"]["sweep"]} if "confirm" in record.config else {}
    return {"ferhpo.kind": record.meta["kind"], "ferhpo.split": split, **confirms, **git, **versions}


def open_sweep(record: Sweep, tracker: Tracker, data: FaceData) -> None:
    """Open the parent run with the whole configuration, the space, the data set, and the sweep's view."""
    config = record.config
    params = dict(leaves({key: value for key, value in config.items() if key != "space"}))
    tags = {**run_tags(record, data), "ferhpo.node": record.meta["node"]}
    tracker.open_sweep(record.name, params, tags, f"**{record.name}** runs.")
    log_data(tracker, None, config, data)
    tracker.log_text(None, yaml.safe_dump(config, sort_keys=False), "config.yaml")
    if config["space"]:
        tracker.log_text(None, yaml.safe_dump(config["space"], sort_keys=False), "space.yaml")
    # Lists, as the widths of repeated blocks, have no axis of their own in a chart.
    names = [draw.path for draw in record.space().draws if draw.repeat is None] if config["space"] else []
    if record.listed:
        names = ["confirm.candidate", "seed", *names]
    metric, mode = record.objective.metric, record.objective.mode
    if num_folds(config) is None:
        tracker.set_view(record.name, metric, mode, names, CURVES)
    else:
        tracker.set_view(record.name, metric, mode, names, (f"{metric}_std", *CURVES), beside="num_folds")


def open_trial(record: Sweep, tracker: Tracker, trial: TrialRecord, data: FaceData) -> None:
    """What a trial's run says before its first epoch: tags, its whole configuration, the data set."""
    tracker.set_tags(trial.number, run_tags(record, data))
    tracker.log_text(trial.number, yaml.safe_dump(trial.config, sort_keys=False), "config.yaml")
    log_data(tracker, trial.number, trial.config, data)


def log_data(tracker: Tracker, number: int | None, config: Mapping[str, Any], data: FaceData) -> None:
    """The data set as an input of a run (number None: of the parent)."""
    counts = {SPLIT_NAMES[code]: int((data.split == code).sum()) for code in range(len(SPLIT_NAMES))}
    profile = {"split": data.split_name, "counts": counts, "classes": list(data.class_names)}
    name = config["data"]["_target_"].split(".")[-2]
    tracker.log_dataset(number, name, data.digest, data.source, profile, "training")


def view_address(tracker: Tracker, settings: TrackingSettings) -> str:

    if settings.off or tracker.experiment_id is None or tracker.sweep_id is None:
        return ""
    server = settings.shown_uri if settings.shown_uri.startswith("http") else "{server}"
    return view_url(server, tracker.experiment_id, tracker.sweep_id)
