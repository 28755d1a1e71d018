"""Select and sort trials of one or several sweeps, as `ferhpo runs --where ... --sort ...` does."""

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ferhpo.errors import ConfigError
from ferhpo.keys import nearest
from ferhpo.storage.frames import leaderboard_rows
from ferhpo.storage.sweep import Sweep

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt,
    "=": operator.eq,
}  # fmt: skip
_CONDITION = re.compile(r"\s*([\w.@-]+)\s*(<=|>=|==|!=|<|>|=)\s*(.+?)\s*")
_AND = re.compile(r"\s+and\s+|\s*&&\s*")
SWEEP = "sweep"


@dataclass(frozen=True)
class Table:
    """Trials as a table: a row for each, in the order of `columns`. objectives: metrics that `value` is of"""

    columns: list[str]
    rows: list[list[Any]]
    objectives: tuple[str, ...] = ()

    def dicts(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def select(
    sweeps: Sequence[Sweep],
    where: Sequence[str] = (),
    sort: str | None = None,
    columns: Sequence[str] = (),
    top: int | None = None,
) -> Table:
    """Return the trials of sweeps that meet all conditions.

    where: conditions such as "optim.lr < 0.01", "state = complete" or "value > 0.6 and num_parameters < 1e6". A trial
        without a value for a key does not meet a condition on it
    sort: a column, largest value first; with a leading "-", smallest first. By default each sweep's own order, best
        first, and one sweep after the other
    columns: to show; by default all of them. A name may be the end of a key, e.g. lr for optim.lr
    Raises ConfigError for a condition or a column that is not known.
    """
    table = _joined(sweeps)
    faults: list[str] = []
    tests = [test for text in where for part in _AND.split(text) if (test := _test(part, table, faults)) is not None]
    order = None if sort is None else _place(sort.lstrip("-"), "--sort", table, faults)
    shown = [_place(name, "--columns", table, faults) for name in columns]
    if faults:
        raise ConfigError("runs", faults)
    rows = [row for row in table.rows if all(test(row) for test in tests)]
    if order is not None and sort is not None:
        rows = _sorted(rows, order, is_rising=sort.startswith("-"))
    rows = rows if top is None else rows[:top]
    if not shown:
        return Table(table.columns, rows)
    places = [place for place in shown if place is not None]
    return Table([table.columns[place] for place in places], [[row[place] for place in places] for row in rows])


def _joined(sweeps: Sequence[Sweep]) -> Table:
    """Return the leaderboards below each other; a column that a sweep does not have is empty."""
    parts = [(sweep, *leaderboard_rows(sweep.leaderboard(), sweep.objective.metric)) for sweep in sweeps]
    names = list(dict.fromkeys(name for _, columns, _ in parts for name in columns if name != "reason"))
    columns = [*([SWEEP] if len(sweeps) > 1 else []), *names, "reason"]
    rows = []
    for sweep, own, lines in parts:
        for line in lines:
            values = {**dict(zip(own, line, strict=True)), SWEEP: sweep.name}
            values.setdefault(sweep.objective.metric, values["value"])  # another sweep has it as one of its metrics
            rows.append([values.get(name) for name in columns])
    return Table(columns, rows, tuple(dict.fromkeys(sweep.objective.metric for sweep in sweeps)))


def _place(name: str, option: str, table: Table, faults: list[str]) -> int | None:
    """Return the place of a column by its name or the end of its key; None if there is no such column."""
    if name in table.columns:
        return table.columns.index(name)
    if table.objectives == (name,):
        return table.columns.index("value")
    ends = [column for column in table.columns if column.endswith(f".{name}")]
    if len(ends) == 1:
        return table.columns.index(ends[0])
    if ends:
        faults.append(f"{option} names {name}, which could be {' or '.join(ends)}; write the whole key")
    else:
        faults.append(f"{option} names {name}, which is not a column; {nearest(name, table.columns)}")
    return None


def _test(text: str, table: Table, faults: list[str]) -> Callable[[Sequence[Any]], bool] | None:
    found = _CONDITION.fullmatch(text)
    if found is None:
        faults.append(f"--where is {text!r}; it must be KEY < VALUE (or <=, >, >=, =, !=), e.g. optim.lr < 0.01")
        return None
    name, sign, value = found.groups()
    place = _place(name, "--where", table, faults)
    if place is None:
        return None
    compare, wanted = _OPERATORS[sign], _value(value)

    def test(row: Sequence[Any]) -> bool:
        own = row[place]
        if own is None:
            return False
        if isinstance(wanted, float) and isinstance(own, int | float) and not isinstance(own, bool):
            return compare(float(own), wanted)
        return compare(_text(own), _text(value.strip("'\"")))

    return test


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _text(value: Any) -> str:
    return str(value).casefold()


def _sorted(rows: Sequence[list[Any]], place: int, is_rising: bool) -> list[list[Any]]:
    """Return the rows sorted by a column; rows without a value last."""

    def is_missing(value: Any) -> bool:
        return value is None or (isinstance(value, float) and math.isnan(value))

    known = [row for row in rows if not is_missing(row[place])]
    numbers = all(isinstance(row[place], int | float) for row in known)
    known.sort(key=lambda row: row[place] if numbers else _text(row[place]), reverse=not is_rising)
    return [*known, *(row for row in rows if is_missing(row[place]))]
