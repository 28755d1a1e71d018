"""Warnings about collapsed networks: those that predict one class for nearly all images (scoring.collapse)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ferhpo.reports.panel import Panel
from ferhpo.scoring.collapse import collapse, most_answered
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import join, plural

if TYPE_CHECKING:
    from ferhpo.evaluation.load import Subject


MOST_NAMED = 5


def collapsed(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials whose network had collapsed at its best epoch."""
    return [trial for trial in trials if collapse(trial.extra.get("most_answered"))]


def collapse_warnings(trials: Sequence[TrialRecord], best: TrialRecord | None) -> list[str]:
    """Return a warning about the collapsed trials of a sweep, the best one first; empty if there are none."""
    affected = sorted(collapsed(trials), key=lambda trial: best is None or trial.number != best.number)
    if not affected:
        return []
    shown = [
        f"trial {t.number} predicts {collapse(t.extra['most_answered'])} of the time" for t in affected[:MOST_NAMED]
    ]
    more = f", and {len(affected) - MOST_NAMED} more" if len(affected) > MOST_NAMED else ""
    with_best = ", including the best" if best is not None and affected[0].number == best.number else ""
    return [f"{plural(len(affected), 'trial')} collapsed{with_best}: {'; '.join(shown)}{more}"]


def of_sweep(sweep: Sweep) -> Panel | None:
    """Warn about a sweep's collapsed trials; None if there are none."""
    warnings = collapse_warnings(sweep.trials(), sweep.best())
    if not warnings:
        return None
    text = f"{warnings[0]}. Their accuracy is the share of that class and says nothing about the other classes."
    return Panel("Collapsed networks", text, is_warning=True)


def panel(subject: "Subject", folder: Path) -> Panel | None:
    """Warn if the subject's network collapsed; None if it did not."""
    return of_confusion(subject.predictions.confusion.tolist(), subject.data.class_names)


def of_confusion(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> Panel | None:
    """Do the same from a confusion matrix in images, rows are true classes."""
    top = most_answered(confusion, class_names)
    if not collapse(top):
        return None
    never = [name for index, name in enumerate(class_names) if not sum(row[index] for row in confusion)]
    text = (
        f"This network predicts {top['class']} for {100 * top['share']:.1f} % of the validation images; "
        f"{100 * top['true_share']:.1f} % of them are {top['class']}."
    )
    if never:
        text += f" It never predicts {join(never)}."
    text += " Its accuracy says nothing about the other classes."
    return Panel("Collapsed network", text, is_warning=True)
