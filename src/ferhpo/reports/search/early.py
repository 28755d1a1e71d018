"""Whether early epochs tell which trials end best, and what stopping the others there would have cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.style import COLORS, COLUMN_INCHES, figure
from ferhpo.reports.sweep.axes import value_of
from ferhpo.scoring.objective import Objective
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord, completed

FEWEST_TRIALS = 6
KEPT = 1 / 3  # as of ASHA with its default reduction factor
STRONG = 0.9


@dataclass(frozen=True)
class AtEpoch:
    """An epoch: how the trials' values there rank like their final ones, and what keeping the best third would cost.

    correlation: Spearman's, of the values at this epoch with the final ones
    cost: the best final value minus that of the best trial in the best third at this epoch; 0 if the best trial is kept
    saved: share of all epochs that would not have been trained
    """

    epoch: int
    correlation: float
    cost: float
    saved: float


def panel(sweep: Sweep, folder: Path) -> Panel | None:
    """Draw the rank correlation of each epoch with the end; None for few trials, or only one epoch."""
    objective = sweep.objective
    done = [trial for trial in completed(sweep.trials()) if not trial.folds]
    found = by_epoch(done, objective)
    if len(found) < 2:
        return None
    path = folder / "early.svg"
    with figure(path, COLUMN_INCHES, 3.1) as drawn:
        axes = drawn.add_subplot()
        epochs = [each.epoch for each in found]
        axes.plot(epochs, [each.correlation for each in found], marker="o", markersize=3.5, color=COLORS[0])
        axes.axhline(STRONG, color=COLORS[7], linewidth=1, linestyle=":")
        axes.set_ylim(min(0.0, *(each.correlation for each in found)) - 0.05, 1.05)
        axes.set_xlabel("epoch")
        axes.set_ylabel("rank correlation with the end")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    rows = [
        {
            "epoch": each.epoch,
            "rank correlation": f"{each.correlation:.3f}",
            f"cost in {objective.metric}": f"{each.cost:.4f}",
            "epochs saved, %": f"{100 * each.saved:.0f}",
        }
        for each in found
    ]
    table = write_table(folder / "early.csv", rows)
    first = next((each for each in found if each.correlation >= STRONG), None)
    costly = [place for place, each in enumerate(found) if each.cost > 0]
    free = found[costly[-1] + 1 :][:1] if costly else found[:1]
    text = f"Among {len(done)} complete trials: "
    text += (
        f"from epoch {first.epoch} on, their order is nearly that of the end (rank correlation "
        f"{first.correlation:.2f})."
        if first is not None
        else f"no epoch before the last orders them as the end does (rank correlation of {STRONG} or more)."
    )
    for each in free:
        text += (
            f" Stopping all but the best third after epoch {each.epoch} would have kept the best trial and saved "
            f"{100 * each.saved:.0f} % of the epochs."
        )
    text += " Pruned trials have no end, so they do not count."
    return Panel("What early epochs tell", text, (path,), (table,))


def by_epoch(trials: Sequence[TrialRecord], objective: Objective) -> list[AtEpoch]:
    """Return what each epoch but the last tells about complete trials; empty for fewer than FEWEST_TRIALS."""
    from scipy.stats import spearmanr

    if len(trials) < FEWEST_TRIALS:
        return []
    final = np.array([objective.score(value_of(trial)) for trial in trials])
    curves = [
        [objective.score(row[objective.metric]) for row in trial.epochs if objective.metric in row] for trial in trials
    ]
    shortest = min(map(len, curves))
    total = sum(map(len, curves))
    num_kept = max(1, round(len(trials) * KEPT))
    found = []
    for epoch in range(1, shortest):
        # What a scheduler sees is the best value up to here.
        now = np.array([max(curve[:epoch]) for curve in curves])
        if np.ptp(now) == 0 or np.ptp(final) == 0:
            continue
        kept = np.argsort(-now, kind="stable")[:num_kept]
        trained = sum(len(curves[place]) if place in kept else epoch for place in range(len(trials)))
        cost = float(final.max() - final[kept].max())
        found.append(AtEpoch(epoch, float(spearmanr(now, final).statistic), cost, 1 - trained / total))
    return found
