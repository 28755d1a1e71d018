"""Hyperparameter importance by conditional PED-ANOVA, compared with chance.

Note: importance says what distinguishes the best trials of this sweep from the rest, within this space. A
hyperparameter whose best value was sampled every time has none. A bar no longer than that of chance means nothing.

Watanabe, Bansal, Hutter, "PED-ANOVA", IJCAI 2023 (arXiv 2304.10255); its extension to conditional spaces, by Optuna's
authors, arXiv 2601.20800.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial

from ferhpo.config import Objective
from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.style import COLORS, COLUMN_INCHES, figure
from ferhpo.reports.sweep.axes import is_of, shortened, varied
from ferhpo.space import Draw, Space
from ferhpo.space.draw import choice_key
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import join, plural

FEWEST_TRIALS = 20
FEWEST_TOP = 5  # recommended by the documentation of Optuna's evaluator
TOP_QUANTILE = 0.1
NUM_SHUFFLES = 20
MOST_TRIALS = 300  # of a larger sweep, that many trials are used, evenly spaced over their numbers
MOST_BARS = 20


def panel(sweep: Sweep, folder: Path) -> Panel | None:
    """Draw the importances; only a sentence for fewer than FEWEST_TRIALS trials, None if nothing varies."""
    trials = [t for t in sweep.trials() if t.state.has_result and t.value is not None]
    if len(trials) > MOST_TRIALS:
        trials = [trials[place] for place in np.linspace(0, len(trials) - 1, MOST_TRIALS).astype(int)]
    paths = [axis.path for axis in varied(sweep, trials)]
    if not paths:
        return None
    title = "Hyperparameter importance"
    if len(trials) < FEWEST_TRIALS:
        text = (
            f"Too few trials: {plural(len(trials), 'trial')} with a value; importances from fewer than {FEWEST_TRIALS} "
            "are mostly chance."
        )
        return Panel(title, text)
    shares = importances(sweep.space(), trials, sweep.objective)
    chance = chance_importances(sweep.space(), trials, sweep.objective)
    order = sorted(paths, key=lambda path: -shares.get(path, 0.0))
    num_best = num_in_region(len(trials))
    inside = region_importances(sweep.space(), trials, sweep.objective)
    rows = [
        {
            "hyperparameter": p,
            "importance": round(shares.get(p, 0), 4),
            "chance": round(chance[p], 4),
            f"importance among the best {num_best}": round(inside.get(p, 0), 4),
        }
        for p in order
    ]
    table = write_table(folder / "importance.csv", rows)
    image = _draw(folder / "importance.svg", order[:MOST_BARS], shares, chance)
    text = f"{_text(order, shares, chance, trials)} {_region_text(order, inside, num_best)}"
    return Panel(title, text, (image,), (table,))


def importances(space: Space, trials: Sequence[TrialRecord], objective: Objective) -> dict[str, float]:
    """Return the importance of each sampled hyperparameter, by dotted path; they sum to 1, or are all 0."""
    frozen = [_frozen(space, trial, trial.value) for trial in trials]
    return _evaluate(frozen, objective)


def region_importances(space: Space, trials: Sequence[TrialRecord], objective: Objective) -> dict[str, float]:
    """Return the importances among the best trials: what distinguishes the better half of these from the other half.

    What made a trial good in the first place, e.g. a learning rate that is not far too high, no longer counts there.
    """
    region = num_in_region(len(trials)) / len(trials)
    return _evaluate([_frozen(space, t, t.value) for t in trials], objective, quantile=region / 2, region=region)


def num_in_region(num_trials: int) -> int:
    """Return how many trials are the best tenth, or the fewest whose better half can be judged."""
    return max(round(TOP_QUANTILE * num_trials), 2 * FEWEST_TOP)


def chance_importances(space: Space, trials: Sequence[TrialRecord], objective: Objective) -> dict[str, float]:
    """Return the 95th percentile of each importance when the values are permuted among the trials."""
    values = [trial.value for trial in trials]
    random = np.random.default_rng(0)
    drawn: dict[str, list[float]] = {}
    for _ in range(NUM_SHUFFLES):
        order = random.permutation(len(values))
        frozen = [_frozen(space, trial, values[place]) for trial, place in zip(trials, order, strict=True)]
        for path, share in _evaluate(frozen, objective, normalize=False).items():
            drawn.setdefault(path, []).append(share)
    total = sum(_evaluate([_frozen(space, t, t.value) for t in trials], objective, normalize=False).values())
    return {path: float(np.quantile(shares, 0.95)) / total if total else 0.0 for path, shares in drawn.items()}


def _evaluate(
    frozen: list[FrozenTrial],
    objective: Objective,
    normalize: bool = True,
    quantile: float | None = None,
    region: float = 1.0,
) -> dict[str, float]:
    study = optuna.create_study(direction="maximize" if objective.mode == "max" else "minimize")
    study.add_trials(frozen)
    quantile = max(TOP_QUANTILE, FEWEST_TOP / len(frozen)) if quantile is None else quantile
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile, region_quantile=region)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=normalize)


def _frozen(space: Space, trial: TrialRecord, value: float | None) -> FrozenTrial:
    """Return a complete Optuna trial with our value and paths.

    Optuna's own value of a pruned trial is the last one reported, and PED-ANOVA ignores pruned trials.
    """
    distributions = {path: _distribution(space, path, trial) for path in trial.sample}
    params = {path: choice_key(drawn) for path, drawn in trial.sample.items()}
    return create_trial(value=value, params=params, distributions=distributions)


def _distribution(space: Space, path: str, trial: TrialRecord) -> BaseDistribution:
    draw: Draw = next(d for d in space.draws if is_of(d, path) and space.is_active(d, trial.sample))
    if draw.choices:
        return CategoricalDistribution([choice_key(choice) for choice in draw.choices])
    assert draw.low is not None
    assert draw.high is not None
    if draw.is_int:
        return IntDistribution(int(draw.low), int(draw.high), draw.log, int(draw.step or 1))
    return FloatDistribution(draw.low, draw.high, draw.log, draw.step)


def _draw(path: Path, order: list[str], shares: dict[str, float], chance: dict[str, float]) -> Path:
    with figure(path, COLUMN_INCHES, 1.0 + 0.46 * len(order)) as drawn:
        axes = drawn.add_subplot()
        rows = range(len(order))
        widths = [shares.get(name, 0.0) for name in order]
        axes.barh(rows, widths, height=0.4, color=COLORS[0], label="importance")
        limits = [chance[name] for name in order]
        axes.scatter(limits, rows, marker="|", s=260, linewidth=2.2, color=COLORS[5], label="chance", zorder=3)
        axes.set_yticks([])
        for row, name in enumerate(order):  # above its bar: at its side, a long name would leave no space on a phone
            axes.text(0, row - 0.31, shortened(name, 60), fontsize=9.5, ha="left", va="bottom")
        axes.set_ylim(len(order) - 0.5, -0.75)
        axes.set_xlim(0, 1.05 * max([*widths, *limits, 0.1]))
        axes.set_xlabel("importance")
        axes.grid(axis="y", visible=False)
        drawn.legend(loc="outside lower center", ncols=2, fontsize=9)
    return path


def _region_text(order: list[str], inside: dict[str, float], num_best: int) -> str:
    """Return what still matters among the best trials."""
    best = sorted(order, key=lambda path: -inside.get(path, 0.0))[:3]
    named = [f"{path} ({inside[path]:.0%})" for path in best if inside.get(path, 0.0) > 0]
    if not named:
        return f"Among the best {num_best} trials, no hyperparameter separates the better half from the other."
    return f"Among the best {num_best} trials alone, what separates the better half is mostly {join(named)}."


def _text(order: list[str], shares: dict[str, float], chance: dict[str, float], trials: list[TrialRecord]) -> str:
    clear = [path for path in order if shares.get(path, 0.0) > chance[path]]
    if clear:
        names = join([f"{path} ({shares[path]:.0%})" for path in clear[:4]])
        text = f"Most important among {plural(len(trials), 'trial')}: {names}."
    else:
        text = f"Among {plural(len(trials), 'trial')}, no hyperparameter is more important than expected by chance."
    conditional = [path for path in order if any(path not in trial.sample for trial in trials)]
    text += " The orange marks are what permuted values reach in 19 of 20 cases; bars below them mean nothing."
    if conditional:
        text += f" {join(conditional[:6])}{' and others' * (len(conditional) > 6)} were sampled by some trials only."
    return text
