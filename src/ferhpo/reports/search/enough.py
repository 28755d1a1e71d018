"""Whether more trials would have helped: the best value that k of these trials give on average.

The expectation of the maximum of k values drawn from those of the sweep is exact, without drawing any (Dodge et al.
2019, Show Your Work, EMNLP): each value counts with the probability that it is the largest of k.

Note: the trials are taken as equally good guesses. That holds for random search; a sampler that learns gets better, so
for it the curve says what its trials, in any order, would have given.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ferhpo.reports.panel import Panel
from ferhpo.reports.style import COLORS, COLUMN_INCHES, figure
from ferhpo.reports.sweep.axes import value_of
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import completed

FEWEST_TRIALS = 8


def panel(sweep: Sweep, folder: Path) -> Panel | None:
    """Draw the expected best value by the number of trials; None for few complete trials."""
    objective = sweep.objective
    done = completed(sweep.trials())
    if len(done) < FEWEST_TRIALS:
        return None
    scores = [objective.score(value_of(trial)) for trial in done]
    mean, deviation = expected_best(scores)
    sign = objective.score(1.0)
    counts = np.arange(1, len(scores) + 1)
    path = folder / "enough.svg"
    with figure(path, COLUMN_INCHES, 3.1) as drawn:
        axes = drawn.add_subplot()
        axes.plot(counts, sign * mean, color=COLORS[0], label="expected best of k trials")
        axes.fill_between(
            counts, sign * (mean - deviation), sign * (mean + deviation), color=COLORS[0], alpha=0.18, linewidth=0,
            label="± standard deviation",
        )  # fmt: skip
        axes.axhline(sign * max(scores), color=COLORS[7], linewidth=1, linestyle=":", label="best of this sweep")
        axes.set_xlabel("number of complete trials k")
        axes.set_ylabel(objective.metric)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        drawn.legend(loc="outside lower center", ncols=2, fontsize=9)
    half = len(scores) // 2
    gain = mean[-1] - mean[half - 1]
    text = (
        f"If {half} of the {len(scores)} complete trials had been run, the best {objective.metric} would have been "
        f"{sign * mean[half - 1]:.4f} on average; with as many as there are, it is {sign * mean[-1]:.4f}. Doubling "
        f"their number was worth {abs(gain):.4f}, and doubling it again will be worth less. Trials are drawn with "
        "replacement from those of the sweep (Dodge et al. 2019)."
    )
    return Panel("Were there enough trials", text, (path,))


def expected_best(scores: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of the largest of k values drawn with replacement, for k = 1 to all."""
    values = np.sort(np.asarray(scores, np.float64))
    n = len(values)
    k = np.arange(1, n + 1)[:, None]
    below = np.arange(n + 1)[None] / n
    weights = below[:, 1:] ** k - below[:, :-1] ** k
    mean = weights @ values
    variance = np.maximum(weights @ values**2 - mean**2, 0)
    return mean, np.sqrt(variance)
