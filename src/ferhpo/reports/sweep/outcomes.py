"""The trials that ended without a result, and why: infeasible, diverged, failed."""

from collections import Counter
from pathlib import Path

from ferhpo.errors import first_line
from ferhpo.reports.panel import Panel, write_table
from ferhpo.states import TrialState
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import join, plural

WITHOUT_RESULT = (TrialState.FAILED, TrialState.DIVERGED, TrialState.INFEASIBLE)
MOST_NUMBERS = 8


def panel(record: Sweep, folder: Path) -> Panel | None:
    """List the reasons with their trials, the most frequent first; None where every trial has a result."""
    lost = [trial for trial in record.trials() if trial.state in WITHOUT_RESULT]
    if not lost:
        return None
    rows = [
        {"state": state.lower(), "trials": len(trials), "numbers": _numbers(trials), "reason": reason}
        for state, reason, trials in by_reason(lost)
    ]
    counts = Counter(trial.state for trial in lost)
    shares = join([f"{counts[state]} {state.lower()}" for state in WITHOUT_RESULT if counts[state]])
    text = f"{plural(len(lost), 'trial')} of {len(record.trials())} ended without a result: {shares}."
    if counts[TrialState.INFEASIBLE]:
        text += " Infeasible is a sample that makes no network, or one that needs more memory than there is."
    if counts[TrialState.DIVERGED]:
        text += " Diverged is a loss that was no longer finite; a lower learning rate is the usual cure."
    return Panel("Trials without a result", text, tables=(write_table(folder / "outcomes.csv", rows),))


def by_reason(trials: list[TrialRecord]) -> list[tuple[str, str, list[TrialRecord]]]:
    """State, reason (its first line) and trials of those that ended without a result; the most frequent first."""
    grouped: dict[tuple[str, str], list[TrialRecord]] = {}
    for trial in trials:
        if trial.state in WITHOUT_RESULT:
            grouped.setdefault((trial.state, first_line(trial.reason)), []).append(trial)
    return [(*key, found) for key, found in sorted(grouped.items(), key=lambda item: -len(item[1]))]


def told(trials: list[TrialRecord]) -> list[str]:
    """A sentence for each reason why trials ended without a result, with their numbers."""
    return [
        f"{plural(len(found), 'trial')} {state.lower()} ({_numbers(found)}): {reason}"
        for state, reason, found in by_reason(trials)
    ]


def _numbers(trials: list[TrialRecord]) -> str:
    more = f" and {len(trials) - MOST_NUMBERS} more" if len(trials) > MOST_NUMBERS else ""
    return ", ".join(str(trial.number) for trial in trials[:MOST_NUMBERS]) + more
