"""A sweep on disk: its folder, its configuration, its trials.

<output_dir>/<name>/
    sweep.json      the composed configuration, id, versions, git state
    study.jsonl     the Optuna study (study.py)
    spool.jsonl     records for MLflow (tracking)
    trials/0007/    last.ckpt and best.ckpt of trial 7; with cross-validation fold0/, fold1/, ... with these in each;
                    once a trial has ended, of the best trials only (driver/retention.py)
"""

import json
import os
import platform
import time
import uuid
from collections.abc import Mapping, Sequence
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

META = "sweep.json"
# A trial's weights follow from these; a resumed sweep that changed them would mix two sweeps.
CHANGEABLE = ("num_trials", "keep_checkpoints", "compute", "tracking")


@dataclass(frozen=True)
class Sweep:
    """A sweep as its folder holds it."""

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
        """What goes on with it: it may be a training or a confirmation."""
        return _resume_command(self.meta["kind"], self.name)

    @cached_property
    def run_config(self) -> RunConfig:
        """The sections that ferhpo itself reads. A change of `config` needs a new Sweep: dataclasses.replace(sweep)."""
        return RunConfig(self.composed)

    @property
    def objective(self) -> Objective:
        return self.run_config.objective

    @property
    def tracking(self) -> TrackingSettings:
        return self.run_config.tracking

    @property
    def listed(self) -> list[dict[str, Any]]:
        """The `sample` and `seed` of each trial, where they are listed and not drawn (a confirmation)."""
        return self.meta.get("listed", [])  # type: ignore[no-any-return]

    def space(self) -> Space:
        try:
            return self.run_config.space
        except ConfigError as error:  # the file was changed, or written by another version
            raise ConfigError(str(self.folder / META), error.faults) from None

    def trials(self) -> list[TrialRecord]:
        """All trials in the order of their numbers, also while the sweep runs."""
        # A driver that ended at once, as for want of a cluster, leaves no journal.
        return read_trials(self.folder, self.objective, self.space) if (self.folder / JOURNAL).exists() else []

    def leaderboard(self) -> list[TrialRecord]:
        """All trials, `ranked`."""
        return ranked(self.trials(), self.objective)

    def best(self) -> TrialRecord | None:
        """The best COMPLETE trial; None where there is none."""
        return best_of(self.trials(), self.objective)

    def trial_folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}"

    def kept_folder(self, number: int) -> Path:
        """Where the network lies that stands for a trial: the trial's folder, or that of its first fold."""
        folder = self.trial_folder(number)
        return folder if num_folds(self.config) is None else fold_folder(folder, KEPT_FOLD)


def create_sweep(composed: Composed, kind: str = "sweep", listed: Sequence[Mapping[str, Any]] = ()) -> Sweep:
    """Make the folder of a new sweep. Raises SweepError where it exists, StorageError where the disk refuses."""
    config = composed.config
    folder = Path(config["output_dir"]).resolve() / str(config["name"])
    if (folder / META).exists():
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
    except FileExistsError:  # by another driver, just now
        raise exists_error(folder) from None
    except OSError as error:
        raise disk_refused(folder, error) from None
    return Sweep(folder, meta["id"], composed, meta)


def _publish(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that must be new. FileExistsError where it is not."""
    own = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    write_json(own, content)
    try:
        os.link(own, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        own.replace(path)
    finally:
        own.unlink(missing_ok=True)


def save_config(sweep: Sweep) -> None:
    """Write the configuration of a resumed sweep, part of which may have changed. Raises StorageError."""
    sweep.meta["composed"]["config"] = sweep.config
    try:
        write_json(sweep.folder / META, sweep.meta)
    except OSError as error:
        raise disk_refused(sweep.folder, error) from None


def load_sweep(name: str | Path, output_dir: str | Path = "mlruns") -> Sweep:
    """The sweep called `name` in `output_dir`, or in the folder `name`. Raises SweepError where there is none."""
    folder = Path(output_dir) / name
    if not (folder / META).is_file() and (Path(name) / META).is_file():
        folder = Path(name)
    if not (folder / META).is_file():
        names = [path.parent.name for path in sorted(Path(output_dir).glob(f"*/{META}"))]
        hint = nearest(str(name), names) if names else "there are none yet"
        raise SweepError(f"there is no sweep {name} in {Path(output_dir).resolve()}; {hint}")
    folder = folder.resolve()
    path = folder / META
    try:
        meta = json.loads(path.read_text())
        fault = _fault_of(meta)
    except (OSError, ValueError, RecursionError) as error:
        meta, fault = {}, str(error)
    if fault:
        raise SweepError(
            f"{path} is damaged ({fault}); put a copy back, or start another sweep with name=... (its trials are in "
            f"{JOURNAL}, untouched)"
        )
    return Sweep(folder, meta["id"], Composed(**meta["composed"]), meta)


def _fault_of(meta: Any) -> str:
    """What sweep.json lacks of what every reader relies on; empty where it lacks nothing."""
    if not isinstance(meta, dict):
        return "it is no object"
    for key, kind in (("id", str), ("kind", str), ("created", str), ("composed", dict)):
        if not isinstance(meta.get(key), kind):
            return f"{key} is {meta.get(key, 'missing')!r:.60}"
    composed = meta["composed"]
    known = {field.name: field.type for field in fields(Composed)}
    for key in known:
        wanted = str if key == "name" else dict
        if not isinstance(composed.get(key), wanted):
            return f"composed.{key} is {composed.get(key, 'missing')!r:.60}"
    if unknown := [key for key in composed if key not in known]:
        return f"composed.{unknown[0]} is nothing that this version of ferhpo knows"
    listed = meta.get("listed", [])
    if not isinstance(listed, list) or not all(_is_listed(trial) for trial in listed):
        return "listed is no list of trials, each with its sample and seed"
    config = composed["config"]
    if fault := next(config_shape(config), ""):
        return fault
    folds = config["data"].get("folds")
    return "" if folds is None or isinstance(folds, int) else f"data.folds is {folds!r:.60}"


def _is_listed(trial: Any) -> bool:
    return isinstance(trial, dict) and isinstance(trial.get("sample"), dict) and isinstance(trial.get("seed"), int)


def exists_error(folder: Path) -> SweepError:
    """What to say of a sweep's name that is taken."""
    name = folder.name
    try:
        kind = json.loads((folder / META).read_text())["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = "sweep"
    return SweepError(
        f"sweep {name} exists in {folder.parent.resolve()}; {_resume_command(kind, name)} goes on with it, "
        f"--new starts {free_name(folder)}, name=... starts one by that name"
    )


def _resume_command(kind: str, name: str) -> str:
    return f"ferhpo {kind if kind in ('train', 'confirm') else 'sweep'} --resume {name}"


def free_name(folder: Path) -> str:
    """The first of name-2, name-3, ... that is free beside `folder`."""
    number = 2
    while (folder.parent / f"{folder.name}-{number}").exists():
        number += 1
    return f"{folder.name}-{number}"


KIND = "confirm"
