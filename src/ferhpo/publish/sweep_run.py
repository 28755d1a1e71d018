"""Describe sweeps and trials in MLflow: configuration, data set, tags, view."""

from collections.abc import Mapping
from typing import Any

import yaml

from ferhpo.config.folds import num_folds
from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.keys import leaves
from ferhpo.optional import optional
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings, view_url

CURVES = ("val_loss", "train_loss")  # metrics with a column and a chart in the view, in addition to the objective


def environment_tags(sweep: Sweep, tracker: Tracker, number: int | None) -> dict[str, str]:
    """Return the tags that say which versions and commit run a trial now, and, under `earlier`, ran it before a resume.

    number: of the trial, None for the parent run
    """
    git = {f"ferhpo.git.{key}": value for key, value in sweep.meta["git"].items()}
    now = git | {f"ferhpo.version.{key}": value for key, value in sweep.meta["versions"].items()}
    before = tracker.environment(number)
    earlier = {key.replace("ferhpo.", "ferhpo.earlier.", 1): v for key, v in before.items() if now.get(key) != v}
    return {**dict.fromkeys(before, "unknown"), **now, **earlier}


def run_tags(sweep: Sweep, data: FaceData) -> dict[str, str]:
    """Return the tags that say how a run was made: kind of sweep, split."""
    folds = num_folds(sweep.config)
    split = data.split_name if folds is None else f"{data.split_name}, {folds} folds"
    confirms = {"ferhpo.confirms": sweep.config["confirm"]["sweep"]} if "confirm" in sweep.config else {}
    return {"ferhpo.kind": sweep.meta["kind"], "ferhpo.split": split, **confirms}


def open_sweep(sweep: Sweep, tracker: Tracker, data: FaceData) -> None:
    """Open the parent run: the whole configuration, the search space, the data set, and the sweep's view."""
    config = sweep.config
    params = dict(leaves({key: value for key, value in config.items() if key != "space"}))
    tags: dict[str, str] = {}
    with optional("tags of the sweep are missing in MLflow"):
        tags = {**run_tags(sweep, data), **environment_tags(sweep, tracker, None), "ferhpo.node": sweep.meta["node"]}
    tracker.open_sweep(sweep.name, params, tags, f"**{sweep.name}** is running.")
    with optional("the sweep's data set is not in MLflow"):
        log_data(tracker, None, config, data)
    with optional("the sweep's configuration is not in MLflow"):
        tracker.log_text(None, yaml.safe_dump(config, sort_keys=False), "config.yaml")
        if config["space"]:
            tracker.log_text(None, yaml.safe_dump(config["space"], sort_keys=False), "space.yaml")
    with optional("the sweep has no view in MLflow"):
        _set_view(sweep, tracker)


def _set_view(sweep: Sweep, tracker: Tracker) -> None:
    """Create the sweep's view in MLflow's UI: its columns, order and charts."""
    config = sweep.config
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
    with optional("tags of trials are missing in MLflow"):
        tracker.set_tags(trial.number, {**run_tags(sweep, data), **environment_tags(sweep, tracker, trial.number)})
    with optional("configurations of trials are not in MLflow"):
        tracker.log_text(trial.number, yaml.safe_dump(trial.config, sort_keys=False), "config.yaml")
    with optional("data sets of trials are not in MLflow"):
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
    server = settings.shown_uri if settings.shown_uri.startswith("http") else "{server}"
    return view_url(server, tracker.experiment_id, tracker.sweep_id)
