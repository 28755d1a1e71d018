"""Check a sweep, a training or a confirmation before anything is created on disk.

The checks cover the configuration, the name, paths, disk, trained weights and the MLflow store. The data set and the
Ray cluster are checked afterwards, when they are loaded and joined, but still before the sweep's folder is created.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ferhpo.config import Composed, validate
from ferhpo.config.compose import compose, hide_password, replacement_fault
from ferhpo.config.run_config import RunConfig
from ferhpo.disk import check_disk, check_temporary
from ferhpo.errors import ConfigError, SweepError
from ferhpo.keys import leaves, nearest_key, set_path
from ferhpo.storage.lock import FolderLock
from ferhpo.storage.sweep import CHANGEABLE, Sweep, create_sweep, exists_error, free_name, has_meta, load_sweep
from ferhpo.tracking import TrackingSettings, check_store, hide_all


@dataclass(frozen=True)
class Prepared:
    """A checked configuration, ready to run.

    existing: the sweep to resume; None for a new one, which `open` creates
    """

    composed: Composed
    run_config: RunConfig
    existing: Sweep | None
    warnings: list[str]

    def open(self, kind: str, listed: Sequence[Mapping[str, Any]] = ()) -> Sweep:
        """Return the existing sweep, or create the new one on disk."""
        return self.existing or create_sweep(self.composed, kind, listed)


def prepare(
    name: str, overrides: Sequence[str], kind: str, *, resume: bool, new: bool, config_dir: Path | None
) -> Prepared:
    """Compose and check the configuration `name`, or load the sweep `name` to resume.

    kind: "sweep" or "train"; a training has no search space and one trial
    Raises ConfigError, SweepError, TrackingError, StorageError.
    """
    existing = resumed(name, overrides, kind) if resume else None
    composed = existing.composed if existing else compose(name, overrides, config_dir)
    if kind == "train":
        composed.config.update(space={}, num_trials=1)
        composed.options.clear()
    if new and existing is None:
        _use_free_name(composed.config)
    warnings = validate.check_composed(composed, for_sweep=kind != "train")
    return prepare_composed(composed, existing, warnings)


def prepare_composed(composed: Composed, existing: Sweep | None, warnings: Sequence[str] = ()) -> Prepared:
    """Check what a valid configuration refers to: name, paths, disk, weights, store."""
    make_paths_absolute(composed.config)
    check_temporary()
    if existing is None:
        _refuse_existing(composed.config)
    run_config = RunConfig(composed)
    validate.check_weights(composed.config, run_config.space)
    return Prepared(composed, run_config, existing, [*warnings, *_store_warnings(run_config.tracking)])


def resumed(name: str, overrides: Sequence[str], kind: str) -> Sweep:
    """Return the sweep to resume, with overrides applied. Nothing is written to disk yet.

    Raises SweepError if there is no such sweep or another driver runs it, ConfigError for an override that a resume
    cannot apply.
    """
    overrides = hide_all(overrides)
    output_dir = next((text.partition("=")[2] for text in overrides if text.startswith("output_dir=")), "mlruns")
    sweep = load_sweep(name, output_dir)
    if sweep.meta["kind"] != kind:
        raise SweepError(f"{name} is a {sweep.meta['kind']}. Resume with: {sweep.resume_command}")
    check_disk(sweep.folder)
    FolderLock(sweep.folder).release()  # raises if another driver runs it, before Ray starts
    config = sweep.config
    known = [
        "num_trials",
        "keep_checkpoints",
        *(f"{section}.{key}" for section in ("compute", "tracking") for key in config[section]),
    ]
    faults = []
    for text in overrides:
        key, _, value = text.partition("=")
        section = key.split(".")[0]
        if key == "output_dir":
            continue
        if section not in CHANGEABLE:
            faults.append(
                f"{key} cannot change in a resumed sweep, whose trials must be comparable; only these can: "
                f"{', '.join(CHANGEABLE)}"
            )
        elif key in known:
            try:
                set_path(config, key, yaml.safe_load(value))
            except yaml.YAMLError:
                faults.append(f"{key} is {value}, which is not valid YAML")
        elif key == section and (fault := replacement_fault(config, key)):
            faults.append(fault)
        else:
            faults.append(f"{key} matches no key; {nearest_key(config, key)}")
    if faults:
        raise ConfigError(f"--resume {name}", faults)
    hide_password(config)
    return replace(sweep)


def _store_warnings(tracking: TrackingSettings) -> list[str]:
    """Return warnings about a store that cannot be reached and is not required; TrackingError if it is required."""
    reason = check_store(tracking)
    if reason is None:
        return []
    return [
        f"tracking.uri is {tracking.shown_uri}: {reason}; records stay in the sweep's folder "
        "until the store is reachable"
    ]


def _refuse_existing(config: dict[str, Any]) -> None:
    folder = Path(config["output_dir"]) / str(config["name"])
    if has_meta(folder):
        raise exists_error(folder)
    check_disk(folder)


def _use_free_name(config: dict[str, Any]) -> None:
    folder = Path(config["output_dir"]) / str(config["name"])
    if folder.exists():
        config["name"] = free_name(folder)


def make_paths_absolute(config: dict[str, Any]) -> None:
    """Make every path independent of the current folder: a sweep may be resumed from another one."""
    config["output_dir"] = str(Path(config["output_dir"]).resolve())
    for path, value in list(leaves(config["data"])):
        key = path.rpartition(".")[2]
        is_path = key in ("path", "ferplus_path", "cache_dir") or (key == "clean" and Path(str(value)).exists())
        if is_path and isinstance(value, str) and value != "???":
            set_path(config["data"], path, str(Path(value).resolve()))
    weights = config["model"].get("weights")
    if isinstance(weights, str) and Path(weights).is_file():
        config["model"]["weights"] = str(Path(weights).resolve())
