"""Trials that ended without a result (infeasible, diverged, failed), and the reasons."""

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


def panel(sweep: Sweep, folder: Path) -> Panel | None:
    """List the reasons with their trials, the most frequent first; None if every trial has a result."""
    trials = sweep.trials()
    without = [trial for trial in trials if trial.state in WITHOUT_RESULT]
    if not without:
        return None
    rows = [
        {"state": state.lower(), "trials": len(group), "numbers": _numbers(group), "reason": reason}
        for state, reason, group in by_reason(without)
    ]
    counts = Counter(trial.state for trial in without)
    states = join([f"{counts[state]} {state.lower()}" for state in WITHOUT_RESULT if counts[state]])
    text = f"{plural(len(without), 'trial')} of {len(trials)} ended without a result: {states}."
    if counts[TrialState.INFEASIBLE]:
        text += " Infeasible: the sampled network cannot be built, or does not fit in memory."
    if counts[TrialState.DIVERGED]:
        text += " Diverged: the loss is not finite; a lower learning rate usually helps."
    return Panel("Trials without a result", text, tables=(write_table(folder / "outcomes.csv", rows),))


def by_reason(trials: list[TrialRecord]) -> list[tuple[str, str, list[TrialRecord]]]:
    """Return (state, first line of the reason, trials) of those without a result, the most frequent reason first."""
    groups: dict[tuple[str, str], list[TrialRecord]] = {}
    for trial in trials:
        if trial.state in WITHOUT_RESULT:
            groups.setdefault((trial.state, first_line(trial.reason)), []).append(trial)
    return [(*key, group) for key, group in sorted(groups.items(), key=lambda item: -len(item[1]))]


def sentences(trials: list[TrialRecord]) -> list[str]:
    """Return a sentence for each reason why trials ended without a result, with their numbers."""
    return [
        f"{plural(len(group), 'trial')} {state.lower()} ({_numbers(group)}): {reason}"
        for state, reason, group in by_reason(trials)
    ]


def _numbers(trials: list[TrialRecord]) -> str:
    more = f" and {len(trials) - MOST_NUMBERS} more" if len(trials) > MOST_NUMBERS else ""
    return ", ".join(str(trial.number) for trial in trials[:MOST_NUMBERS]) + more
