"""The verb `confirm`: retrain the best trials of a sweep on fresh seeds, select by the mean, evaluate on test once.

A confirmation is a sweep of its own, NAME-confirm, whose trials are listed in its sweep.json instead of sampled: one
per candidate and seed. Note: everything that can be refused is refused before it is created, and confirm.json is
written last; while that file is missing, running the verb again resumes.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ferhpo.config import Composed
from ferhpo.confirmation.conclude import conclude
from ferhpo.confirmation.plan import SEEDS, TOP, plan_confirmation
from ferhpo.confirmation.result import RESULT, Confirmation
from ferhpo.errors import ConfigError, SweepError
from ferhpo.states import TrialState
from ferhpo.storage.lock import FolderLock
from ferhpo.storage.sweep import KIND, META, Sweep, free_name, load_sweep, tracking_settings
from ferhpo.tracking import hide_all, num_unshipped
from ferhpo.tuning.preflight import resumed
from ferhpo.tuning.session import Listener
from ferhpo.tuning.sweep import run_listed


def confirm(
    name: str,
    overrides: Sequence[str] = (),
    *,
    top: int | None = None,
    seeds: int | None = None,
    resume: bool = False,
    new: bool = False,
    output_dir: str | Path = "mlruns",
    listener: Listener = lambda ledger: None,
) -> Confirmation:
    """Train the best complete trials of a sweep again on fresh seeds, choose by the mean, read the test images once.

    name: the sweep, or its confirmation, with which it goes on; overrides: name=... of the confirmation, compute and
        tracking, and settings of the retraining, as trainer.max_epochs=60
    top, seeds: how many trials and seeds; by default 5 and 3, or those that the confirmation was started with
    resume: refuse to start anew; new: start anew under the next free name
    Raises ConfigError, DataError, SweepError, TrackingError, StorageError before any training starts.
    """
    overrides = hide_all(overrides)
    sweep, existing = _find(name, overrides, resume, new, output_dir)
    rest = [text for text in overrides if not text.startswith("name=")]
    if existing is not None:
        return _go_on(sweep, existing, rest, top, seeds, listener)
    FolderLock(sweep.folder).release()  # refuses while a driver runs it
    num_candidates, num_seeds = TOP if top is None else top, SEEDS if seeds is None else seeds
    composed, listed, warnings = plan_confirmation(
        sweep, _name_of(sweep, overrides, new), rest, num_candidates, num_seeds
    )
    return _run(sweep, composed, listed, None, warnings, listener)


def _run(
    sweep: Sweep,
    composed: Composed,
    listed: Sequence[Mapping[str, Any]],
    existing: Sweep | None,
    warnings: Sequence[str],
    listener: Listener,
) -> Confirmation:
    result = run_listed(
        composed,
        KIND,
        listed,
        lambda *ended: conclude(sweep, *ended),
        existing=existing,
        warnings=warnings,
        listener=listener,
    )
    assert isinstance(result, Confirmation)
    return result


def _go_on(
    sweep: Sweep, existing: Sweep, overrides: Sequence[str], top: int | None, seeds: int | None, listener: Listener
) -> Confirmation:
    """Go on with a confirmation, or tell again what it found."""
    begun = existing.config["confirm"]
    asked = {"top": (top, begun["top"]), "seeds": (seeds, len(begun["seeds"]))}
    faults = [
        f"--{key} is {given}, and {existing.name} was started with {was}; leave it out, or --new starts "
        f"{free_name(existing.folder)}"
        for key, (given, was) in asked.items()
        if given not in (None, was)
    ]
    faults += [f"{t} cannot change: --top and --seeds make the trials" for t in overrides if t.startswith("num_trials")]
    if faults:
        raise ConfigError(f"confirm {sweep.name}", faults)
    warnings = []
    complete = [trial.number for trial in sweep.leaderboard() if trial.state == TrialState.COMPLETE]
    if complete[: begun["top"]] != begun["candidates"]:
        warnings.append(
            f"sweep {sweep.name} has gone on since: its best are now trials {_listed(complete[: begun['top']])}, and "
            f"{existing.name} confirms {_listed(begun['candidates'])}; --new confirms the others"
        )
    found = _result(existing)
    settings = tracking_settings(existing.config)
    if found is not None and (found["registered"] or settings.off or settings.models == "none"):
        registered = found["registered"]
        return Confirmation(
            existing,
            dict(Counter(trial.state for trial in existing.trials())),
            finished=True,
            best=None,
            registered=None if registered is None else (registered["name"], registered["version"]),
            unshipped=num_unshipped(existing.folder, settings),
            warnings=warnings,
            confirmed=sweep,
            found=found,
        )
    new = [text for text in overrides if text not in begun["overrides"]]
    record = resumed(existing.name, [*new, f"output_dir={existing.folder.parent}"], KIND)
    return _run(sweep, record.composed, record.listed, record, warnings, listener)


def _result(record: Sweep) -> dict[str, Any] | None:
    path = record.folder / RESULT
    return json.loads(path.read_text()) if path.exists() else None


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _find(
    name: str, overrides: Sequence[str], resume: bool, new: bool, output_dir: str | Path
) -> tuple[Sweep, Sweep | None]:
    """The sweep to confirm, and its confirmation where it is there and wanted."""
    record = load_sweep(name, output_dir)
    if record.meta["kind"] == KIND:
        sweep = load_sweep(record.folder.parent / record.config["confirm"]["sweep"])
        return sweep, None if new else record
    folder = record.folder.parent / _name_of(record, overrides, new=False)
    if not new and (folder / META).exists():
        existing = load_sweep(folder)
        if existing.config.get("confirm", {}).get("sweep_id") != record.id:
            raise SweepError(
                f"{folder.name} in {folder.parent} is no confirmation of this sweep {record.name}; "
                f"name=... starts one by another name, --new starts {free_name(folder)}"
            )
        return record, existing
    if resume:
        raise SweepError(f"sweep {record.name} has no confirmation {folder.name} to go on with; leave out --resume")
    return record, None


def _name_of(sweep: Sweep, overrides: Sequence[str], new: bool) -> str:
    given = [text.partition("=")[2] for text in overrides if text.startswith("name=")]
    name = given[-1] if given else f"{sweep.name}-confirm"
    folder = sweep.folder.parent / name
    return free_name(folder) if new and folder.exists() else name
