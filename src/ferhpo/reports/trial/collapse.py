"""Warn about collapsed networks."""

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
    """The trials whose network had collapsed at its best epoch."""
    return [trial for trial in trials if collapse(trial.extra.get("most_answered"))]


def collapse_warnings(trials: Sequence[TrialRecord], best: TrialRecord | None) -> list[str]:
    """A sentence on the collapsed trials of a sweep, the best first; empty where there are none."""
    found = sorted(collapsed(trials), key=lambda trial: best is None or trial.number != best.number)
    if not found:
        return []
    named = [f"trial {t.number} answers {collapse(t.extra['most_answered'])} of the time" for t in found[:MOST_NAMED]]
    more = f", and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    is_best = ", the best among them" if best is not None and found[0].number == best.number else ""
    return [f"{plural(len(found), 'trial')} collapsed{is_best}: {'; '.join(named)}{more}"]


def of_sweep(record: Sweep) -> Panel | None:
    """Warn of a sweep's collapsed trials; None where there are none."""
    found = collapse_warnings(record.trials(), record.best())
    if not found:
        return None
    text = f"{found[0]}. Their accuracy is that class's share of the images and says nothing about the others."
    return Panel("Collapsed networks", text, is_warning=True)


def panel(subject: "Subject", folder: Path) -> Panel | None:
    """Warn where a trial's network collapsed; None where it did not."""
    return of_confusion(subject.answers.confusion.tolist(), subject.data.class_names)


def of_confusion(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> Panel | None:
    """The same from a confusion matrix."""
    found = most_answered(confusion, class_names)
    if not collapse(found):
        return None
    never = [name for index, name in enumerate(class_names) if not sum(row[index] for row in confusion)]
    text = (
        f"This network answers {found['class']} for {100 * found['share']:.1f} % of the validation images, of which "
        f"{100 * found['true_share']:.1f} % are {found['class']}."
    )
    if never:
        text += f" It never answers {join(never)}."
    text += " Its accuracy says nothing about the other classes."
    return Panel("Collapsed network", text, is_warning=True)
