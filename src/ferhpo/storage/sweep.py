"""Create and load sweeps. A sweep is a folder on disk with its configuration and its trials.

<output_dir>/<name>/
    sweep.json      the composed configuration, id, versions, git state
    code/           copies of the user's own code that ran it
    study.jsonl     the Optuna study (study.py)
    spool.jsonl     records for MLflow (tracking)
    trials/0007/    last.ckpt and best.ckpt of trial 7; with cross-validation, one of each in fold0/, fold1/, ...;
                    after a trial has ended, only the best trials keep them (driver/retention.py)
"""

import copy
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferhpo.config import Composed, Objective
from ferhpo.config.composed import ADDED
from ferhpo.config.folds import KEPT_FOLD, fold_folder, num_folds
from ferhpo.config.input.origin import MARK, mark
from ferhpo.config.run_config import RunConfig
from ferhpo.data.io.cache import drop_caches
from ferhpo.disk import disk_refused, write_json
from ferhpo.errors import ConfigError, SweepError
from ferhpo.keys import nearest
from ferhpo.parse import parse_json
from ferhpo.space import Space
from ferhpo.storage.commands import command, resume_command
from ferhpo.storage.frames import curves_frame, leaderboard_frame, sentence, sweep_html
from ferhpo.storage.meta import (
    META,
    UNRECORDED,
    exists_error,
    fault_of,
    has_meta,
    publish,
    refuse_foreign,
    refuse_links,
)
from ferhpo.storage.provenance import differences, environment, keep_code
from ferhpo.storage.study.journal import JOURNAL
from ferhpo.storage.trial_record import TrialRecord, best_of, ranked, read_trials
from ferhpo.tracking import TrackingSettings

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("ferhpo.sweep")
KIND = "confirm"  # `kind` in sweep.json of a confirmation; the others are sweep and train
# A trial's weights depend on everything else; a resumed sweep that changed it would mix two sweeps.
CHANGEABLE = ("num_trials", "keep_checkpoints", "budget", "compute", "tracking")


@dataclass(frozen=True, repr=False)
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
        address = (self.config.get("compute") or {}).get("address")
        return resume_command(self.meta["kind"], self.folder, address)

    def command(self, verb: str) -> str:
        """Return the command of another verb for this sweep, as the user can type it."""
        return command(verb, self.folder)

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

    @property
    def earlier(self) -> list[dict[str, Any]]:
        """The trials of earlier sweeps that its sampler is given."""
        return self.meta.get("warm_start", [])  # type: ignore[no-any-return]

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

    def frame(self) -> "pd.DataFrame":
        """Return the leaderboard as a pandas frame, best first, with the columns of leaderboard.csv."""
        return leaderboard_frame(self.leaderboard(), self.objective.metric)

    def to_pandas(self) -> "pd.DataFrame":
        """Return the same frame, by the name that other libraries use."""
        return self.frame()

    def curves(self) -> "pd.DataFrame":
        """Return every recorded epoch as a pandas frame, with the index (trial, epoch) or (trial, fold, epoch)."""
        return curves_frame(self.trials())

    def __repr__(self) -> str:
        return f"Sweep({sentence(self)})"

    def _repr_html_(self) -> str:
        return sweep_html(self)

    def trial_folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}"

    def kept_folder(self, number: int) -> Path:
        """Return the folder of the checkpoints that represent a trial: its own, or that of its first fold."""
        folder = self.trial_folder(number)
        return folder if num_folds(self.config) is None else fold_folder(folder, KEPT_FOLD)


def create_sweep(
    composed: Composed,
    kind: str = "sweep",
    listed: Sequence[Mapping[str, Any]] = (),
    overrides: Sequence[str] | None = None,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> Sweep:
    """Create the folder of a new sweep. Raises SweepError if it exists, StorageError if it cannot be written.

    overrides: recorded as provenance; without passwords
    earlier: trials of earlier sweeps that the sampler is given (tuning/warm_start.py)
    """
    config = composed.config
    folder = Path(config["output_dir"]).resolve() / str(config["name"])
    if has_meta(folder):
        raise exists_error(folder)
    refuse_foreign(folder)
    meta: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "kind": kind,
        "created": time.strftime("%Y-%m-%d %H:%M:%S"),
        **environment(),
        "composed": {key: value for key, value in asdict(composed).items() if key != UNRECORDED},
    }
    if overrides is not None:
        meta["overrides"] = list(overrides)
    if listed:
        meta["listed"] = list(listed)
    if earlier:
        meta["warm_start"] = list(earlier)
    meta[MARK] = mark(meta)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        publish(folder / META, meta)
        keep_code(folder)
    except FileExistsError:  # created by another driver meanwhile
        raise exists_error(folder) from None
    except OSError as error:
        raise disk_refused(folder, error) from None
    return Sweep(folder, meta["id"], composed, meta)


def save_config(sweep: Sweep) -> None:
    """Write the configuration of a resumed sweep, which may have changed. Raises StorageError if that fails."""
    sweep.meta["composed"]["config"] = sweep.config
    sweep.meta[MARK] = mark(sweep.meta)  # what is a stranger's was approved, see preflight.resumed
    try:
        keep_code(sweep.folder)
        write_json(sweep.folder / META, sweep.meta)
    except OSError as error:
        raise disk_refused(sweep.folder, error) from None


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
    refuse_links(folder)
    path = folder / META
    try:
        meta = parse_json(path.read_text())
        fault = fault_of(meta)
        if not fault:
            meta = {"versions": {}, "git": {}, "node": "", **meta}
            meta["composed"]["config"] = {**copy.deepcopy(ADDED), **meta["composed"]["config"]}
    except OSError as error:
        raise SweepError(f"{path} cannot be read ({error.strerror}); make it readable for this user") from None
    except (ValueError, RecursionError) as error:
        meta, fault = {}, str(error)
    if fault:
        raise SweepError(
            f"{path} is damaged ({fault}); restore it from a copy, or start another sweep with name=... "
            f"(its trials are still in {JOURNAL})"
        )
    _set_place(meta["composed"]["config"], folder)
    drop_caches(meta["composed"]["config"].get("data") or {})
    return Sweep(folder, meta["id"], Composed(**meta["composed"]), meta)


def _set_place(config: dict[str, Any], folder: Path) -> None:
    """Make the folder in which a sweep was found its folder, whatever it was when the sweep was started."""
    former, current = config.get("output_dir"), str(folder.parent)
    uri = config["tracking"].get("uri")
    if isinstance(uri, str) and former != current and uri.startswith(f"sqlite:///{former}/"):
        config["tracking"]["uri"] = f"sqlite:///{current}/{uri.removeprefix(f'sqlite:///{former}/')}"
    config["output_dir"], config["name"] = current, folder.name


def note_environment(sweep: Sweep) -> list[str]:
    """Enter this process's versions and commit in the meta data of a resumed sweep; return what differs.

    The ones before are kept under `earlier`. Nothing is written to disk yet.
    """
    now = environment()
    found = differences(sweep.meta, now)
    if found:
        before = {key: sweep.meta[key] for key in now if key in sweep.meta}
        until = time.strftime("%Y-%m-%d %H:%M:%S")
        sweep.meta.setdefault("earlier", []).append({**before, "until": until})
        sweep.meta.update(now)
    return found
