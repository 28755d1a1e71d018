"""Parameter importance by conditional PED-ANOVA, beside what chance alone gives.

What a reader would get wrong: importance says what told the best trials from the rest of this sweep, in this space; a
hyperparameter whose best value was always drawn shows none. A bar no longer than chance's says nothing at all.

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
from ferhpo.reports.style import COLOURS, COLUMN_INCHES, figure
from ferhpo.reports.sweep.axes import is_of, shortened, varied
from ferhpo.space import Draw, Space
from ferhpo.space.draw import choice_key
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import join, plural

FEWEST_TRIALS = 20
FEWEST_TOP = 5  # as many as Optuna's text on its evaluator asks for
TOP_QUANTILE = 0.1
NUM_SHUFFLES = 20
MOST_TRIALS = 300  # of a larger sweep so many are looked at, evenly over their numbers
MOST_BARS = 20


def panel(record: Sweep, folder: Path) -> Panel | None:
    """Draw the importances; a sentence alone for fewer than FEWEST_TRIALS trials, None where nothing varies."""
    trials = [t for t in record.trials() if t.state.has_result and t.value is not None]
    if len(trials) > MOST_TRIALS:
        trials = [trials[place] for place in np.linspace(0, len(trials) - 1, MOST_TRIALS).astype(int)]
    paths = [axis.path for axis in varied(record, trials)]
    if not paths:
        return None
    title = "Parameter importance"
    if len(trials) < FEWEST_TRIALS:
        text = (
            f"Too few trials to tell: {plural(len(trials), 'trial')} with a value, and fewer than {FEWEST_TRIALS} give "
            "importances that are mostly chance."
        )
        return Panel(title, text)
    found = importances(record.space(), trials, record.objective)
    chance = chance_importances(record.space(), trials, record.objective)
    order = sorted(paths, key=lambda path: -found.get(path, 0.0))
    rows = [
        {"hyperparameter": p, "importance": round(found.get(p, 0), 4), "chance": round(chance[p], 4)} for p in order
    ]
    table = write_table(folder / "importance.csv", rows)
    image = _draw(folder / "importance.svg", order[:MOST_BARS], found, chance)
    return Panel(title, _text(order, found, chance, trials), (image,), (table,))


def importances(space: Space, trials: Sequence[TrialRecord], objective: Objective) -> dict[str, float]:
    """The share of each sampled hyperparameter, by dotted path; all sum to 1 unless nothing matters."""
    frozen = [_frozen(space, trial, trial.value) for trial in trials]
    return _evaluate(frozen, objective)


def chance_importances(space: Space, trials: Sequence[TrialRecord], objective: Objective) -> dict[str, float]:
    """The upper end (95 of 100) of what each gets when the values are dealt to the trials at random."""
    values = [trial.value for trial in trials]
    random = np.random.default_rng(0)
    drawn: dict[str, list[float]] = {}
    for _ in range(NUM_SHUFFLES):
        order = random.permutation(len(values))
        frozen = [_frozen(space, trial, values[place]) for trial, place in zip(trials, order, strict=True)]
        for path, share in _evaluate(frozen, objective, normalise=False).items():
            drawn.setdefault(path, []).append(share)
    total = sum(_evaluate([_frozen(space, t, t.value) for t in trials], objective, normalise=False).values())
    return {path: float(np.quantile(shares, 0.95)) / total if total else 0.0 for path, shares in drawn.items()}


def _evaluate(frozen: list[FrozenTrial], objective: Objective, normalise: bool = True) -> dict[str, float]:
    study = optuna.create_study(direction="maximize" if objective.mode == "max" else "minimize")
    study.add_trials(frozen)
    quantile = max(TOP_QUANTILE, FEWEST_TOP / len(frozen))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=normalise)


def _frozen(space: Space, trial: TrialRecord, value: float | None) -> FrozenTrial:
    """A trial under our value and our paths: Optuna gives a pruned one its last value, and PED-ANOVA leaves it out."""
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


def _draw(path: Path, order: list[str], found: dict[str, float], chance: dict[str, float]) -> Path:
    with figure(path, COLUMN_INCHES, 1.0 + 0.46 * len(order)) as drawn:
        axes = drawn.add_subplot()
        rows = range(len(order))
        shares = [found.get(name, 0.0) for name in order]
        axes.barh(rows, shares, height=0.4, color=COLOURS[0], label="importance")
        limits = [chance[name] for name in order]
        axes.scatter(limits, rows, marker="|", s=260, linewidth=2.2, color=COLOURS[5], label="chance alone", zorder=3)
        axes.set_yticks([])
        for row, name in enumerate(order):  # above its bar: beside it, a long name would leave no room on a phone
            axes.text(0, row - 0.31, shortened(name, 60), fontsize=9.5, ha="left", va="bottom")
        axes.set_ylim(len(order) - 0.5, -0.75)
        axes.set_xlim(0, 1.05 * max([*shares, *limits, 0.1]))
        axes.set_xlabel("share of the importance")
        axes.grid(axis="y", visible=False)
        drawn.legend(loc="outside lower center", ncols=2, fontsize=9)
    return path


def _text(order: list[str], found: dict[str, float], chance: dict[str, float], trials: list[TrialRecord]) -> str:
    clear = [path for path in order if found.get(path, 0.0) > chance[path]]
    if clear:
        told = join([f"{path} ({found[path]:.0%})" for path in clear[:4]])
        text = f"What told the best from the rest among {plural(len(trials), 'trial')}: {told}."
    else:
        text = f"Among {plural(len(trials), 'trial')} no hyperparameter matters more than chance alone can explain."
    conditional = [path for path in order if any(path not in trial.sample for trial in trials)]
    text += " Bars that do not pass their orange mark, what values dealt at random give in 19 of 20 cases, say nothing."
    if conditional:
        text += f" {join(conditional[:6])}{' and others' * (len(conditional) > 6)} were drawn by some trials only."
    return text
