"""The trials that run now, and the state of the sweep in one line. Both are read from the ledger at an event."""

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ferhpo.cli.screen.grid import Grid
from ferhpo.cli.screen.leaderboard import SAMPLED, sample_text
from ferhpo.states import TrialState
from ferhpo.text import duration, plural, sampled_columns, short_names

MOST_NAMED = 4  # running trials whose epochs a line names
if TYPE_CHECKING:
    from ferhpo.driver.ledger import Ledger
    from ferhpo.storage.trial_record import TrialRecord


@dataclass(frozen=True)
class RunningTrial:
    """A trial that runs: reports done, the objective at the last one and at the best one, since when it is shown."""

    number: int
    done: int
    of: int
    now: float | None
    best: float | None
    sample: str
    began_seconds: float


@dataclass(frozen=True)
class RunningTable:
    """The table of the trials that run; its seconds are counted when it is printed."""

    trials: Sequence[RunningTrial]
    unit: str
    metric: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        most = max(options.size.height - 6, 3)
        yield self.grid(self.trials[:most], options.max_width)
        if len(self.trials) > most:
            yield Text(f"and {plural(len(self.trials) - most, 'more running trial')}", style="dim")

    def grid(self, trials: Sequence[RunningTrial], width: int) -> Grid:
        """Return the table, one line a trial: a sample of two lines would make the display jump."""
        headings = ["trial", self.unit, self.metric, "best", "time"]
        rows = [
            [
                str(trial.number),
                f"{min(trial.done + 1, trial.of)}/{trial.of}",
                "" if trial.now is None else f"{trial.now:.4f}",
                "" if trial.best is None else f"{trial.best:.4f}",
                duration(time.monotonic() - trial.began_seconds),
            ]
            for trial in trials
        ]
        room = width - sum(max(map(len, column)) + 2 for column in zip(headings, *rows, strict=True))
        samples = [shortened(trial.sample, room) for trial in trials]
        if room < len(SAMPLED) or not any(samples):
            return Grid(headings, rows)
        return Grid([*headings, SAMPLED], [[*row, text] for row, text in zip(rows, samples, strict=True)], [SAMPLED])


def shortened(sample: str, width: int) -> str:
    """Return as many whole items of a sample as fit."""
    if len(sample) <= width:
        return sample
    kept = sample[: max(width - 3, 0)].rpartition(" ")[0]
    return f"{kept} ..." if kept else ""


def running_trials(
    ledger: "Ledger", trials: Sequence["TrialRecord"], began_seconds: dict[int, float]
) -> list[RunningTrial]:
    """Return the trials that run; `began_seconds` is kept by the caller and updated here."""
    now = time.monotonic()
    names = short_names([heading for heading, _ in sampled_columns([trial.sample for trial in trials])])
    metric = ledger.study.objective.metric
    rows = []
    for number, done in sorted(ledger.running.items()):
        trial = trials[number]
        spent = sum(row.get("epoch_seconds", 0.0) for row in trial.epochs)
        began_seconds.setdefault(number, now - spent)
        last = trial.reports[-1][metric] if trial.reports else None
        text = sample_text(trial.sample, names)
        rows.append(RunningTrial(number, done, ledger.num_reports, last, trial.value, text, began_seconds[number]))
    for number in [number for number in began_seconds if number not in ledger.running]:
        del began_seconds[number]
    return rows


def status_line(ledger: "Ledger", trials: Sequence["TrialRecord"]) -> str:
    """Return the state of a sweep: trials done, running, pruned, failed, the best one, rate, time left, MLflow."""
    counts = Counter(trial.state for trial in trials)
    best = ledger.study.best()
    of = "" if ledger.num_trials is None else f" of {ledger.num_trials}"
    num_ended = sum(count for state, count in counts.items() if state.is_over)
    failed = sum(count for state, count in counts.items() if state.is_failure)
    metric = ledger.study.objective.metric
    parts = [
        f"{num_ended}{of} trials done",
        f"{len(ledger.running)} running{_epochs(ledger)}",
        f"{counts[TrialState.PRUNED]} pruned",
        f"{failed} failed" if failed else "",
        f"best {metric} {best.value:.4f} (trial {best.number})" if best is not None and best.value is not None else "",
        *_rate(ledger, trials),
        _tracking(ledger),
    ]
    return " · ".join(part for part in parts if part)


def _rate(ledger: "Ledger", trials: Sequence["TrialRecord"]) -> list[str]:
    """Return the trials per minute or hour of this driver, and the time left."""
    num_new = sum(trial.state.is_over for trial in trials) - ledger.num_ended_before
    if num_new < 1:
        return []
    elapsed = max(time.monotonic() - ledger.started_seconds, 1.0)
    per_hour = 3600 * num_new / elapsed
    rate = f"{per_hour / 60:.1f} trials/min" if per_hour >= 60 else f"{per_hour:.1f} trials/h"
    took = [trial.seconds for trial in trials if trial.seconds]
    if ledger.num_trials is None or not took:
        return [rate]
    waiting = ledger.num_trials - num_new - ledger.num_ended_before - len(ledger.running)
    begun = sum(1 - done / ledger.num_reports for done in ledger.running.values()) if ledger.num_reports else 0.0
    left = (max(waiting, 0) + begun) * statistics.fmean(took) / max(len(ledger.running), 1)
    return [rate, f"about {duration(left)} left"]


def _epochs(ledger: "Ledger") -> str:
    """Return how far the running trials are, e.g. " (epochs 3 and 2 of 6)"; empty if there are many, or none."""
    done = [str(count) for _, count in sorted(ledger.running.items())]
    if not 0 < len(done) <= MOST_NAMED or not ledger.num_reports:
        return ""
    unit = ledger.unit if len(done) == 1 else f"{ledger.unit}s"
    return f" ({unit} {' and '.join(filter(None, [', '.join(done[:-1]), done[-1]]))} of {ledger.num_reports})"


def _tracking(ledger: "Ledger") -> str:
    if ledger.tracker.last_error is None:
        return ""
    return f"MLflow: {plural(ledger.tracker.unshipped, 'record')} pending ({ledger.tracker.last_error})"
