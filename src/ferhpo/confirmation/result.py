"""The result of a confirmation: what `confirm` returns, and what it writes to confirm.json."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ferhpo.confirmation.statistics import Candidate, Mean, MeanScores, MeanVariants
from ferhpo.errors import SweepError, first_line
from ferhpo.parse import parse_json
from ferhpo.storage.evaluation_log import with_variants
from ferhpo.storage.sweep import Sweep
from ferhpo.tuning.result import SweepResult

RESULT = "confirm.json"
_KEYS = {"is_distinct": "told_apart"}  # fields whose key in confirm.json has another name
_CANDIDATE_KEYS = {"clean": "dedup"}  # keys of older files, and today's field


@dataclass(frozen=True)
class MeanTestScores:
    """Mean test scores of the selected candidate's networks.

    one_view: from one view of each image; ten_crop: from ten, None for models that take features of the whole image
    """

    one_view: MeanVariants
    ten_crop: MeanVariants | None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "MeanTestScores":
        """Read the scores of confirm.json or of an entry of the test log."""
        views = {
            view: None if variants is None else MeanVariants(**{k: _scores(v) for k, v in variants.items()})  # type: ignore[arg-type]
            for view, variants in with_variants(values).items()
        }
        return cls(**views)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        return _plain(asdict(self))


@dataclass(frozen=True)
class Registered:
    """The registered model of a confirmation: name and version, and the trial, seed and value of its network."""

    name: str
    version: int
    trial: int
    seed: int
    value: float | None


@dataclass(frozen=True)
class ConfirmationFound:
    """What a confirmation found; the content of confirm.json.

    sweep, sweep_id, sweep_run: the confirmed sweep: name, id, MLflow run (empty without one)
    experiment_id: of MLflow, empty without one; confirmation: its own name
    objective, mode: the metric and its direction; level: of the confidence intervals
    seeds: the fresh seeds; changed: what differs from the sweep, e.g. "trainer.max_epochs=60 (2 in the sweep)"
    candidates: best first; is_distinct: whether the intervals of the first two do not overlap
    chosen: the sweep's number of the selected trial, None if no candidate has a value
    winner: the sweep's own best trial; luck: its luck
    test: scores of the selected candidate's networks; no_test: why there are none
    """

    sweep: str
    sweep_id: str
    sweep_run: str
    experiment_id: str
    confirmation: str
    objective: str
    mode: str
    level: float
    seeds: tuple[int, ...]
    changed: tuple[str, ...]
    split_name: str
    data: str
    data_digest: str
    candidates: tuple[Candidate, ...]
    is_distinct: bool
    chosen: int | None
    winner: int
    luck: Mean | None
    test: MeanTestScores | None = None
    no_test: str = ""
    registered: Registered | None = None

    @property
    def best(self) -> Candidate:
        """The first candidate; it is the selected one if it has a value."""
        return self.candidates[0]

    @property
    def sweep_best(self) -> Candidate:
        """The candidate that was the best trial of the sweep."""
        return next(candidate for candidate in self.candidates if candidate.trial == self.winner)

    def to_json(self) -> dict[str, Any]:
        """Return the content of confirm.json."""
        return _plain({_KEYS.get(key, key): value for key, value in asdict(self).items()})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ConfirmationFound":
        """Read the content of confirm.json, also if an earlier version wrote it."""
        found = {field.name: values[_KEYS.get(field.name, field.name)] for field in fields(cls)}
        found |= {key: tuple(found[key]) for key in ("seeds", "changed")}
        found["candidates"] = tuple(_candidate(candidate) for candidate in found["candidates"])
        found["luck"] = _mean(found["luck"])
        found["test"] = None if found["test"] is None else MeanTestScores.from_json(found["test"])
        found["registered"] = None if found["registered"] is None else Registered(**found["registered"])
        return cls(**found)


@dataclass(frozen=True, repr=False)
class Confirmation(SweepResult):
    """The result of `confirm`; see SweepResult. `best` is the trial whose network is registered.

    confirmed: the sweep whose trials were candidates
    found: the content of confirm.json; None while trials are left
    """

    confirmed: Sweep | None = None
    found: ConfirmationFound | None = None


def read_result(folder: Path) -> ConfirmationFound | None:
    """Read confirm.json of a confirmation's folder; None before it is written. Raises SweepError if it is damaged."""
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        return ConfirmationFound.from_json(parse_json(path.read_text()))
    except OSError as error:
        raise SweepError(f"{path} cannot be read ({error.strerror}); make it readable for this user") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
        raise SweepError(
            f"{path} is damaged ({reason}); restore it from a copy, or confirm again with name=..."
        ) from None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON has them: lists instead of tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _mean(values: Mapping[str, Any] | None) -> Mean | None:
    return None if values is None else Mean(**{**values, "values": tuple(values["values"])})


def _scores(values: Mapping[str, Any] | None) -> MeanScores | None:
    if values is None:
        return None
    scores: dict[str, Any] = {key: value if key == "n" else _mean(value) for key, value in values.items()}
    return MeanScores(**scores)


def _candidate(values: Mapping[str, Any]) -> Candidate:
    found = {_CANDIDATE_KEYS.get(key, key): value for key, value in values.items()}
    found |= {key: tuple(found[key]) for key in ("trials", "without")}
    found |= {key: _mean(found[key]) for key in ("score", "dedup", "luck")}
    return Candidate(**found)
