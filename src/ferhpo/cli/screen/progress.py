"""Show a running sweep.

Printed: what it does before the first trial, the link to MLflow as soon as the run exists, a line for each trial that
ends. On a terminal there is also a live table of the running trials; without one, a line with the state each minute.
"""

import logging
import threading
import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ferhpo.cli.screen.console import STATE_STYLES, view_text
from ferhpo.cli.screen.running import RunningTable, running_trials, status_line
from ferhpo.errors import first_line
from ferhpo.states import TrialState
from ferhpo.text import STEPS, duration

if TYPE_CHECKING:
    from ferhpo.driver.ledger import Ledger
    from ferhpo.storage.trial_record import TrialRecord

LOOK_SECONDS = 0.5  # how often the store is asked whether the run exists
MANY_TRIALS = 300  # from here on,
SPARE = 20  # after the state was shown, it is not shown again for this many times the time that it took
LINE_SECONDS = 60.0  # between two lines with the state, without a terminal


class Progress(logging.Handler):
    """The listener of a sweep; within its `with` block it shows the steps that ferhpo logs (`ferhpo.text.STEPS`).

    doing: the first step, shown at once, before anything heavy is imported
    """

    def __init__(self, console: Console, doing: str = "") -> None:
        super().__init__(logging.INFO)
        self.console, self.doing = console, doing
        self.known: dict[int, str] = {}
        self.warned: list[str] = []  # warnings that are printed already
        self.last_event_seconds = 0.0
        self.step_seconds = time.monotonic()
        self.table: RunningTable | None = None
        self.status = ""
        self.ledger: Ledger | None = None
        self._began: dict[int, float] = {}
        self._next_seconds = 0.0
        self.live = None
        if console.is_terminal:
            self.live = Live(console=console, refresh_per_second=2, transient=True, get_renderable=self._display)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> "Progress":
        logger = logging.getLogger(STEPS)
        self._before = logger.level, logger.propagate
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        if self.live is not None:
            self.live.start()
        if self.doing:
            self._show_step(self.doing)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._ended.set()
        if self.ledger is not None and kind is None:
            self._show(self.ledger)
        logger = logging.getLogger(STEPS)
        logger.removeHandler(self)
        logger.setLevel(self._before[0])
        logger.propagate = self._before[1]
        if self.live is not None:
            self.live.stop()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.warned.append(record.getMessage())
            self.console.print(f"warning: {record.getMessage()}", style="yellow", soft_wrap=True)
        else:
            self._show_step(record.getMessage())

    def _show_step(self, text: str) -> None:
        self.doing, self.step_seconds = text, time.monotonic()
        if self.live is None:
            self.console.print(text, style="dim", soft_wrap=True)

    def __call__(self, ledger: "Ledger") -> None:
        """Show an event of the sweep, e.g. a report or the end of a trial.

        In a large sweep, of events in quick succession not each is shown at once: each time, all trials are looked at.
        """
        self.ledger = ledger
        if len(self.known) < MANY_TRIALS or time.monotonic() >= self._next_seconds:
            self._show(ledger)

    def _show(self, ledger: "Ledger") -> None:
        began = time.monotonic()
        trials, best = ledger.study.trials(), ledger.study.best()
        for trial in trials:
            before = self.known.get(trial.number)
            self.known[trial.number] = trial.state
            if trial.state.is_over and before in (None, TrialState.RUNNING) and (before or self.last_event_seconds):
                self._print_end(trial, ledger, best is not None and best.number == trial.number)
        self.last_event_seconds = time.monotonic()
        running = running_trials(ledger, trials, self._began)
        self.table = RunningTable(running, ledger.unit, ledger.study.objective.metric) if running else None
        self.status = status_line(ledger, trials)
        if running:
            self.doing = ""
        now = time.monotonic()
        self._next_seconds = now + (now - began) * SPARE

    def _print_end(self, trial: "TrialRecord", ledger: "Ledger", is_best: bool) -> None:
        value = "" if trial.value is None else f"{ledger.study.objective.metric} {trial.value:.4f}"
        at = f" at epoch {trial.best_epoch} of {len(trial.epochs)}" if trial.best_epoch else ""
        if trial.folds:
            at = f" on {len(trial.folds)} of {ledger.num_reports} folds"
        reason = f": {first_line(trial.reason)}" if trial.reason else ""
        shown = f" {value}{at}" if value or at else ""
        state = Text(
            f"{trial.state.lower():<10}" if shown else trial.state.lower(), style=STATE_STYLES.get(trial.state, "")
        )
        took = "" if trial.seconds is None else f" ({duration(trial.seconds)})"
        star = "  best so far" if is_best else ""
        self.console.print(
            Text.assemble(f"trial {trial.number:>4} ", state, f"{shown}{reason}{took}{star}"), soft_wrap=True
        )

    def _display(self) -> Group:
        """Return what the terminal shows below the printed lines."""
        parts: list[RunningTable | Text] = []
        if self.doing:
            parts.append(Text(self._step()))
        elif self.table is not None:
            parts.append(self.table)
        if self.status:
            parts.append(Text(self.status))
        return Group(*parts)

    def _step(self) -> str:
        seconds = time.monotonic() - self.step_seconds
        return f"{self.doing} ({duration(seconds)})" if seconds > 2 else self.doing

    def _watch(self) -> None:
        """Print the link to MLflow once the run exists and, without a terminal, the state each minute."""
        is_linked, line_seconds = False, time.monotonic()
        while not self._ended.wait(LOOK_SECONDS):
            ledger = self.ledger
            if ledger is not None and not is_linked:
                is_linked = self._print_link(ledger)
            if self.live is None and time.monotonic() - line_seconds >= LINE_SECONDS:
                line_seconds = time.monotonic()
                if text := self._step() if self.doing else self.status:
                    self.console.print(text, soft_wrap=True)

    def _print_link(self, ledger: "Ledger") -> bool:
        """Return whether nothing is left to print: the run exists, or there is no tracking."""
        from ferhpo.publish.sweep_run import view_address

        tracking = ledger.sweep.tracking
        if tracking.off:
            return True
        if ledger.tracker.run_id(None) is None:
            return False
        view = view_address(ledger.tracker, tracking)
        if view and not self._ended.is_set():
            self.console.print(Text.assemble("MLflow: ", view_text(view, tracking)), soft_wrap=True)
        return bool(view)
