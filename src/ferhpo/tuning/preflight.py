"""Check a sweep, a training or a confirmation before anything is created on disk.

The checks cover the configuration, the name, paths, disk, trained weights and the MLflow store. The data set and the
Ray cluster are checked afterwards, when they are loaded and joined, but still before the sweep's folder is created.
"""

import copy
import logging
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ferhpo.addresses.secrets import hide_password
from ferhpo.components import own_code
from ferhpo.config import Composed, validate
from ferhpo.config.change import set_values
from ferhpo.config.compose import compose
from ferhpo.config.input.origin import foreign_faults, is_own
from ferhpo.config.input.overrides import replacement_fault, unquoted
from ferhpo.config.run_config import RunConfig
from ferhpo.config.settings import ComputeSettings, gpu_faults
from ferhpo.data.dataset import FaceData
from ferhpo.disk import check_disk, check_temporary
from ferhpo.errors import ConfigError, SweepError
from ferhpo.keys import PLACES, Overrides, has_key, leaves, nearest_key, override_texts, set_path
from ferhpo.storage.commands import word
from ferhpo.storage.lock import FolderLock
from ferhpo.storage.meta import exists_error, free_name, has_meta, refuse_foreign
from ferhpo.storage.provenance import overrides_of
from ferhpo.storage.sweep import CHANGEABLE, Sweep, create_sweep, load_sweep, note_environment
from ferhpo.text import STEPS
from ferhpo.tracking import TrackingSettings, check_store, hide_all, refuse_lost_store
from ferhpo.training.settings import PRETEND_GPU

log = logging.getLogger(STEPS)


@dataclass(frozen=True)
class Prepared:
    """A checked configuration, ready to run.

    existing: the sweep to resume; None for a new one, which `open` creates
    overrides: recorded with the sweep; without passwords
    """

    composed: Composed
    run_config: RunConfig
    existing: Sweep | None
    warnings: list[str]
    overrides: Sequence[str] | None = None

    def open(
        self,
        kind: str,
        data: FaceData,
        listed: Sequence[Mapping[str, Any]] = (),
        earlier: Sequence[Mapping[str, Any]] = (),
    ) -> Sweep:
        """Return the existing sweep, or create the new one on disk.

        Raises SweepError if the data set is not the one that the existing sweep was started with.
        """
        if self.existing is None:
            return create_sweep(self.composed, kind, listed, self.overrides, earlier)
        if self.overrides:
            before = overrides_of(self.existing.meta)
            self.existing.meta["overrides"] = [*before, *(text for text in self.overrides if text not in before)]
        digest = self.existing.meta.get("data", {}).get("digest", data.digest)
        if digest != data.digest:
            raise SweepError(
                f"the data set is {data.source}, with digest {data.digest[:12]}; sweep {self.existing.name} was "
                f"started with digest {digest[:12]}, and its trials must be comparable; resume with the same images "
                "and labels (data.path=... if they were moved), or start another sweep with name=..."
            )
        if changes := note_environment(self.existing):
            text = f"sweep {self.existing.name} is resumed under another environment: {', '.join(changes)}"
            self.warnings.append(f"{text}; its runs in MLflow have both")
        return self.existing


def prepare(
    name: str, overrides: Overrides, kind: str, *, resume: bool, new: bool, config_dir: Path | None
) -> Prepared:
    """Compose and check the configuration `name`, or load the sweep `name` to resume.

    kind: "sweep" or "train"; a training has no search space and one trial
    Raises ConfigError, SweepError, TrackingError, StorageError.
    """
    overrides = override_texts(overrides)
    existing = resumed(Path(name).stem if name.endswith(".yaml") else name, overrides, kind) if resume else None
    composed = existing.composed if existing else compose(name, overrides, config_dir)
    if kind == "train":
        composed.config.update(space={}, num_trials=1)
        composed.options.clear()
    if new and existing is None:
        _use_free_name(composed.config)
    # A sweep that is resumed keeps its values as they are: its trials were computed with them.
    checked = copy.deepcopy(composed) if existing else composed
    try:
        warnings = validate.check_composed(checked, for_sweep=kind != "train")
    except ConfigError as error:
        if existing is None:
            raise
        raise ConfigError(existing.name, [_with_copy(fault, existing.folder) for fault in error.faults]) from None
    if kind == "sweep":
        _refuse_missing_gpus(composed)
    return replace(prepare_composed(composed, existing, warnings), overrides=hide_all(overrides))


def _refuse_missing_gpus(composed: Composed) -> None:
    """Raise ConfigError if this machine lacks GPUs that trials would get: on a CPU they would take far too long."""
    faults = gpu_faults(ComputeSettings(**composed.config["compute"]))
    if faults and os.environ.get(PRETEND_GPU) != "1":
        raise ConfigError("compute", faults)


def _with_copy(fault: str, folder: Path) -> str:
    """Return the fault of a resume, with the sweep's copy of a file of own code that is missing."""
    missing = re.search(r"\b(\w+\.py)\b", fault.partition("; there is no ")[2])
    copy_ = folder / "code" / missing[1] if missing else folder
    return f"{fault}; the sweep has a copy: {copy_}" if copy_.is_file() else fault


def prepare_composed(composed: Composed, existing: Sweep | None, warnings: Sequence[str] = ()) -> Prepared:
    """Check what a valid configuration refers to: name, paths, disk, weights, store."""
    make_paths_absolute(composed.config)
    check_temporary()
    if existing is None:
        _refuse_existing(composed.config)
    run_config = RunConfig(composed)
    validate.check_weights(composed.config, run_config.space)
    tracking, name = run_config.tracking, str(composed.config["name"])
    if existing is not None:
        refuse_lost_store(existing.folder, tracking)
    model_name = None if tracking.models == "none" else tracking.registered_name(name)
    warnings = [*warnings, *_store_warnings(tracking, model_name)]
    for warning in warnings:
        log.warning(warning)
    return Prepared(composed, run_config, existing, warnings)


def resumed(name: str, overrides: Sequence[str], kind: str) -> Sweep:
    """Return the sweep to resume, with overrides applied. Nothing is written to disk yet.

    Raises SweepError if there is no such sweep or another driver runs it, ConfigError for an override that a resume
    cannot apply.
    """
    overrides = hide_all(overrides)
    own_code.allow_overrides(overrides)
    folders = [unquoted(text.partition("=")[2]) for text in overrides if text.startswith("output_dir=")]
    output_dir = folders[-1] if folders else "mlruns"
    sweep = load_sweep(name, output_dir)
    own = is_own(sweep.meta)
    if sweep.meta["kind"] != kind:
        raise SweepError(f"{name} is a {sweep.meta['kind']}. Resume with: {sweep.resume_command}")
    check_disk(sweep.folder)
    FolderLock(sweep.folder).release()  # raises if another driver runs it, before Ray starts
    config = sweep.config
    known = [
        "num_trials",
        "keep_checkpoints",
        *(f"{section}.{key}" for section in ("budget", "compute", "tracking") for key in config[section]),
        *(places := [path for path, _ in leaves(config["data"], "data") if path.rpartition(".")[2] in PLACES]),
    ]
    faults, other = [], list[str]()
    for text in overrides:
        key = text.partition("=")[0]
        section = key.split(".")[0]
        if key in ("output_dir", "allowed_targets"):
            continue
        if section not in CHANGEABLE and key not in places:
            other.append(text)
            faults.append(
                f"{key} cannot change in a resumed sweep, whose trials must be comparable; only these can: "
                f"{', '.join(CHANGEABLE)}"
            )
        elif key in known:
            faults += set_values(config, [text])
        elif key == section and (fault := replacement_fault(config, key)):
            faults.append(fault)
        else:
            faults.append(f"{key} matches no key; {nearest_key(config, key)}")
    if faults:
        raise ConfigError(f"--resume {name}", [*faults, *_instead(sweep, other, kind)])
    hide_password(config)
    if faults := foreign_faults(sweep.meta, own, overrides):
        raise ConfigError(f"--resume {name}", faults)
    return replace(sweep)


def _instead(sweep: Sweep, overrides: Sequence[str], kind: str) -> list[str]:
    """Return the commands that do what a resume cannot: train the best trials otherwise, or search on from them.

    overrides: those that a resume cannot apply
    """
    if kind != "sweep" or not overrides or not all(has_key(sweep.config, text.partition("=")[0]) for text in overrides):
        return []
    changes = " ".join(shlex.quote(text) for text in overrides)
    longer = f"{sweep.command('confirm')} --top 5 {changes}"
    where = f"name={shlex.quote(sweep.name)}-2 warm_start={shlex.quote(f'[{sweep.name}]')}"
    return [
        f"to train its best trials again with these settings, run: {longer}",
        f"to search on from its trials, run: ferhpo sweep {word(sweep.composed.name)} {changes} {where}",
    ]


def _store_warnings(tracking: TrackingSettings, model_name: str | None) -> list[str]:
    """Return warnings about a store that cannot be reached and is not required; TrackingError if it is required."""
    if not tracking.off:
        path = tracking.sqlite_path
        is_near = path is not None and path.is_relative_to(Path.cwd())
        log.info(
            "checking the MLflow store: %s", path.relative_to(Path.cwd()) if path and is_near else tracking.shown_uri
        )
    reason = check_store(tracking, model_name)
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
    refuse_foreign(folder)
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
        is_path = key in PLACES or (key == "clean" and Path(str(value)).exists())
        if is_path and isinstance(value, str) and value != "???":
            set_path(config["data"], path, str(Path(value).resolve()))
    weights = config["model"].get("weights")
    if isinstance(weights, str) and Path(weights).is_file():
        config["model"]["weights"] = str(Path(weights).resolve())
