"""Carries a sweep, or a single training, from its configuration to the registry.

What a reader would get wrong: nothing is made on disk before everything that can be checked was checked; and a sweep is
finished in tracking by `finish` only, so the parent run closes last.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ferhpo import checking, registry
from ferhpo.config import Composed, ComputeSettings, compose, instantiate, nearest_key
from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.errors import ConfigError, FerhpoError
from ferhpo.ledger import CONTINUE, Ledger
from ferhpo.record import CHANGEABLE, META, Sweep, create_sweep, exists_error, free_name, load_sweep, write_json
from ferhpo.reports.leaderboard import leaderboard_csv, sweep_note
from ferhpo.space import Space, leaves, set_path
from ferhpo.study import SweepStudy, TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings, check_store, view_url

SHIP_SECONDS = 60.0  # how long an ended sweep waits for its records to reach MLflow
Listener = Callable[[Ledger], None]


@dataclass(frozen=True)
class SweepResult:
    """What a sweep ended with.

    counts: trials by state
    finished: false if a person stopped it before its last trial
    registered: (model name, version) of the best trial, or None
    unshipped: records that wait for `ferhpo sync`
    view: address of the sweep's view on a server; {server} stands for its address
    """

    sweep: Sweep
    counts: dict[str, int]
    finished: bool
    best: TrialRecord | None
    registered: tuple[str, int] | None = None
    unshipped: int = 0
    view: str = ""
    warnings: list[str] = field(default_factory=list)


def load_data(composed: Composed) -> FaceData:
    """Read (or take from the cache) the data set of a configuration. Raises DataError."""
    section = composed.config["data"]
    missing = [key for key, value in section.items() if value == "???"]
    if missing:
        raise ConfigError(composed.name, [f"data.{key} is not set; add data.{key}=..." for key in missing])
    data = instantiate(section)
    assert isinstance(data, FaceData)
    return data


def sweep(
    name: str,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    new: bool = False,
    config_dir: Path | None = None,
    listener: Listener = lambda ledger: None,
) -> SweepResult:
    """Run a sweep to its end and register its best trial.

    resume: `name` is a sweep that exists; overrides may change num_trials, compute and tracking
    new: where the name is taken, use the next free one (demo-2)
    listener: called in the driver with its ledger after every event
    Raises ConfigError, DataError, SweepError, TrackingError, StorageError before any trial starts.
    """

    existing = _resumed(name, overrides) if resume else None
    composed = existing.composed if existing else compose(name, overrides, config_dir)
    if new and existing is None:
        _use_free_name(composed.config)
    warnings = checking.check(composed)
    config = composed.config
    _make_paths_absolute(config)
    settings = tracking_settings(config)
    compute = ComputeSettings(**config["compute"])
    reason = check_store(settings)
    if reason is not None:
        warnings.append(f"tracking.uri is {settings.shown_uri}: {reason}; records wait in the sweep's folder")
    if existing is None:
        _refuse_existing(config)
    ray_start = _RayStart(compute)
    data = load_data(composed)
    record = existing or create_sweep(composed)

    study = SweepStudy(record.folder, composed.space(), config["sampler"], int(config["seed"]), record.objective)
    try:
        tracker = Tracker(record.folder, settings)
        _open_in_tracking(record, tracker, data)
        tracker.start()
        ray_start.result()
        return _run(record, study, tracker, data, compute, settings, listener, warnings)
    finally:
        study.close()


def _run(
    record: Sweep,
    study: Any,
    tracker: Tracker,
    data: FaceData,
    compute: ComputeSettings,
    settings: TrackingSettings,
    listener: Listener,
    warnings: list[str],
) -> SweepResult:
    from ferhpo import driver

    ledger = Ledger(record, study, tracker, record.config["num_trials"], listener)
    slots = driver.find_slots(compute)
    finished = ledger.is_finished or driver.run(ledger, data, compute, record.objective, slots)
    if not finished:
        ledger.interrupt()
    return finish(record, tracker, settings, data.digest, finished, warnings)


def train(
    name: str,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    new: bool = False,
    config_dir: Path | None = None,
    listener: Listener = lambda ledger: None,
) -> SweepResult:
    """Train one network with the configuration as it stands, without Ray; recorded as a sweep of one trial."""
    from ferhpo.trial import run_trial

    existing = _resumed(name, overrides) if resume else None
    composed = existing.composed if existing else compose(name, overrides, config_dir)
    config = composed.config
    config.update(space={}, num_trials=1)
    composed.options.clear()
    if new and existing is None:
        _use_free_name(config)
    warnings = checking.check(composed, for_sweep=False)
    _make_paths_absolute(config)
    settings = tracking_settings(config)
    check_store(settings)
    if existing is None:
        _refuse_existing(config)
    data = load_data(composed)
    record = existing or create_sweep(composed, kind="train")
    sampler = {"_target_": "optuna.samplers.RandomSampler"}
    study = SweepStudy(record.folder, Space((), config), sampler, int(config["seed"]), record.objective)
    try:
        tracker = Tracker(record.folder, settings)
        _open_in_tracking(record, tracker, data)
        tracker.start()
        ledger = Ledger(record, study, tracker, 1, listener)
        trial = ledger.next_trial()
        if trial is not None:
            number = trial.number
            ledger.start(number)

            def report(epoch: int, metrics: dict[str, float]) -> None:
                ledger.epoch(number, epoch, metrics, lambda: CONTINUE)

            outcome = run_trial(
                config,
                data,
                record.trial_folder(number),
                trial.seed,
                report,
                on_start=lambda facts: ledger.report_facts(number, facts),
            )
            ledger.ended(number, outcome.state, outcome.reason)
        return finish(record, tracker, settings, data.digest, True, warnings)
    finally:
        study.close()


def finish(
    record: Sweep,
    tracker: Tracker,
    settings: TrackingSettings,
    data_digest: str,
    finished: bool,
    warnings: list[str],
) -> SweepResult:
    """Close a sweep in tracking: leaderboard, note, models, registry."""
    trials, best = record.trials(), record.best()
    counts = dict(Counter(trial.state for trial in trials))
    board = record.leaderboard()
    tracker.log_text(None, leaderboard_csv(board), "leaderboard.csv")
    tracker.log_artifact(None, record.folder / "study.jsonl", "study")
    chosen = {"all": [t for t in board if t.state == "COMPLETE"], "best": [best] if best else [], "none": []}
    for trial in chosen[settings.models] if finished else []:
        _export(record, trial, tracker, data_digest)
    if best is not None and best.value is not None:
        metrics = {f"best_{record.objective.metric}": best.value, "best_trial": float(best.number)}
        tracker.log_metrics(None, {**metrics, "num_trials": float(len(trials))})
    note = sweep_note(record, board, counts)
    tracker.close_sweep("COMPLETE" if finished else "STOPPED", note)
    unshipped = tracker.flush(SHIP_SECONDS)
    registered = _register(record, best, tracker, settings) if finished and not unshipped else None
    view = _view(tracker, settings)
    tracker.close(1.0)
    return SweepResult(record, counts, finished, best, registered, unshipped, view, warnings)


def _export(record: Sweep, trial: TrialRecord, tracker: Tracker, data_digest: str) -> None:
    from ferhpo.inference.export import export_model

    folder = record.trial_folder(trial.number)
    config = record.trial_config(trial)
    scores = next(row for row in trial.epochs if row["epoch"] == trial.best_epoch)
    out = export_model(folder / "best.ckpt", config["model"], folder / "model", data_digest, scores)
    tracker.log_model(trial.number, out)


def _register(
    record: Sweep, best: TrialRecord | None, tracker: Tracker, settings: TrackingSettings
) -> tuple[str, int] | None:

    model_id = None if best is None or settings.off else tracker.model_id(best.number)
    if best is None or model_id is None:
        return None
    name = settings.registered_model_name or f"ferhpo-{record.name}"
    tags = {
        "ferhpo.sweep": record.name,
        "ferhpo.trial": str(best.number),
        "ferhpo.split": str(record.meta.get("split")),
    }
    description = f"Trial {best.number} of sweep {record.name}: {record.objective.metric} {best.value:.4f}"
    return name, registry.register(settings, model_id, name, tags, description)


def _open_in_tracking(record: Sweep, tracker: Tracker, data: FaceData) -> None:

    config = record.config
    git = {f"ferhpo.git.{key}": value for key, value in record.meta["git"].items()}
    versions = {f"ferhpo.version.{key}": value for key, value in record.meta["versions"].items()}
    tags = {"ferhpo.kind": record.meta["kind"], "ferhpo.node": record.meta["node"], **git, **versions}
    tags["ferhpo.split"] = data.split_name
    record.meta["split"] = data.split_name
    params = dict(leaves({key: value for key, value in config.items() if key != "space"}))
    tracker.open_sweep(record.name, params, tags, f"**{record.name}** runs.")
    counts = {SPLIT_NAMES[code]: int((data.split == code).sum()) for code in range(len(SPLIT_NAMES))}
    profile = {"split": data.split_name, "counts": counts, "classes": list(data.class_names)}
    tracker.log_dataset(None, config["data"]["_target_"].split(".")[-2], data.digest, data.source, profile, "training")
    tracker.log_text(None, yaml.safe_dump(config, sort_keys=False), "config.yaml")
    if config["space"]:
        tracker.log_text(None, yaml.safe_dump(config["space"], sort_keys=False), "space.yaml")
    names = [draw.path for draw in record.space().draws] if config["space"] else []
    tracker.set_view(record.name, record.objective.metric, record.objective.mode, names, ("val_loss", "train_loss"))


class _RayStart:
    """Starts Ray in a thread while the driver reads data; `result` waits for it and raises what it raised.

    The thread stays: Linux ends Ray's processes with the thread that started them (PR_SET_PDEATHSIG).
    """

    def __init__(self, compute: ComputeSettings) -> None:
        self.error: Exception | None = None
        self.done = threading.Event()
        threading.Thread(target=self._work, args=(compute,), daemon=True, name="ray-start").start()

    def _work(self, compute: ComputeSettings) -> None:
        from ferhpo import driver

        try:
            driver.start_ray(compute)
        except FerhpoError as error:
            self.error = error
        finally:
            self.done.set()
        threading.Event().wait()

    def result(self) -> None:
        self.done.wait()
        if self.error is not None:
            raise self.error


def tracking_settings(config: Mapping[str, Any]) -> TrackingSettings:

    return TrackingSettings.from_config(config["tracking"], Path(config["output_dir"]))


def _view(tracker: Tracker, settings: TrackingSettings) -> str:

    if settings.off or tracker.experiment_id is None or tracker.sweep_id is None:
        return ""
    server = settings.shown_uri if settings.shown_uri.startswith("http") else "{server}"
    return view_url(server, tracker.experiment_id, tracker.sweep_id)


def _resumed(name: str, overrides: Sequence[str]) -> Sweep:
    """The sweep to resume, with overrides of what a resume may change."""

    output_dir = next((t.partition("=")[2] for t in overrides if t.startswith("output_dir=")), "mlruns")
    record = load_sweep(name, output_dir)
    faults = []
    for text in overrides:
        key, _, value = text.partition("=")
        section = key.split(".")[0]
        if section == "output_dir":
            continue
        if section not in CHANGEABLE:
            faults.append(
                f"{key} cannot change in a resumed sweep, whose trials must be alike; {', '.join(CHANGEABLE)} can"
            )
        elif section != key and key.split(".")[1] not in record.config[section]:
            faults.append(f"{key} matches no key; {nearest_key(record.config, key)}")
        else:
            set_path(record.config, key, yaml.safe_load(value))
    if faults:
        raise ConfigError(f"--resume {name}", faults)
    record.meta["composed"]["config"] = record.config
    write_json(record.folder / META, record.meta)
    return record


def _refuse_existing(config: Mapping[str, Any]) -> None:

    folder = Path(config["output_dir"]) / str(config["name"])
    if (folder / META).exists():
        raise exists_error(folder)


def _use_free_name(config: dict[str, Any]) -> None:
    folder = Path(config["output_dir"]) / str(config["name"])
    if folder.exists():
        config["name"] = free_name(folder)


def _make_paths_absolute(config: dict[str, Any]) -> None:
    """A sweep may be resumed from another folder."""
    config["output_dir"] = str(Path(config["output_dir"]).resolve())
    for key in ("path", "ferplus_path", "cache_dir"):
        value = config["data"].get(key)
        if isinstance(value, str) and value != "???":
            config["data"][key] = str(Path(value).resolve())
