"""The verb `confirm`: retrain the best trials of a sweep on fresh seeds, select by the mean, evaluate on test once.

A confirmation is a sweep of its own, NAME-confirm, whose trials are listed in its sweep.json instead of sampled: one
per candidate and seed. Note: everything that can be refused is refused before it is created, and confirm.json is
written last; while that file is missing, running the verb again resumes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ferhpo.config import Composed
from ferhpo.confirmation.conclude import conclude
from ferhpo.confirmation.plan import SEEDS, TOP, plan_confirmation
from ferhpo.confirmation.result import Confirmation, read_result
from ferhpo.errors import ConfigError, SweepError
from ferhpo.keys import Overrides, override_texts
from ferhpo.states import TrialState
from ferhpo.storage.lock import FolderLock
from ferhpo.storage.meta import META, free_name
from ferhpo.storage.sweep import KIND, Sweep, load_sweep
from ferhpo.tracking import hide_all, num_unshipped
from ferhpo.tuning.preflight import resumed
from ferhpo.tuning.session import Listener
from ferhpo.tuning.sweep import run_listed


def confirm(
    name: str,
    overrides: Overrides = (),
    *,
    top: int | None = None,
    seeds: int | None = None,
    resume: bool = False,
    new: bool = False,
    output_dir: str | Path = "mlruns",
    listener: Listener = lambda ledger: None,
) -> Confirmation:
    """Retrain the best complete trials of a sweep on fresh seeds, select one by its mean, evaluate it on test once.

    name: a sweep, or its confirmation, which is then resumed
    overrides: name=... of the confirmation; compute, tracking and settings of the retraining, e.g.
        trainer.max_epochs=60
    top, seeds: number of trials and of seeds; by default 5 and 3, or those that the confirmation was started with
    resume: raise instead of starting a confirmation; new: start another one under the next free name
    Raises ConfigError, DataError, SweepError, TrackingError or StorageError before any training starts.
    """
    overrides = hide_all(override_texts(overrides))
    sweep, existing = _find(name, overrides, resume, new, output_dir)
    rest = [text for text in overrides if not text.startswith("name=")]
    if existing is not None:
        return _resume(sweep, existing, rest, top, seeds, listener)
    FolderLock(sweep.folder).release()  # raises while a driver runs the sweep
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
        lambda *arguments: conclude(sweep, *arguments),
        existing=existing,
        warnings=warnings,
        listener=listener,
    )
    assert isinstance(result, Confirmation)
    return result


def _resume(
    sweep: Sweep, existing: Sweep, overrides: Sequence[str], top: int | None, seeds: int | None, listener: Listener
) -> Confirmation:
    """Resume a confirmation; return its result if it is complete."""
    plan = existing.config["confirm"]
    numbers = {"top": (top, plan["top"]), "seeds": (seeds, len(plan["seeds"]))}
    faults = [
        f"--{key} is {given}; {existing.name} was started with {planned}; leave out --{key}, or start "
        f"{free_name(existing.folder)} with --new"
        for key, (given, planned) in numbers.items()
        if given not in (None, planned)
    ]
    faults += [
        f"{text} cannot be overridden in a confirmation; --top and --seeds determine its trials"
        for text in overrides
        if text.startswith("num_trials")
    ]
    if faults:
        raise ConfigError(f"confirm {sweep.name}", faults)
    warnings = []
    complete = [trial.number for trial in sweep.leaderboard() if trial.state == TrialState.COMPLETE]
    if complete[: plan["top"]] != plan["candidates"]:
        warnings.append(
            f"sweep {sweep.name} has changed since: its best are now trials {_listed(complete[: plan['top']])}, but "
            f"{existing.name} confirms trials {_listed(plan['candidates'])}; confirm the new ones with --new"
        )
    found = read_result(existing.folder)
    tracking = existing.tracking
    if found is not None and (found.registered or tracking.off or tracking.models == "none"):
        registered = found.registered
        return Confirmation(
            existing,
            dict(Counter(trial.state for trial in existing.trials())),
            finished=True,
            best=None,
            registered=None if registered is None else (registered.name, registered.version),
            unshipped=num_unshipped(existing.folder, tracking),
            warnings=warnings,
            confirmed=sweep,
            found=found,
        )
    new = [text for text in overrides if text not in plan["overrides"]]
    confirmation = resumed(existing.name, [*new, f"output_dir={existing.folder.parent}"], KIND)
    return _run(sweep, confirmation.composed, confirmation.listed, confirmation, warnings, listener)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _find(
    name: str, overrides: Sequence[str], resume: bool, new: bool, output_dir: str | Path
) -> tuple[Sweep, Sweep | None]:
    """Return the sweep to confirm, and its confirmation if there is one to resume."""
    sweep = load_sweep(name, output_dir)
    if sweep.meta["kind"] == KIND:
        confirmed = load_sweep(sweep.folder.parent / sweep.config["confirm"]["sweep"])
        return confirmed, None if new else sweep
    folder = sweep.folder.parent / _name_of(sweep, overrides, new=False)
    if not new and (folder / META).exists():
        existing = load_sweep(folder)
        if existing.config.get("confirm", {}).get("sweep_id") != sweep.id:
            raise SweepError(
                f"{folder.name} in {folder.parent} is not a confirmation of this sweep {sweep.name}; choose another "
                f"name with name=..., or start {free_name(folder)} with --new"
            )
        return sweep, existing
    if resume:
        raise SweepError(f"sweep {sweep.name} has no confirmation {folder.name} to resume; leave out --resume")
    return sweep, None


def _name_of(sweep: Sweep, overrides: Sequence[str], new: bool) -> str:
    given = [text.partition("=")[2] for text in overrides if text.startswith("name=")]
    name = given[-1] if given else f"{sweep.name}-confirm"
    folder = sweep.folder.parent / name
    return free_name(folder) if new and folder.exists() else name
