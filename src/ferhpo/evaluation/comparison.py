"""The result of `compare`: networks on the same images, and what differs between them."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ferhpo.data.dataset import FaceData
from ferhpo.scoring.scores import ClassScore
from ferhpo.scoring.statistics.paired import Difference

SIGNIFICANT = 0.05  # of adjusted p values


@dataclass(frozen=True)
class SweepFacts:
    """A whole sweep that was named: its trials, and its best value corrected for the choice among them, if known."""

    num_trials: int
    num_complete: int
    seconds: float
    corrected: dict[str, Any] | None


@dataclass(frozen=True)
class Compared:
    """A network, scored on the images that all were scored on.

    name: as it was given; label: its short name; description: in words
    acc, low, high: accuracy and its 95 % interval
    settings: the leaves of its configuration by dotted key; versions: of packages and the commit
    curve: (epoch, objective) pairs of its training; empty if unknown
    """

    name: str
    label: str
    description: str
    acc: float
    low: float
    high: float
    macro_f1: float
    loss: float
    classes: list[ClassScore]
    num_parameters: int | None
    seconds: float | None
    settings: dict[str, Any]
    versions: dict[str, str]
    objective: str
    curve: list[tuple[int, float]]
    sweep: SweepFacts | None


@dataclass(frozen=True)
class ClassDifference:
    """A class: its number of images, and how many of them only one of two networks gets right, with McNemar's test."""

    name: str
    n: int
    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True)
class Pair:
    """Two networks on the same images.

    adjusted: the p value of `found`, adjusted for the number of pairs (Holm)
    """

    first: str
    second: str
    found: Difference
    adjusted: float
    classes: list[ClassDifference]


@dataclass(frozen=True)
class Differing:
    """An image on which networks differ: its index in the data set, its class, each prediction and its probability."""

    index: int
    label: str
    predicted: list[str]
    probabilities: list[float]


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    n: number of images; left_out: images of the split that were left out, because one of the networks was trained on
        them, or because not all networks have a prediction for them
    settings, versions: what differs: key, and the value of each network (None: it has none)
    images: on which the networks differ in their prediction, the most confident differences first
    """

    split_name: str
    source: str
    data_digest: str
    n: int
    left_out: int
    models: list[Compared]
    pairs: list[Pair]
    settings: list[tuple[str, list[Any]]]
    versions: list[tuple[str, list[str | None]]]
    images: list[Differing]
    warnings: list[str] = field(default_factory=list)
    data: FaceData | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return what --json prints."""
        content = asdict(replace(self, data=None))
        del content["data"]
        return content


def verdicts(found: Comparison) -> list[str]:
    """Return a sentence for each pair: which network is better, by how much, and whether that may be chance."""
    return [_verdict(pair, len(found.pairs)) for pair in found.pairs]


def _verdict(pair: Pair, num_pairs: int) -> str:
    of = pair.found
    points, low, high = (100 * value for value in (of.difference, of.low, of.high))
    if not of.only_first and not of.only_second:
        return f"{pair.first} and {pair.second} get the same images right."
    counts = f"{of.only_first:,} images only {pair.first} gets right, {of.only_second:,} only {pair.second}"
    adjusted = f", adjusted for {num_pairs} pairs {pair.adjusted:.2g}" if num_pairs > 1 else ""
    test = f"McNemar's exact test: p = {of.p_value:.2g}{adjusted}"
    interval = f"{points:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"
    if pair.adjusted >= SIGNIFICANT:
        return f"{pair.first} and {pair.second} may be equally good ({interval}): {counts}. {test}."
    better, worse = (pair.first, pair.second) if points > 0 else (pair.second, pair.first)
    return f"{better} is better than {worse} ({pair.first} - {pair.second}: {interval}): {counts}. {test}."


def sweep_sentence(model: Compared) -> str:
    """Return what is known of the whole sweep of a network; "" if only the network was named."""
    if model.sweep is None:
        return ""
    facts = model.sweep
    text = f"{model.name}: {facts.num_complete} of {facts.num_trials} trials complete"
    if facts.corrected is None:
        return f"{text}."
    of = facts.corrected
    return (
        f"{text}; best {model.objective} corrected for the choice among them: {of['corrected']:.4f}, 95 % interval "
        f"{of['low']:.4f} to {of['high']:.4f}."
    )


def setting_text(value: Any) -> str:
    """Return the value of a setting or a version, in full: rounded, two values could look the same."""
    if isinstance(value, bool):
        return str(value).lower()
    return "not set" if value is None else str(value)
