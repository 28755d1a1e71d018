"""Gates: what is asked of a model before an alias moves to it. All of them are tried, so that every reason is known.

A gate that cannot be decided, e.g. since no test image is there, does not pass.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ferhpo.errors import ConfigError
from ferhpo.keys import nearest
from ferhpo.scoring.statistics.paired import Difference


@dataclass(frozen=True)
class Gates:
    """What is asked; conf/gates/default.yaml explains each. None or False: not asked."""

    min_acc: float | None = None
    min_macro_f1: float | None = None
    min_class_recall: float | None = None
    better_than_champion: float | None = 0.0
    max_parameters: int | None = None
    max_milliseconds: float | None = None
    min_seeds: int | None = None
    no_collapse: bool = True
    same_data: bool = True
    max_calibration_error: float | None = None
    comparable_split: bool = False
    purpose: bool = False


@dataclass(frozen=True)
class Facts:
    """What is known of a candidate. None: it is not known.

    scored_on: "test" or "val"; num_images: of these; recalls: by class
    champion: the label of the version that the alias names; None if it names none
    against_champion: the candidate's right answers beside the champion's, on the same images
    data_digest: of the candidate's data set, as it is now; is_data_changed: whether it was trained on another one
    champion_digest: of the data set that the champion was trained on
    collapsed_to: the class that it nearly always predicts, with its share; ""; most_answered: the most frequent one
    """

    scored_on: str
    num_images: int
    acc: float
    macro_f1: float
    recalls: Mapping[str, float]
    calibration_error: float
    split_name: str
    num_parameters: int | None = None
    milliseconds: float | None = None
    num_seeds: int | None = None
    collapsed_to: str = ""
    most_answered: str = ""
    data_digest: str = ""
    is_data_changed: bool = False
    champion: str | None = None
    against_champion: Difference | None = None
    champion_digest: str = ""
    purpose: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Passed:
    """The result of one gate: its name, whether it is passed, what was found, and what is asked."""

    gate: str
    passed: bool
    found: str
    asked: str


def read_gates(values: Any, where: str) -> Gates:
    """Return the gates of a file. Raises ConfigError with every fault of it; where: the file, for messages"""
    if not isinstance(values, Mapping):
        raise ConfigError(where, [f"it is {values!r:.60}; it must be a section, e.g. min_acc: 0.6"])
    known = {each.name: each for each in fields(Gates)}
    faults = [f"{key} matches no gate; {nearest(str(key), known)}" for key in values if key not in known]
    faults += [fault for key, value in values.items() if key in known and (fault := _fault(str(key), value))]
    if faults:
        raise ConfigError(where, faults)
    return Gates(**{str(key): value for key, value in values.items()})


def _fault(key: str, value: Any) -> str:
    shown = str(value).lower() if isinstance(value, bool) else f"{value!r:.60}"
    if key in ("no_collapse", "same_data", "comparable_split", "purpose"):
        return "" if isinstance(value, bool) else f"{key} is {shown}; it must be true or false"
    if value is None:
        return ""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    low, high = {"better_than_champion": (-1.0, 1.0)}.get(key, (0.0, 1.0))
    if key in ("max_parameters", "min_seeds"):
        is_right = is_number and isinstance(value, int) and value >= 1
        return "" if is_right else f"{key} is {shown}; it must be a whole number of 1 or more, or null"
    if key == "max_milliseconds":
        return "" if is_number and value > 0 else f"{key} is {shown}; it must be a number above 0, or null"
    is_right = is_number and low <= value <= high
    return "" if is_right else f"{key} is {shown}; it must be a number from {low:g} to {high:g}, or null"


def tried(gates: Gates, facts: Facts) -> list[Passed]:
    """Return the result of every gate that is asked."""
    asked = [gate for name, gate in _GATES.items() if _asks(gates, name)]
    return [result for gate in asked for result in gate(gates, facts)]


def asks_anything(gates: Gates) -> bool:
    """Return whether a gate is asked, so that the model must be looked at."""
    return any(_asks(gates, name) for name in _GATES)


def _asks(gates: Gates, name: str) -> bool:
    return getattr(gates, name) is not None and getattr(gates, name) is not False


def _at_least(name: str, value: float, bound: float, facts: Facts) -> Iterator[Passed]:
    where = f"on {facts.num_images:,} {facts.scored_on} images"
    yield Passed(name, value >= bound, f"{value:.4f} {where}", f"at least {bound:g}")


def _class_recall(gates: Gates, facts: Facts) -> Iterator[Passed]:
    assert gates.min_class_recall is not None
    low = {name: recall for name, recall in facts.recalls.items() if recall < gates.min_class_recall}
    worst = min(facts.recalls, key=lambda name: facts.recalls[name])
    shown = low or {worst: facts.recalls[worst]}
    found = ", ".join(f"{name} {recall:.4f}" for name, recall in sorted(shown.items(), key=lambda item: item[1]))
    yield Passed("min_class_recall", not low, found, f"at least {gates.min_class_recall:g} for every class")


def _better(gates: Gates, facts: Facts) -> Iterator[Passed]:
    assert gates.better_than_champion is not None
    asked = f"lower end of the 95 % interval of the difference above {gates.better_than_champion:g}"
    if facts.champion is None:
        yield Passed("better_than_champion", True, "no other version is the champion", asked)
        return
    against = facts.against_champion
    if against is None:
        yield Passed("better_than_champion", False, f"{facts.champion} cannot be scored on the same images", asked)
        return
    found = (
        f"{against.difference:+.4f} against {facts.champion}, 95 % interval {against.low:+.4f} to {against.high:+.4f}, "
        f"on {against.n:,} {facts.scored_on} images; McNemar p = {against.p_value:.2g}"
    )
    yield Passed("better_than_champion", against.low > gates.better_than_champion, found, asked)


def _at_most(name: str, value: float | None, bound: float, unit: str = "") -> Iterator[Passed]:
    found = "not known" if value is None else f"{value:,.4g}{unit}" if isinstance(value, float) else f"{value:,}{unit}"
    yield Passed(name, value is not None and value <= bound, found, f"at most {bound:,g}{unit}")


def _seeds(gates: Gates, facts: Facts) -> Iterator[Passed]:
    assert gates.min_seeds is not None
    found = "not confirmed" if not facts.num_seeds else f"confirmed on {facts.num_seeds} fresh seeds"
    yield Passed("min_seeds", (facts.num_seeds or 0) >= gates.min_seeds, found, f"at least {gates.min_seeds}")


def _same_data(gates: Gates, facts: Facts) -> Iterator[Passed]:
    asked = "trained on the data set of the champion, which is unchanged"
    if facts.is_data_changed:
        yield Passed("same_data", False, f"the data set, digest {facts.data_digest[:12]}, has changed since", asked)
        return
    if facts.champion is None:
        yield Passed("same_data", True, "no other version is the champion", asked)
        return
    is_same = bool(facts.data_digest) and facts.data_digest == facts.champion_digest
    digests = f"{facts.data_digest[:12] or 'not known'}; {facts.champion} {facts.champion_digest[:12] or 'not known'}"
    yield Passed("same_data", is_same, f"digest {digests}", asked)


_GATES: dict[str, Callable[[Gates, Facts], Iterator[Passed]]] = {
    "min_acc": lambda gates, facts: _at_least("min_acc", facts.acc, gates.min_acc or 0.0, facts),
    "min_macro_f1": lambda gates, facts: _at_least("min_macro_f1", facts.macro_f1, gates.min_macro_f1 or 0.0, facts),
    "min_class_recall": _class_recall,
    "better_than_champion": _better,
    "max_parameters": lambda gates, facts: _at_most("max_parameters", facts.num_parameters, gates.max_parameters or 0),
    "max_milliseconds": lambda gates, facts: _at_most(
        "max_milliseconds", facts.milliseconds, gates.max_milliseconds or 0.0, " ms"
    ),
    "min_seeds": _seeds,
    "no_collapse": lambda gates, facts: iter(
        [
            Passed(
                "no_collapse",
                not facts.collapsed_to,
                facts.collapsed_to or f"most predictions: {facts.most_answered}",
                "no class has nearly all predictions",
            )
        ]
    ),
    "same_data": _same_data,
    "max_calibration_error": lambda gates, facts: _at_most(
        "max_calibration_error", facts.calibration_error, gates.max_calibration_error or 0.0
    ),
    "comparable_split": lambda gates, facts: iter(
        [
            Passed(
                "comparable_split",
                facts.scored_on == "test" and facts.split_name.partition(",")[0] == "published",
                f"{facts.scored_on} images of the {facts.split_name} split",
                "test images of the published split",
            )
        ]
    ),
    "purpose": lambda gates, facts: iter(
        [Passed("purpose", bool(facts.purpose), facts.purpose or "not said", "--purpose says what the model is for")]
    ),
}
