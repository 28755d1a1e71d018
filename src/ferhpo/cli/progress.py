"""Show a running sweep: one line per trial that ends, and on a terminal also a live status line."""

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ferhpo.errors import first_line
from ferhpo.states import TrialState
from ferhpo.text import duration, plural

if TYPE_CHECKING:
    from ferhpo.driver.ledger import Ledger
    from ferhpo.storage.trial_record import TrialRecord


STATE_STYLES = {
    TrialState.COMPLETE: "green",
    TrialState.PRUNED: "yellow",
    TrialState.RUNNING: "cyan",
    TrialState.INFEASIBLE: "magenta",
    TrialState.DIVERGED: "magenta",
    TrialState.FAILED: "red",
}


class Progress:
    """Print a line for each trial that ends, and keep a status line up to date if the console is a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self.ended: set[int] = set()
        self.known: dict[int, str] = {}
        self.last_print_seconds = 0.0

    def __enter__(self) -> "Progress":
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.live is not None:
            self.live.stop()

    def __call__(self, ledger: "Ledger") -> None:
        """Show an event of the sweep, e.g. a report or the end of a trial."""
        trials = ledger.study.trials()
        for trial in trials:
            before = self.known.get(trial.number)
            self.known[trial.number] = trial.state
            if trial.state.is_over and before in (None, TrialState.RUNNING) and (before or self.last_print_seconds):
                self._print_end(trial, ledger)
        self.last_print_seconds = time.monotonic()
        if self.live is not None:
            self.live.update(self._status(ledger, trials))

    def _print_end(self, trial: "TrialRecord", ledger: "Ledger") -> None:
        value = "" if trial.value is None else f"{ledger.study.objective.metric} {trial.value:.4f}"
        at = f" at epoch {trial.best_epoch} of {len(trial.epochs)}" if trial.best_epoch else ""
        if trial.folds:
            at = f" on {len(trial.folds)} of {ledger.num_reports} folds"
        reason = f": {first_line(trial.reason)}" if trial.reason else ""
        state = Text(f"{trial.state.lower():<10}", style=STATE_STYLES.get(trial.state, ""))
        took = "" if trial.seconds is None else f" ({duration(trial.seconds)})"
        best = ledger.study.best()
        star = "  best so far" if best is not None and best.number == trial.number else ""
        self.console.print(Text.assemble(f"trial {trial.number:>4} ", state, f" {value}{at}{reason}{took}{star}"))

    def _status(self, ledger: "Ledger", trials: Sequence["TrialRecord"]) -> Text:
        counts = Counter(trial.state for trial in trials)
        best = ledger.study.best()
        of = "" if ledger.num_trials is None else f"/{ledger.num_trials}"
        num_ended = sum(count for state, count in counts.items() if state != TrialState.RUNNING)
        running = ", ".join(
            f"{number} ({ledger.unit} {min(done + 1, ledger.num_reports)} of {ledger.num_reports})"
            for number, done in sorted(ledger.running.items())
        )
        failed = counts[TrialState.FAILED] + counts[TrialState.INFEASIBLE] + counts[TrialState.DIVERGED]
        parts = [
            f"{num_ended}{of} trials done",
            f"running {running}" if running else "",
            f"{counts[TrialState.PRUNED]} pruned",
            f"{failed} failed" if failed else "",
            f"best {best.value:.4f} (trial {best.number})" if best is not None and best.value is not None else "",
            self._time_left(ledger, trials),
            self._tracking(ledger),
        ]
        return Text(" · ".join(part for part in parts if part))

    def _time_left(self, ledger: "Ledger", trials: Sequence["TrialRecord"]) -> str:
        num_new = sum(trial.state.is_over for trial in trials) - ledger.num_ended_before
        if ledger.num_trials is None or num_new < 1:
            return ""
        took = [trial.seconds for trial in trials if trial.seconds]
        if not took:
            return ""
        elapsed = time.monotonic() - ledger.started_seconds
        left = (ledger.num_trials - num_new - ledger.num_ended_before) * elapsed / num_new
        return f"about {duration(min(left, statistics.fmean(took) * ledger.num_trials))} left"

    def _tracking(self, ledger: "Ledger") -> str:
        if ledger.tracker.last_error is None:
            return ""
        return f"MLflow: {plural(ledger.tracker.unshipped, 'record')} pending ({ledger.tracker.last_error})"
