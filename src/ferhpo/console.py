"""What a person sees in the terminal: tables, and the progress of a sweep. Colour only on a terminal."""

import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ferhpo.errors import first_line

if TYPE_CHECKING:
    from ferhpo.ledger import Ledger
    from ferhpo.planning import Plan, Spread
    from ferhpo.study import TrialRecord

STATE_STYLES = {
    "COMPLETE": "green",
    "PRUNED": "yellow",
    "RUNNING": "cyan",
    "INFEASIBLE": "magenta",
    "DIVERGED": "magenta",
    "FAILED": "red",
}
MOST_ROWS = 20
WIDE = 120  # columns where the output is no terminal


def make_console(stderr: bool = False) -> Console:
    """A console on standard output or error."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else WIDE, soft_wrap=False)


def number(value: object) -> str:
    """A value as a table shows it: four significant digits for a float."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value}"


def duration(seconds: float) -> str:
    """Seconds in the largest two units: 45 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < 86400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds // 86400:.0f} d {seconds % 86400 // 3600:.0f} h"


def size(num_bytes: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("B", "KB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if num_bytes >= 10 or unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def short(count: float) -> str:
    """A count in thousands, millions or billions."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return f"{count:.3g}"


def sampled_columns(samples: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """(heading, paths) of each sampled hyperparameter, the entries of a repeated one in one column."""
    columns: dict[str, list[str]] = {}
    for sample in samples:
        for path in sample:
            parent, _, last = path.rpartition(".")
            columns.setdefault(parent if last.isdigit() else path, [])
            if path not in columns[parent if last.isdigit() else path]:
                columns[parent if last.isdigit() else path].append(path)
    return list(columns.items())


def leaderboard(trials: Sequence["TrialRecord"], metric: str, rows: int = MOST_ROWS) -> Table:
    """A sweep's trials, best first."""
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    columns = sampled_columns([trial.sample for trial in trials])
    last_parts = [heading.rpartition(".")[2] for heading, _ in columns]
    is_folded = any(trial.folds for trial in trials)
    # The line without images that also stand in training, where it says anything else than the first.
    overlaps = metric == "val_acc" and any(trial.clean_acc not in (None, trial.value) for trial in trials)
    counted = "folds" if is_folded else "epoch"
    for heading in ("trial", "state", metric, *(["clean"] if overlaps else []), counted, "params"):
        table.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
    for (heading, _), last in zip(columns, last_parts, strict=True):
        name = last if last_parts.count(last) == 1 else heading
        table.add_column(name.replace("_", "_\n").replace(".", ".\n"), justify="right", overflow="fold")
    for trial in trials[:rows]:
        std = trial.std(metric)
        cells: list[str | Text] = [
            str(trial.number),
            Text(trial.state.lower(), style=STATE_STYLES.get(trial.state, "")),
            "" if trial.value is None else f"{trial.value:.4f}" + (f" ±{std:.4f}" if std is not None else ""),
            *([] if not overlaps else ["" if trial.clean_acc is None else f"{trial.clean_acc:.4f}"]),
            _reports(trial, is_folded),
            short(trial.extra["num_parameters"]) if "num_parameters" in trial.extra else "",
        ]
        for _, paths in columns:
            cells.append(" ".join(number(trial.sample[path]) for path in paths if path in trial.sample))
        table.add_row(*cells)
    if len(trials) > rows:
        table.caption = f"{len(trials) - rows} more"
    return table


def _reports(trial: "TrialRecord", is_folded: bool) -> str:
    """The best epoch and how many there were, as 7/20; or how many folds."""
    if is_folded:
        return str(len(trial.folds))
    return f"{trial.best_epoch}/{len(trial.epochs)}" if trial.best_epoch else ""


def key_values(rows: Mapping[str, Any] | Sequence[tuple[str, Any]]) -> Table:
    """Two columns without lines."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows.items() if isinstance(rows, Mapping) else rows:
        table.add_row(str(key), value if isinstance(value, Text) else str(value))
    return table


def plan_table(plan: "Plan") -> Table:
    """What `ferhpo plan` shows."""

    def spread(values: "Spread | None", show: Any) -> str:
        if values is None:
            return "no sample makes a network"
        return f"{show(values.low)} .. {show(values.high)}, median {show(values.median)}"

    points = f"{plan.num_points:,} points" if plan.num_points > 1 or not plan.num_continuous else ""
    continuous = (
        f"{plan.num_continuous} continuous draw{'s' * (plan.num_continuous > 1)}" if plan.num_continuous else ""
    )
    trials = "until the grid is done" if plan.num_trials is None else f"{plan.num_trials:,} trials"
    trials += f" of {plan.num_folds} folds" if plan.num_folds else ""
    largest = " ".join(f"{key}={number(value)}" for key, value in plan.largest.items())
    rows = [
        ("space", " and ".join(part for part in (points, continuous) if part)),
        ("trials", f"{trials}, {plan.num_slots} at a time"),
        ("where", plan.where),
        ("parameters", spread(plan.parameters, short)),
        ("MACs an image", f"{spread(plan.macs, short)}, mean {short(plan.mean_macs)}"),
        ("memory a trial", f"{spread(plan.memory_bytes, size)} (estimate)"),
        ("disk", f"{size(plan.disk_bytes)} at most for checkpoints, {size(plan.free_bytes)} free"),
        ("time", f"{duration(plan.seconds)} without early stopping, at {short(plan.macs_per_second)} MAC/s (estimate)"),
        ("largest sample", largest),
        ("from", f"{plan.num_samples} samples of the space"),
    ]
    return key_values(rows)


def _dropped(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was left out of each source and why."""
    return [
        f"{part['name']}: " + ", ".join(f"{number:,} {reason}" for reason, number in part["dropped"].items())
        for part in parts
        if part["dropped"]
    ]


def data_tables(description: Mapping[str, Any]) -> list[Table]:
    """What `ferhpo data` shows: facts, then counts of classes by split."""
    pixels, duplicates = description["pixels"], description["duplicates"]
    conflicts, blanks, overlap = description["conflicting_labels"], description["blank_images"], description["overlap"]
    side, channels = description["image_size"], description["channels"]
    facts = [
        ("source", description["source"]),
        ("split", description["split_name"]),
        ("images", f"{description['num_images']:,} of {side}x{side}, {'grey' if channels == 1 else 'colour'}"),
        ("pixels", f"{pixels['min']} to {pixels['max']}, mean {pixels['mean']:.1f}"),
        ("duplicates", f"{duplicates['redundant_images']:,} redundant images in {duplicates['groups']:,} groups"),
        (
            "conflicts",
            f"{conflicts['groups']:,} groups of identical images ({conflicts['images']:,} images) with two labels",
        ),
        ("blank", f"{blanks['one_value']:,} images of one value, {blanks['all_black']:,} of them black"),
        *(("dropped", text) for text in _dropped(description["parts"])),
        ("overlap", f"{overlap['val_in_train']:,} val and {overlap['test_in_train']:,} test images stand in train too"),
        ("digest", description["digest"]),
    ]
    counts = Table(box=None, header_style="bold", pad_edge=False)
    counts.add_column("class")
    splits = [name for name, classes in description["counts"].items() if any(classes.values())]
    for name in splits:
        counts.add_column(name, justify="right")
    for label in description["class_names"]:
        counts.add_row(label, *(f"{description['counts'][name][label]:,}" for name in splits))
    counts.add_row("all", *(f"{sum(description['counts'][name].values()):,}" for name in splits), style="bold")
    tables = [key_values(facts), counts]
    if len(description["parts"]) > 1:
        tables.append(_sources_table(description["parts"], splits))
    return tables


def _sources_table(parts: Sequence[Mapping[str, Any]], splits: Sequence[str]) -> Table:
    """Images of each source by split."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("source")
    for name in splits:
        table.add_column(name, justify="right")
    for part in parts:
        table.add_row(part["name"], *(f"{part['counts'][name]:,}" for name in splits))
    return table


class Progress:
    """Shows a running sweep: a live line on a terminal, else a line for each trial that ends."""

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
        """Take note of an event in the sweep."""
        trials = ledger.study.trials()
        for trial in trials:
            before = self.known.get(trial.number)
            self.known[trial.number] = trial.state
            if trial.state != "RUNNING" and before in (None, "RUNNING") and (before or self.last_print_seconds):
                self._print_end(trial, ledger)
        self.last_print_seconds = time.monotonic()
        if self.live is not None:
            self.live.update(self._status(ledger, trials))

    def _print_end(self, trial: "TrialRecord", ledger: "Ledger") -> None:
        value = "" if trial.value is None else f"{ledger.study.objective.metric} {trial.value:.4f}"
        at = f" at epoch {trial.best_epoch} of {len(trial.epochs)}" if trial.best_epoch else ""
        if trial.folds:
            at = f" over {len(trial.folds)} of {ledger.num_reports} folds"
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
        num_ended = sum(count for state, count in counts.items() if state != "RUNNING")
        running = ", ".join(
            f"{number} ({ledger.unit} {min(done + 1, ledger.num_reports)} of {ledger.num_reports})"
            for number, done in sorted(ledger.running.items())
        )
        failed = counts["FAILED"] + counts["INFEASIBLE"] + counts["DIVERGED"]
        parts = [
            f"{num_ended}{of} ended",
            f"running {running}" if running else "",
            f"{counts['PRUNED']} pruned",
            f"{failed} failed" if failed else "",
            f"best {best.value:.4f} (trial {best.number})" if best is not None and best.value is not None else "",
            self._time_left(ledger, trials),
            self._tracking(ledger),
        ]
        return Text(" · ".join(part for part in parts if part))

    def _time_left(self, ledger: "Ledger", trials: Sequence["TrialRecord"]) -> str:
        num_new = sum(trial.state != "RUNNING" for trial in trials) - ledger.num_ended_before
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
        return f"tracking: {ledger.tracker.unshipped} records wait, {ledger.tracker.last_error}"
