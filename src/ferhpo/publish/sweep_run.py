"""Describe sweeps and trials in MLflow: configuration, data set, tags, view."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ferhpo.config.folds import num_folds
from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.keys import leaves
from ferhpo.optional import optional
from ferhpo.space.draw import Draw
from ferhpo.storage.provenance import CODE, overrides_of
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import markdown
from ferhpo.tracking import Tracker, TrackingSettings, view_url
from ferhpo.tracking.upload.shipped import Shipped
from ferhpo.tracking.view import run_url

CURVES = ("val_loss", "train_loss")  # metrics with a chart in the view, in addition to the objective

_DIGEST_CHARACTERS = 12  # as MLflow shows it for the data set of a run
_LONGEST_TAG = 4000  # characters; MLflow's limit is above


def environment_tags(sweep: Sweep, tracker: Tracker, number: int | None) -> dict[str, str]:
    """Return the tags that say which versions and commit run a trial now, and, under `earlier`, ran it before a resume.

    number: of the trial, None for the parent run
    """
    git = {f"ferhpo.git.{key}": value for key, value in sweep.meta["git"].items()}
    now = git | {f"ferhpo.version.{key}": value for key, value in sweep.meta["versions"].items()}
    now |= {f"ferhpo.code.{path}": digest for path, digest in sweep.meta.get("code", {}).items()}
    before = tracker.environment(number)
    earlier = {key.replace("ferhpo.", "ferhpo.earlier.", 1): v for key, v in before.items() if now.get(key) != v}
    return {**dict.fromkeys(before, "unknown"), **now, **earlier}


def run_tags(sweep: Sweep, data: FaceData) -> dict[str, str]:
    """Return the tags that say how a run was made: kind of sweep, split, data set, recipe."""
    folds = num_folds(sweep.config)
    split = data.split_name if folds is None else f"{data.split_name}, {folds} folds"
    confirms = {"ferhpo.confirms": sweep.config["confirm"]["sweep"]} if "confirm" in sweep.config else {}
    recipe = {
        "ferhpo.recipe": sweep.composed.name,
        "ferhpo.overrides": " ".join(overrides_of(sweep.meta))[:_LONGEST_TAG],
    }
    about_data = {"ferhpo.split": split, "ferhpo.data_digest": data.digest[:_DIGEST_CHARACTERS]}
    kind = {"ferhpo.kind": sweep.meta["kind"], "ferhpo.sweep_name": sweep.name}  # of the trials' runs too
    return {**kind, **about_data, **recipe, **confirms}


def open_sweep(sweep: Sweep, tracker: Tracker, data: FaceData) -> None:
    """Open the parent run: the whole configuration, the search space, the data set, and the sweep's view."""
    config = sweep.config
    draws = sweep.space().draws if config["space"] else ()
    params = dict(leaves({key: value for key, value in config.items() if key != "space"}))
    # The values that trials replace would make the parent run look like one of them.
    params = {path: value for path, value in params.items() if not _is_sampled(path, draws)}
    tags: dict[str, str] = {}
    with optional("tags of the sweep are missing in MLflow"):
        tags = {**run_tags(sweep, data), **environment_tags(sweep, tracker, None), "ferhpo.node": sweep.meta["node"]}
    tracker.open_sweep(sweep.name, params, tags, f"**{markdown(sweep.name)}** is running.")
    with optional("the sweep's data set is not in MLflow"):
        log_data(tracker, None, config, data)
    with optional("the sweep's configuration is not in MLflow"):
        tracker.log_text(None, _as_yaml(config), "config.yaml")
        if config["space"]:
            tracker.log_text(None, _as_yaml(config["space"]), "space.yaml")
    with optional("the sweep's own code is not in MLflow"):
        if sweep.meta.get("code"):
            tracker.log_artifact(None, sweep.folder / CODE, CODE)
    with optional("the sweep has no view in MLflow"):
        _set_view(sweep, tracker, draws)


def _set_view(sweep: Sweep, tracker: Tracker, draws: Sequence[Draw]) -> None:
    """Create the sweep's view in MLflow's UI: its columns, order and charts."""
    config = sweep.config
    # A repeated draw samples a list, e.g. the widths of all blocks, which cannot be an axis of a chart.
    axes = [draw for draw in draws if draw.repeat is None]
    names = list(dict.fromkeys(draw.path for draw in axes))
    first = ["confirm.candidate", "seed"] if sweep.listed else []
    branches = {condition: [*first, *paths] for condition, paths in branches_of(axes).items()}
    metric, mode = sweep.objective.metric, sweep.objective.mode
    is_folded = num_folds(config) is not None
    metrics = (f"{metric}_std", *CURVES) if is_folded else CURVES
    second_column = "num_folds" if is_folded else "best_epoch"
    tracker.set_view(sweep.name, metric, mode, [*first, *names], metrics, second_column, branches)


def _is_sampled(path: str, draws: Sequence[Draw]) -> bool:
    """Return whether a key is set by the samples: drawn itself, in a drawn list, or in a group with several options."""
    groups = {draw.option and draw.path.split(".")[0] for draw in draws}
    return path.split(".")[0] in groups or any(path == draw.path or path.startswith(f"{draw.path}.") for draw in draws)


def branches_of(draws: Sequence[Draw]) -> dict[str, list[str]]:
    """Return the hyperparameters that all trials have, under "", and those under each condition of the space.

    The axes of a condition begin with those that all trials have.
    """
    by_path: dict[str, list[Draw]] = {}
    for draw in draws:
        by_path.setdefault(draw.path, []).append(draw)
    common = [path for path, twins in by_path.items() if _has_every_trial(twins, by_path)]
    branches = {"": common} if common else {}
    for draw in draws:
        if draw.path not in common:
            branches.setdefault(_condition(draw), list(common)).append(draw.path)
    return branches


def _has_every_trial(twins: Sequence[Draw], by_path: Mapping[str, Sequence[Draw]]) -> bool:
    """Return whether one of the draws of a path is always active, e.g. because each option of a group has one."""
    if not all(draw.when for draw in twins):
        return True
    keys = {key for draw in twins for key, _ in draw.when}
    controls = [draw for key in keys for draw in by_path.get(key, ())]
    if len(keys) > 1 or len(controls) != 1 or controls[0].when or controls[0].num_points is None:
        return False
    held = [value for draw in twins for _, allowed in draw.when for value in allowed]
    return all(value in held for value in controls[0].values())


def _condition(draw: Draw) -> str:
    """Return the conditions of a draw as a text, e.g. optim=sgd."""
    return ", ".join(f"{key}={' or '.join(map(str, allowed))}" for key, allowed in draw.when)


def open_trial(sweep: Sweep, tracker: Tracker, trial: TrialRecord, data: FaceData) -> None:
    """Describe the run of a trial before its first epoch: tags, the whole configuration, the data set."""
    with optional("tags of trials are missing in MLflow"):
        family = {}
        if model := trial.sample.get("model", sweep.composed.groups.get("model")):
            family["ferhpo.model"] = str(model)
        environment = environment_tags(sweep, tracker, trial.number)
        tracker.set_tags(trial.number, {**run_tags(sweep, data), **family, **environment})
    with optional("configurations of trials are not in MLflow"):
        tracker.log_text(trial.number, _as_yaml(trial.config), "config.yaml")
    with optional("data sets of trials are not in MLflow"):
        log_data(tracker, trial.number, trial.config, data)


def _as_yaml(values: Any) -> str:
    """Return a configuration as YAML. PyYAML's dumper in C, if it has it, is ten times as fast."""
    text: str = yaml.dump(values, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
    return text


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
        if key.isdecimal()
    }
    return view_url(server, shipped.experiment_id, shipped.sweep_id), runs


def _server(settings: TrackingSettings) -> str:
    return settings.shown_uri if settings.shown_uri.startswith("http") else "{server}"
