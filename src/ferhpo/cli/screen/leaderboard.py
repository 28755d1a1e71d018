"""The trials of a sweep as a table: what differs between them, best first."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ferhpo.cli.screen.console import STATE_STYLES
from ferhpo.cli.screen.grid import Cell, Grid, differing
from ferhpo.states import shown_state
from ferhpo.text import number, plural, sampled_columns, short, short_names

if TYPE_CHECKING:
    from ferhpo.storage.trial_record import TrialRecord

MOST_ROWS = 20
SAMPLED = "sampled"


class Board:
    """A table with one column for each hyperparameter that differs, or with all of them in one column if that is wider.

    headings, facts: the columns before the hyperparameters; samples: a sample for each row
    keep: whether a hyperparameter with the same value in all rows has a column too
    """

    def __init__(
        self,
        headings: Sequence[str],
        facts: Sequence[Sequence[Cell]],
        samples: Sequence[Mapping[str, Any]],
        left: Sequence[str] = (),
        more: str = "",
    ) -> None:
        columns = sampled_columns(samples)
        names = short_names([heading for heading, _ in columns], taken=headings)
        same: list[str] = []
        self.headings, self.left = list(headings), [*left, SAMPLED]
        self.facts = [list(row) for row in facts]
        self.columns: dict[str, list[str]] = {}
        for heading, paths in columns:
            cells = [" ".join(number(sample[path]) for path in paths if path in sample) for sample in samples]
            if differing(cells):
                self.columns[names[heading]] = cells
            else:
                same.append(_item(names[heading], cells[0]))
        for name in [name for name in self.headings if name == "params"]:
            place = self.headings.index(name)
            cells = [str(row[place]) for row in self.facts]
            if not differing(cells):
                self.headings.pop(place)
                for row in self.facts:
                    row.pop(place)
                same += [_item(name, cells[0])] if cells[0] else []
        self.caption = " ".join([*([f"The same in all trials: {', '.join(same)}."] if same else []), more])

    def grid(self, width: int) -> Grid:
        """Return the table for a terminal of `width` columns."""
        rows = [[*facts, *cells] for facts, cells in zip(self.facts, self._cells(), strict=True)]
        whole = Grid([*self.headings, *self.columns], rows, self.left, gap=1, caption=self.caption.strip())
        if whole.fits(width) or not self.columns:
            return whole
        items = [
            " ".join(_item(name, cell) for name, cell in zip(self.columns, cells, strict=True) if cell)
            for cells in self._cells()
        ]
        rows = [[*facts, item] for facts, item in zip(self.facts, items, strict=True)]
        return Grid([*self.headings, SAMPLED], rows, self.left, gap=1, caption=self.caption.strip())

    def _cells(self) -> list[tuple[str, ...]]:
        return list(zip(*self.columns.values(), strict=True)) if self.columns else [()] * len(self.facts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.grid(options.max_width)


def _item(name: str, cell: str) -> str:
    """Return a value with its name; the values of a repeated draw are joined, so that they stay on one line."""
    return f"{name}={cell.replace(' ', ',')}"


def sample_text(sample: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return a sample on one line; names: from `short_names`."""
    cells = {heading: " ".join(number(sample[path]) for path in paths) for heading, paths in sampled_columns([sample])}
    return " ".join(_item(names.get(heading, heading), cell) for heading, cell in cells.items())


def leaderboard(
    trials: Sequence["TrialRecord"], metric: str, rows: int = MOST_ROWS, *, is_running: bool = True, note: str = ""
) -> Board:
    """Return a table of a sweep's trials, which are given best first.

    is_running: whether a driver runs the sweep; if not, trials that have not ended are interrupted
    note: a sentence for below the table
    """
    is_folded = any(trial.folds for trial in trials)
    # val_acc without images whose pixels are also in training; shown only if it differs from val_acc.
    has_duplicates = metric == "val_acc" and any(trial.dedup_acc not in (None, trial.value) for trial in trials)
    counted = "folds" if is_folded else "epoch"
    headings = ["trial", "state", metric, *(["val_acc (dedup)"] if has_duplicates else []), counted, "params"]
    facts: list[list[Cell]] = []
    for trial in trials[:rows]:
        std = trial.std(metric)
        facts.append(
            [
                str(trial.number),
                Text(shown_state(trial.state, is_running), style=STATE_STYLES.get(trial.state, "")),
                "" if trial.value is None else f"{trial.value:.4f}" + (f" ±{std:.4f}" if std is not None else ""),
                *([] if not has_duplicates else ["" if trial.dedup_acc is None else f"{trial.dedup_acc:.4f}"]),
                _reports(trial, is_folded),
                short(trial.extra["num_parameters"]) if "num_parameters" in trial.extra else "",
            ]
        )
    more = f"{plural(len(trials) - rows, 'more trial')} (show with --rows)." if len(trials) > rows else ""
    return Board(headings, facts, [trial.sample for trial in trials[:rows]], left=["state"], more=f"{more} {note}")


def _reports(trial: "TrialRecord", is_folded: bool) -> str:
    """Format the best epoch and the number of epochs, e.g. 7/20; or the number of folds."""
    if is_folded:
        return str(len(trial.folds))
    shown = f"{trial.best_epoch}/{len(trial.epochs)}" if trial.best_epoch else ""
    return shown if trial.state.is_over or not shown else f"{shown}…"
