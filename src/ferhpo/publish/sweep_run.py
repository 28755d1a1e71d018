"""Describe sweeps and trials in MLflow: configuration, data set, tags, view."""

from collections.abc import Mapping
from typing import Any

import yaml

from ferhpo.config.folds import num_folds
from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.keys import leaves
from ferhpo.storage.provenance import overrides_of
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings, view_url
from ferhpo.tracking.spool import Shipped
from ferhpo.tracking.view import run_url

CURVES = ("val_loss", "train_loss")  # metrics with a column and a chart in the view, in addition to the objective

_LONGEST_TAG = 4000  # characters; MLflow's limit is above


def run_tags(sweep: Sweep, data: FaceData) -> dict[str, str]:
    """Return the tags that say how a run was made: kind of sweep, git state, package versions, split."""
    git = {f"ferhpo.git.{key}": value for key, value in sweep.meta["git"].items()}
    versions = {f"ferhpo.version.{key}": value for key, value in sweep.meta["versions"].items()}
    folds = num_folds(sweep.config)
    split = data.split_name if folds is None else f"{data.split_name}, {folds} folds"
    confirms = {"ferhpo.confirms": sweep.config["confirm"]["sweep"]} if "confirm" in sweep.config else {}
    recipe = {
        "ferhpo.recipe": sweep.composed.name,
        "ferhpo.overrides": " ".join(overrides_of(sweep.meta))[:_LONGEST_TAG],
    }
    return {"ferhpo.kind": sweep.meta["kind"], "ferhpo.split": split, **recipe, **confirms, **git, **versions}


def open_sweep(sweep: Sweep, tracker: Tracker, data: FaceData) -> None:
    """Open the parent run: the whole configuration, the search space, the data set, and the sweep's view."""
    config = sweep.config
    params = dict(leaves({key: value for key, value in config.items() if key != "space"}))
    tags = {**run_tags(sweep, data), "ferhpo.node": sweep.meta["node"]}
    tracker.open_sweep(sweep.name, params, tags, f"**{sweep.name}** is running.")
    log_data(tracker, None, config, data)
    tracker.log_text(None, yaml.safe_dump(config, sort_keys=False), "config.yaml")
    if config["space"]:
        tracker.log_text(None, yaml.safe_dump(config["space"], sort_keys=False), "space.yaml")
    # A repeated draw samples a list, e.g. the widths of all blocks, which cannot be an axis of a chart.
    names = [draw.path for draw in sweep.space().draws if draw.repeat is None] if config["space"] else []
    if sweep.listed:
        names = ["confirm.candidate", "seed", *names]
    metric, mode = sweep.objective.metric, sweep.objective.mode
    if num_folds(config) is None:
        tracker.set_view(sweep.name, metric, mode, names, CURVES)
    else:
        tracker.set_view(sweep.name, metric, mode, names, (f"{metric}_std", *CURVES), second_column="num_folds")


def open_trial(sweep: Sweep, tracker: Tracker, trial: TrialRecord, data: FaceData) -> None:
    """Describe the run of a trial before its first epoch: tags, the whole configuration, the data set."""
    tracker.set_tags(trial.number, run_tags(sweep, data))
    tracker.log_text(trial.number, yaml.safe_dump(trial.config, sort_keys=False), "config.yaml")
    log_data(tracker, trial.number, trial.config, data)


def log_data(tracker: Tracker, number: int | None, config: Mapping[str, Any], data: FaceData) -> None:
    """Record the data set as an input of a trial's run, or of the parent run if `number` is None."""
    counts = {SPLIT_NAMES[code]: int((data.split == code).sum()) for code in range(len(SPLIT_NAMES))}
    profile = {"split": data.split_name, "counts": counts, "classes": list(data.class_names)}
    name = config["data"]["_target_"].split(".")[-2]
    tracker.log_dataset(number, name, data.digest, data.source, profile, "training")


def view_address(tracker: Tracker, settings: TrackingSettings) -> str:
    """Return the URL of the sweep's view, or "" if the store has not responded yet.

    For a store without a server the URL begins with the placeholder {server}.
    """
    if settings.off or tracker.experiment_id is None or tracker.sweep_id is None:
        return ""
    return view_url(_server(settings), tracker.experiment_id, tracker.sweep_id)


def stored_addresses(sweep: Sweep) -> tuple[str, dict[int, str]]:
    """Return the URLs of a sweep's view and of the runs of its trials, as far as they are uploaded.

    The server is as in `view_address`. Without tracking, the view is "".
    """
    if sweep.tracking.off:
        return "", {}
    shipped = Shipped.load(sweep.folder, sweep.tracking.shown_uri, sweep.tracking.experiment)
    if shipped.experiment_id is None or shipped.sweep_id is None:
        return "", {}
    server = _server(sweep.tracking)
    runs = {
        int(key): run_url(server, shipped.experiment_id, run_id)
        for key, run_id in shipped.runs.items()
        if key.isdigit()
    }
    return view_url(server, shipped.experiment_id, shipped.sweep_id), runs


def _server(settings: TrackingSettings) -> str:
    return settings.shown_uri if settings.shown_uri.startswith("http") else "{server}"
