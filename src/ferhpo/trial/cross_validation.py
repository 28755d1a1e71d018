"""Cross-validate one trial: train each fold separately (run.py), one after the other in one worker.

A fold that has ended writes fold.json next to its checkpoints and is not trained again; a fold that was interrupted
resumes from its last.ckpt. Note: a pruned trial ends by SystemExit, which `report` raises between two folds.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferhpo.config import Objective
from ferhpo.config.folds import EPOCH, fold_folder, num_folds
from ferhpo.data.dataset import FaceData
from ferhpo.disk import write_json
from ferhpo.errors import StorageError
from ferhpo.parse import parse_json
from ferhpo.scoring.metrics import with_present_names
from ferhpo.seeds import derive_seed
from ferhpo.states import TrialState
from ferhpo.trial.load_data import fold_data
from ferhpo.trial.run import Outcome, run_trial

if TYPE_CHECKING:
    from ferhpo.training.settings import Hardware

FOLD_RESULT = "fold.json"  # {"facts": ..., "epochs": the metrics of each epoch}
FoldReport = Callable[[int, dict[str, float], list[dict[str, float]]], None]


def cross_validate(
    config: Mapping[str, Any],
    data: FaceData,
    folder: Path,
    seed: int,
    report: FoldReport,
    on_start: Callable[[dict[str, Any]], None] = lambda facts: None,
    hardware: "Hardware | None" = None,
    on_epoch: Callable[[int], None] = lambda count: None,
) -> Outcome:
    """Train a network on each fold; resume where an earlier call was interrupted.

    data: loaded without data.fold
    folder: of the trial; each fold has its own folder inside
    report: called after each fold with (folds done, the means over these, the epochs of the last one), also for folds
        that an earlier call has trained; may raise SystemExit to stop
    on_epoch: called after each epoch of a fold with the number of epochs done in all folds
    Returns the outcome of the first fold that is not COMPLETE, with the fold named in its reason, or COMPLETE.
    """
    folds, objective = num_folds(config), Objective(**config["objective"])
    assert folds is not None
    best_rows: list[Mapping[str, float]] = []
    num_before = 0
    for fold in range(folds):
        own_folder = fold_folder(folder, fold)
        result = _read_result(own_folder)
        if result is None:
            with _naming(fold):
                count = partial(lambda before, epochs: on_epoch(before + epochs), num_before)
                result, outcome = _train_fold(config, data, fold, own_folder, seed, on_start, hardware, count)
            if outcome.state != TrialState.COMPLETE:
                return Outcome(outcome.state, f"data.fold={fold}: {outcome.reason}")
        else:
            on_start(result["facts"])
        best = objective.best_row(result["epochs"])
        if best is None:
            return Outcome(TrialState.FAILED, f"data.fold={fold}: {objective.why_no_value(result['epochs'])}")
        best_rows.append(best)
        num_before += len(result["epochs"])
        report(fold + 1, running_means(best_rows, objective.metric), result["epochs"])
    return Outcome(TrialState.COMPLETE)


def runner_of(config: Mapping[str, Any]) -> Callable[..., Outcome]:
    """Return the function that trains a trial: cross_validate if the configuration has folds, else run_trial."""
    return run_trial if num_folds(config) is None else cross_validate


def _train_fold(
    config: Mapping[str, Any],
    data: FaceData,
    fold: int,
    folder: Path,
    seed: int,
    on_start: Callable[[dict[str, Any]], None],
    hardware: "Hardware | None",
    on_epoch: Callable[[int], None],
) -> tuple[dict[str, Any], Outcome]:
    facts: dict[str, Any] = {}
    epochs: list[dict[str, float]] = []

    def start(new_facts: dict[str, Any]) -> None:
        facts.update(new_facts)
        on_start(new_facts)

    def report(epoch: int, metrics: dict[str, float]) -> None:
        epochs.append({"epoch": epoch, **metrics})
        on_epoch(len(epochs))

    outcome = run_trial(
        config,
        fold_data(data, config["data"], fold),
        folder,
        derive_seed(seed, fold, "fold"),
        report,
        start,
        hardware,
    )
    result = {"facts": facts, "epochs": epochs}
    if outcome.state == TrialState.COMPLETE:
        try:
            write_json(folder / FOLD_RESULT, result)
        except OSError as error:
            raise StorageError(f"{folder / FOLD_RESULT} cannot be written: {error.strerror or error}") from error
    return result, outcome


def _read_result(folder: Path) -> dict[str, Any] | None:
    """Return the result of an ended fold, or None if there is none.

    A file that a power loss damaged counts as none: the fold runs again from last.ckpt, which writes the same result.
    """
    try:
        result: dict[str, Any] = parse_json((folder / FOLD_RESULT).read_text())
        result["epochs"] = [with_present_names(row) for row in result["epochs"]]
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        raise StorageError(f"{folder / FOLD_RESULT} cannot be read: {error.strerror or error}") from error
    return result


@contextmanager
def _naming(fold: int) -> Iterator[None]:
    """Add the fold to an exception, as a note."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"data.fold={fold}")
        raise


def running_means(best_rows: Sequence[Mapping[str, float]], metric: str) -> dict[str, float]:
    """Return the mean of each metric over the folds done so far, and `<metric>_std`.

    best_rows: the metrics of each fold at its own best epoch
    The standard deviation is that of a sample (n - 1), so there is none after one fold.
    """
    means = {
        key: statistics.fmean(row[key] for row in best_rows)
        for key in best_rows[0]
        if key != EPOCH and all(key in row for row in best_rows)
    }
    if len(best_rows) > 1:
        means[f"{metric}_std"] = statistics.stdev(row[metric] for row in best_rows)
    return means
