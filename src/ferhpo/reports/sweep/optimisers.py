"""Optimiser comparison: the trials by option of `optim`, or by a setting of it, with best, median and spread.

What a reader would get wrong: in a sweep that samples other things too, two optimisers' trials differ in more than the
optimiser; best and median are of what this sweep tried.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.style import COLOURS, COLUMN_INCHES, STATE_MARKS, figure, suffix
from ferhpo.reports.sweep.axes import Axis, short_number, shortened, tick_text, value_of, varied
from ferhpo.reports.sweep.parallel import thinned
from ferhpo.reports.trial import confusion
from ferhpo.states import TrialState
from ferhpo.storage.checkpoints import kept_confusion
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import plural

SECTION = "optim"
MOST_GROUPS = 8
FEWEST_FOR_THIRDS = 9
MOST_FIGURES = 4
MOST_POINTS = 400

Groups = dict[str, list[TrialRecord]]


def panel(record: Sweep, folder: Path) -> Panel | None:
    """Draw the trials of each optimiser with the confusion matrix of its best, or the trials by value (or third) of its
    settings; None where none of it varies."""
    trials = [t for t in record.trials() if t.state.has_result and t.value is not None]
    axes_of = [axis for axis in varied(record, trials) if axis.path.partition(".")[0] == SECTION]
    options = [axis for axis in axes_of if axis.path == SECTION]
    compared = {axis.path: grouped(trials, axis) for axis in options or axes_of}
    compared = {path: groups for path, groups in compared.items() if len(groups) > 1}
    if not compared:
        return None
    images, rows = [], []
    for path, groups in list(compared.items())[:MOST_FIGURES]:
        images.append(_draw(record, path, groups, folder))
        rows += [_row(record, path, name, chosen) for name, chosen in groups.items()]
    if options:
        images += _confusions(record, next(iter(compared.values())), folder)
    table = write_table(folder / "optimisers.csv", rows)
    return Panel("Optimiser comparison", _text(record, compared), tuple(images), (table,))


def grouped(trials: Sequence[TrialRecord], axis: Axis) -> Groups:
    """The trials by category or value, or by thirds (equally many each) where there are many values."""
    having = [trial for trial in trials if axis.path in trial.sample]
    values: list[Any] = [trial.sample[axis.path] for trial in having]
    if axis.categories or len(set(values)) <= 3:
        order = list(axis.categories) or [tick_text(value) for value in sorted(set(values))]
        groups: Groups = {name: [] for name in order}
        for trial, value in zip(having, values, strict=True):
            groups[tick_text(value)].append(trial)
        return {name: chosen for name, chosen in list(groups.items())[:MOST_GROUPS] if chosen}
    if len(having) < FEWEST_FOR_THIRDS:
        return {}
    by_value = sorted(having, key=lambda trial: trial.sample[axis.path])
    thirds = [by_value[start * len(by_value) // 3 : (start + 1) * len(by_value) // 3] for start in range(3)]
    return {
        f"{short_number(third[0].sample[axis.path])} to {short_number(third[-1].sample[axis.path])}": third
        for third in thirds
    }


def _row(record: Sweep, path: str, name: str, chosen: list[TrialRecord]) -> dict[str, object]:
    values = [trial.value for trial in chosen if trial.value is not None]
    best = best_of(record, chosen)
    return {
        "hyperparameter": path,
        "value": name,
        "trials": len(chosen),
        "complete": sum(trial.state == TrialState.COMPLETE for trial in chosen),
        f"best {record.objective.metric}": best.value,
        "its trial": best.number,
        f"median {record.objective.metric}": statistics.median(values),
    }


def best_of(record: Sweep, chosen: Sequence[TrialRecord]) -> TrialRecord:
    """The best of some trials that have values, complete ones before others."""
    sign = -1 if record.objective.mode == "max" else 1
    return min(chosen, key=lambda trial: (trial.state != TrialState.COMPLETE, sign * (trial.value or 0.0)))


def _draw(record: Sweep, path: str, groups: Groups, folder: Path) -> Path:
    random = np.random.default_rng(0)
    num_marks = min(MOST_POINTS, sum(len(chosen) for chosen in groups.values()))
    file = folder / f"optimisers_{path}{suffix(num_marks)}"
    with figure(file, COLUMN_INCHES, 1.3 + 0.62 * len(groups)) as drawn:
        axes = drawn.add_subplot()
        for row, chosen in enumerate(groups.values()):
            for state in (TrialState.PRUNED, TrialState.COMPLETE):
                colour, marker, area = STATE_MARKS[state]
                points = [value_of(t) for t in thinned(chosen, MOST_POINTS // len(groups)) if t.state == state]
                heights = row + random.uniform(-0.16, 0.16, len(points))
                axes.scatter(points, heights, s=area, c=colour, marker=marker, linewidth=0, alpha=0.75)
            median = statistics.median([t.value for t in chosen if t.value is not None])
            axes.vlines(median, row - 0.3, row + 0.3, color=COLOURS[5], linewidth=2.4, zorder=3)
        axes.set_yticks(range(len(groups)), [shortened(name, 18) for name in groups])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_ylabel(path)
        axes.set_xlabel(f"{record.objective.metric} (line: median)")
        axes.grid(axis="y", visible=False)
    return file


def _confusions(record: Sweep, groups: Groups, folder: Path) -> list[Path]:
    """The confusion matrix of each optimiser's best trial, in shares, where its checkpoint is there."""
    images = []
    for name, chosen in groups.items():
        best = best_of(record, chosen)
        kept = kept_confusion(record.trial_folder(best.number), len(best.folds))
        if kept is not None:
            path, matrix = folder / f"optimisers_confusion_{name}.svg", np.asarray(kept["confusion"])
            title = f"{name}, trial {best.number}: "
            images.append(confusion.draw(path, matrix, kept["class_names"], ["shares"], title))
    return images


def _text(record: Sweep, compared: dict[str, Groups]) -> str:
    parts = []
    for path, groups in list(compared.items())[:MOST_FIGURES]:
        names = {name: best_of(record, chosen) for name, chosen in groups.items()}
        ranked = sorted(names, key=lambda name: names[name].value or 0.0, reverse=record.objective.mode == "max")
        told = "; ".join(f"{name} {names[name].value:.4f} ({plural(len(groups[name]), 'trial')})" for name in ranked)
        parts.append(f"Best {record.objective.metric} by {path}: {told}.")
    circles = " Circles are complete trials, triangles pruned ones."
    return " ".join(parts) + circles + " The trials may differ in other hyperparameters too."
