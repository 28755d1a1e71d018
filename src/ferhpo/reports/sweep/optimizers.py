"""Optimizer comparison: the trials by option of `optim`, or by one of its settings, with best, median and spread.

Note: in a sweep that also samples other hyperparameters, trials of two optimizers differ in more than the optimizer;
best and median describe what this sweep sampled.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.style import COLORS, COLUMN_INCHES, STATE_MARKS, figure, short_number, suffix
from ferhpo.reports.sweep.axes import Axis, shortened, tick_text, value_of, varied
from ferhpo.reports.sweep.parallel import thinned
from ferhpo.reports.trial import confusion
from ferhpo.states import TrialState
from ferhpo.storage.checkpoints import kept_confusion
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord, ranked
from ferhpo.text import plural

SECTION = "optim"
MOST_GROUPS = 8
FEWEST_FOR_THIRDS = 9
MOST_FIGURES = 4
MOST_POINTS = 400

Groups = dict[str, list[TrialRecord]]


def panel(sweep: Sweep, folder: Path) -> Panel | None:
    """Draw the trials by option of `optim`, or by its settings; None if neither varies.

    With options, the confusion matrix of each one's best trial is drawn, too.
    """
    trials = [t for t in sweep.trials() if t.state.has_result and t.value is not None]
    axes_of = [axis for axis in varied(sweep, trials) if axis.path.partition(".")[0] == SECTION]
    options = [axis for axis in axes_of if axis.path == SECTION]
    compared = {axis.path: grouped(trials, axis) for axis in options or axes_of}
    compared = {path: groups for path, groups in compared.items() if len(groups) > 1}
    if not compared:
        return None
    images, rows = [], []
    for path, groups in list(compared.items())[:MOST_FIGURES]:
        images.append(_draw(sweep, path, groups, folder))
        rows += [_row(sweep, path, name, chosen) for name, chosen in groups.items()]
    if options:
        images += _confusions(sweep, next(iter(compared.values())), folder)
    table = write_table(folder / "optimizers.csv", rows)
    return Panel("Optimizer comparison", _text(sweep, compared), tuple(images), (table,))


def grouped(trials: Sequence[TrialRecord], axis: Axis) -> Groups:
    """Group the trials by category or value, or into thirds of equal size if there are many values."""
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


def _row(sweep: Sweep, path: str, name: str, chosen: list[TrialRecord]) -> dict[str, object]:
    values = [trial.value for trial in chosen if trial.value is not None]
    best = best_of(sweep, chosen)
    return {
        "hyperparameter": path,
        "value": name,
        "trials": len(chosen),
        "complete": sum(trial.state == TrialState.COMPLETE for trial in chosen),
        f"best {sweep.objective.metric}": best.value,
        "best trial": best.number,
        f"median {sweep.objective.metric}": statistics.median(values),
    }


def best_of(sweep: Sweep, trials: Sequence[TrialRecord]) -> TrialRecord:
    """Return the best of some trials, as on the leaderboard: complete ones before others."""
    return ranked(trials, sweep.objective)[0]


def _draw(sweep: Sweep, path: str, groups: Groups, folder: Path) -> Path:
    random = np.random.default_rng(0)
    num_marks = min(MOST_POINTS, sum(len(chosen) for chosen in groups.values()))
    file = folder / f"optimizers_{path}{suffix(num_marks)}"
    with figure(file, COLUMN_INCHES, 1.3 + 0.62 * len(groups)) as drawn:
        axes = drawn.add_subplot()
        for row, chosen in enumerate(groups.values()):
            for state in (TrialState.PRUNED, TrialState.COMPLETE):
                color, marker, area = STATE_MARKS[state]
                points = [value_of(t) for t in thinned(chosen, MOST_POINTS // len(groups)) if t.state == state]
                heights = row + random.uniform(-0.16, 0.16, len(points))
                axes.scatter(points, heights, s=area, c=color, marker=marker, linewidth=0, alpha=0.75)
            median = statistics.median([t.value for t in chosen if t.value is not None])
            axes.vlines(median, row - 0.3, row + 0.3, color=COLORS[5], linewidth=2.4, zorder=3)
        axes.set_yticks(range(len(groups)), [shortened(name, 18) for name in groups])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_ylabel(path)
        axes.set_xlabel(f"{sweep.objective.metric} (line: median)")
        axes.grid(axis="y", visible=False)
    return file


def _confusions(sweep: Sweep, groups: Groups, folder: Path) -> list[Path]:
    """Draw the confusion matrix, in percent, of each optimizer's best trial if its checkpoint is kept."""
    images = []
    for name, chosen in groups.items():
        best = best_of(sweep, chosen)
        kept = kept_confusion(sweep.trial_folder(best.number), len(best.folds))
        if kept is not None:
            path, matrix = folder / f"optimizers_confusion_{name}.svg", np.asarray(kept["confusion"])
            title = f"{name}, trial {best.number}: "
            images.append(confusion.draw(path, matrix, kept["class_names"], ["shares"], title))
    return images


def _text(sweep: Sweep, compared: dict[str, Groups]) -> str:
    parts = []
    for path, groups in list(compared.items())[:MOST_FIGURES]:
        best = {name: best_of(sweep, trials) for name, trials in groups.items()}
        names = {trial.number: name for name, trial in best.items()}
        order = [names[trial.number] for trial in ranked(best.values(), sweep.objective)]
        values = "; ".join(f"{name} {best[name].value:.4f} ({plural(len(groups[name]), 'trial')})" for name in order)
        parts.append(f"Best {sweep.objective.metric} by {path}: {values}.")
    markers = " Circles are complete trials, triangles pruned ones."
    return " ".join(parts) + markers + " The trials may also differ in other hyperparameters."
