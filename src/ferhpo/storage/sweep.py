"""Create and load sweeps. A sweep is a folder on disk with its configuration and its trials.

<output_dir>/<name>/
    sweep.json      the composed configuration, id, versions, git state
    study.jsonl     the Optuna study (study.py)
    spool.jsonl     records for MLflow (tracking)
    trials/0007/    last.ckpt and best.ckpt of trial 7; with cross-validation, one of each in fold0/, fold1/, ...;
                    after a trial has ended, only the best trials keep them (driver/retention.py)
"""

import json
import logging
import os
import platform
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from ferhpo.config import Composed, Objective
from ferhpo.config.composed import config_shape
from ferhpo.config.folds import KEPT_FOLD, fold_folder, num_folds
from ferhpo.config.run_config import RunConfig
from ferhpo.disk import disk_refused, write_json
from ferhpo.errors import ConfigError, SweepError
from ferhpo.keys import nearest
from ferhpo.space import Space
from ferhpo.storage.journal import JOURNAL
from ferhpo.storage.provenance import git_state, versions
from ferhpo.storage.trial_record import TrialRecord, best_of, ranked, read_trials
from ferhpo.tracking import TrackingSettings

log = logging.getLogger("ferhpo.sweep")
META = "sweep.json"
KIND = "confirm"  # `kind` in sweep.json of a confirmation; the others are sweep and train
# A trial's weights depend on everything else; a resumed sweep that changed it would mix two sweeps.
CHANGEABLE = ("num_trials", "keep_checkpoints", "compute", "tracking")


@dataclass(frozen=True)
class Sweep:
    """A sweep, as stored in its folder.

    meta: the content of sweep.json
    """

    folder: Path
    id: str
    composed: Composed
    meta: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def config(self) -> dict[str, Any]:
        return self.composed.config

    @property
    def resume_command(self) -> str:
        """The command that resumes it, which depends on its kind: sweep, train or confirm."""
        return _resume_command(self.meta["kind"], self.name)

    @cached_property
    def run_config(self) -> RunConfig:
        """The sections that ferhpo itself reads. If `config` changes, make a new Sweep: dataclasses.replace(sweep)."""
        return RunConfig(self.composed)

    @property
    def objective(self) -> Objective:
        return self.run_config.objective

    @property
    def tracking(self) -> TrackingSettings:
        return self.run_config.tracking

    @property
    def listed(self) -> list[dict[str, Any]]:
        """The `sample` and `seed` of each trial if they are listed and not sampled (a confirmation), else empty."""
        return self.meta.get("listed", [])  # type: ignore[no-any-return]

    def space(self) -> Space:
        """Return the search space. Raises ConfigError if it is not valid in this version of ferhpo."""
        try:
            return self.run_config.space
        except ConfigError as error:  # the file was modified, or written by another version
            raise ConfigError(str(self.folder / META), error.faults) from None

    def trials(self) -> list[TrialRecord]:
        """Return all trials, ordered by number. The sweep may be running."""
        # A driver that ended at once, e.g. because it could not connect to a cluster, leaves no journal.
        return read_trials(self.folder, self.objective, self.space) if (self.folder / JOURNAL).exists() else []

    def leaderboard(self) -> list[TrialRecord]:
        """Return all trials, best first (see `ranked`)."""
        return ranked(self.trials(), self.objective)

    def best(self) -> TrialRecord | None:
        """Return the best COMPLETE trial; None if there is none."""
        return best_of(self.trials(), self.objective)

    def trial_folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}"

    def kept_folder(self, number: int) -> Path:
        """Return the folder of the checkpoints that represent a trial: its own, or that of its first fold."""
        folder = self.trial_folder(number)
        return folder if num_folds(self.config) is None else fold_folder(folder, KEPT_FOLD)


def create_sweep(composed: Composed, kind: str = "sweep", listed: Sequence[Mapping[str, Any]] = ()) -> Sweep:
    """Create the folder of a new sweep. Raises SweepError if it exists, StorageError if it cannot be written."""
    config = composed.config
    folder = Path(config["output_dir"]).resolve() / str(config["name"])
    if has_meta(folder):
        raise exists_error(folder)
    meta: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "kind": kind,
        "created": time.strftime("%Y-%m-%d %H:%M:%S"),
        "versions": versions(),
        "git": git_state(),
        "node": platform.node(),
        "composed": asdict(composed),
    }
    if listed:
        meta["listed"] = list(listed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _publish(folder / META, meta)
    except FileExistsError:  # created by another driver meanwhile
        raise exists_error(folder) from None
    except OSError as error:
        raise disk_refused(folder, error) from None
    return Sweep(folder, meta["id"], composed, meta)


def _publish(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that must be new. Raises FileExistsError if it exists."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    write_json(temporary, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        temporary.replace(path)
    finally:
        with suppress(OSError):  # the reason why it could not be written counts, not this one
            temporary.unlink(missing_ok=True)


def save_config(sweep: Sweep) -> None:
    """Write the configuration of a resumed sweep, which may have changed. Raises StorageError if that fails."""
    sweep.meta["composed"]["config"] = sweep.config
    try:
        write_json(sweep.folder / META, sweep.meta)
    except OSError as error:
        raise disk_refused(sweep.folder, error) from None


def fix_threads(sweep: Sweep, usual: int) -> int:
    """Return the CPU threads of each trial: those that the sweep began with, or `usual` for a new one.

    The order in which a sum is computed, and so a trial's last digits, depends on them, so they are recorded and stay
    when a resume has other cores or slots. A sweep of an earlier version has them in the facts of its trials.
    """
    if "num_threads" not in sweep.meta:
        devices = [re.fullmatch(r"cpu \((\d+) threads\)", str(t.extra.get("device"))) for t in sweep.trials()]
        before = {int(device[1]) for device in devices if device}
        sweep.meta["num_threads"] = before.pop() if len(before) == 1 else usual
        save_config(sweep)
    num_threads = int(sweep.meta["num_threads"])
    if num_threads != usual:
        log.warning(
            "threads: the trials keep the %d CPU threads that the sweep began with; here each would have %d",
            num_threads,
            usual,
        )
    return num_threads


def load_sweep(name: str | Path, output_dir: str | Path = "mlruns") -> Sweep:
    """Load the sweep `name` from `output_dir`, or from the folder `name`. Raises SweepError if it is not there."""
    folder = Path(output_dir) / name
    if not has_meta(folder) and has_meta(Path(name)):
        folder = Path(name)
    if not has_meta(folder):
        names = [path.parent.name for path in sorted(Path(output_dir).glob(f"*/{META}"))]
        hint = nearest(str(name), names) if names else "there are none yet"
        raise SweepError(f"there is no sweep {name} in {Path(output_dir).resolve()}; {hint}")
    folder = folder.resolve()
    path = folder / META
    try:
        meta = json.loads(path.read_text())
        fault = _fault_of(meta)
    except OSError as error:
        raise SweepError(f"{path} cannot be read ({error.strerror}); make it readable for this user") from None
    except (ValueError, RecursionError) as error:
        meta, fault = {}, str(error)
    if fault:
        raise SweepError(
            f"{path} is damaged ({fault}); restore it from a copy, or start another sweep with name=... "
            f"(its trials are still in {JOURNAL})"
        )
    return Sweep(folder, meta["id"], Composed(**meta["composed"]), meta)


def has_meta(folder: Path) -> bool:
    """Return whether a folder is that of a sweep. Raises SweepError if this user cannot look into it."""
    try:
        return (folder / META).is_file()
    except OSError as error:
        raise SweepError(
            f"{folder!s:.300} cannot be read ({error.strerror}); make it readable for this user, or name another sweep"
        ) from None


def _fault_of(meta: Any) -> str:
    """Return what is wrong with the content of sweep.json; empty if nothing is."""
    if not isinstance(meta, dict):
        return "it is not a JSON object"
    for key, kind in (("id", str), ("kind", str), ("created", str), ("composed", dict)):
        if not isinstance(meta.get(key), kind):
            return f"{key} is {_shown(meta, key)}"
    composed = meta["composed"]
    known = {field.name: field.type for field in fields(Composed)}
    for key in known:
        expected = str if key == "name" else dict
        if not isinstance(composed.get(key), expected):
            return f"composed.{key} is {_shown(composed, key)}"
    if unknown := [key for key in composed if key not in known]:
        return f"composed.{unknown[0]} is an unknown field; was it written by another version of ferhpo?"
    if not isinstance(meta.get("num_threads", 1), int) or meta.get("num_threads", 1) < 1:
        return f"num_threads is {_shown(meta, 'num_threads')}"
    listed = meta.get("listed", [])
    if not isinstance(listed, list) or not all(_is_listed(trial) for trial in listed):
        return "listed is not a list of trials, each with sample and seed"
    config = composed["config"]
    if fault := next(config_shape(config), ""):
        return fault
    folds = config["data"].get("folds")
    return "" if folds is None or isinstance(folds, int) else f"data.folds is {folds!r:.60}"


def _shown(mapping: Mapping[str, Any], key: str) -> str:
    return f"{mapping[key]!r:.60}" if key in mapping else "missing"


def _is_listed(trial: Any) -> bool:
    return isinstance(trial, dict) and isinstance(trial.get("sample"), dict) and isinstance(trial.get("seed"), int)


def exists_error(folder: Path) -> SweepError:
    """Return the error for a name that is already taken, with the commands to resume or start anew."""
    name = folder.name
    try:
        kind = json.loads((folder / META).read_text())["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = "sweep"
    return SweepError(
        f"sweep {name} already exists in {folder.parent.resolve()}. Resume with: {_resume_command(kind, name)}; "
        f"or start a new one with --new ({free_name(folder)}) or name=..."
    )


def _resume_command(kind: str, name: str) -> str:
    return f"ferhpo {kind if kind in ('train', 'confirm') else 'sweep'} --resume {name}"


def free_name(folder: Path) -> str:
    """Return the first of name-2, name-3, ... that does not exist next to `folder`."""
    number = 2
    while (folder.parent / f"{folder.name}-{number}").exists():
        number += 1
    return f"{folder.name}-{number}"
