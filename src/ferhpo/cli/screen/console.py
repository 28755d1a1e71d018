"""The console: its width, commands that work as they are printed, links.

Note: rich is imported in functions, because `ferhpo --help` does not need it.
"""

import itertools
import logging
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ferhpo.errors import printable
from ferhpo.states import TrialState
from ferhpo.text import LAYOUT, STEPS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ferhpo.tracking import TrackingSettings

WIDE = 120  # columns, if the output is not a terminal and COLUMNS is not set
DEFAULT_SERVER = "http://127.0.0.1:5000"  # of `ferhpo ui`
STATE_STYLES = {
    TrialState.COMPLETE: "green",
    TrialState.PRUNED: "yellow",
    TrialState.RUNNING: "cyan",
    TrialState.INFEASIBLE: "magenta",
    TrialState.DIVERGED: "magenta",
    TrialState.FAILED: "red",
}
VERBS = (
    "check", "compare", "confirm", "dashboard", "data", "doctor", "ensemble", "evaluate", "keys", "list", "new", "plan",
    "predict", "promote", "report", "rollback", "runs", "serve", "show", "sweep", "sync", "train", "ui",
)  # fmt: skip
_COMMAND = re.compile(rf"(?<![\w/.-])ferhpo ({'|'.join(VERBS)})\b")


def make_console(stderr: bool = False) -> "Console":
    """Return a console on standard output, or on standard error. It shows texts as they are: no markup, no emoji."""
    from rich.console import Console
    from rich.segment import Segment

    stream = sys.stderr if stderr else sys.stdout
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        width: int | None = int(columns)
    else:
        width = None if stream.isatty() else WIDE

    class Printable(Console):
        """A console that shows control characters escaped: names and texts come from files."""

        def _render_buffer(self, buffer: Iterable[Segment]) -> str:
            return super()._render_buffer(
                part if part.control else Segment(printable(part.text, LAYOUT), part.style) for part in buffer
            )

    console = Printable(file=stream, highlight=False, markup=False, emoji=False, width=width)
    # A word that is wider than the terminal is wrapped by the terminal, not cut off.
    console.print = partial(console.print, crop=False)  # type: ignore[method-assign]
    return console


def program() -> str:
    """Return how to type `ferhpo` in a new shell: the path by which it was started, unless it is on the PATH."""
    started = sys.argv[0]
    if Path(started).name != "ferhpo" or shutil.which("ferhpo") is not None:
        return "ferhpo"
    return shlex.quote(started)


def typed(text: str) -> str:
    """Return a message with its commands as they can be typed: `.venv/bin/ferhpo ui` without an activated environment.

    A command is `ferhpo` followed by a verb.
    """
    text, name = printable(text, LAYOUT), program()
    return text if name == "ferhpo" else _COMMAND.sub(lambda match: f"{name} {match[1]}", text)


def say(text: str, *, error: bool = False) -> None:
    """Print a message: its commands as they can be typed, and characters that are not printable escaped."""
    print(typed(text), file=sys.stderr if error else sys.stdout, flush=True)


def print_warnings(console: "Console", warnings: Iterable[str]) -> None:
    """Print warnings, a line each."""
    for warning in warnings:
        console.print(f"warning: {typed(warning)}", style="yellow", soft_wrap=True)


def link(address: str) -> "Text":
    """Return an address as a hyperlink (OSC 8) on terminals, as plain text elsewhere."""
    from rich.style import Style
    from rich.text import Text

    return Text(address, style=Style(link=printable(address)))


def view_text(view: str, settings: "TrackingSettings") -> "Text":
    """Return where to see a sweep in MLflow: at its server, at a running UI, or after the command that starts one.

    view: from `view_address`, with the placeholder {server} if the store has no server
    """
    from rich.text import Text

    from ferhpo.storage.commands import place

    server = running_ui(settings)
    address = view.replace("{server}", server or DEFAULT_SERVER)
    if server is not None or address == view:
        return link(address)
    command = typed(f"ferhpo ui{place(settings.output_dir, '--output-dir ')}")
    if settings.sqlite_path != settings.output_dir / "mlflow.db":
        command = f"mlflow server --backend-store-uri {shlex.quote(settings.shown_uri)}"
    return Text.assemble(link(address), f" (first run: {command})")


def running_ui(settings: "TrackingSettings") -> str | None:
    """Return the address of an MLflow server of this machine that serves a SQLite store; None if there is none."""
    import psutil

    if settings.sqlite_path is None:
        return None
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if settings.store_uri not in words or "server" not in words:
            continue
        options = dict(itertools.pairwise(words))
        host = options.get("--host", "127.0.0.1")
        return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{options.get('--port', '5000')}"
    return None


@contextmanager
def steps_shown() -> Iterator[None]:
    """Print on standard error what ferhpo does meanwhile (`ferhpo.text.STEPS`)."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage(), error=True)

    logger, handler = logging.getLogger(STEPS), Handler()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
