"""The test log: every evaluation on the test split, one JSON object per line in test_readings.jsonl of a sweep folder.

Note: the log belongs to the sweep whose validation scores selected the model. An evaluation of a confirmation's trial
is logged in the folder of the sweep that it confirms, so no evaluation goes uncounted.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ferhpo.data.dataset import FaceData
from ferhpo.errors import StorageError, SweepError
from ferhpo.parse import parse_json
from ferhpo.storage.meta import META
from ferhpo.storage.sweep import Sweep, load_sweep

FILE = "test_readings.jsonl"
COUNT_TAG = "ferhpo.test_readings"
VARIANTS = {"published": "all", "clean": "dedup"}  # names of score variants in older files, and today
TestEvaluation = dict[str, Any]


def selecting_sweep(sweep: Sweep) -> Sweep:
    """Return the sweep whose log counts: the sweep that a confirmation confirms, if its folder is there, or `sweep`."""
    confirmed = sweep.config.get("confirm")
    if confirmed and (sweep.folder.parent / confirmed["sweep"] / META).exists():
        selecting = load_sweep(sweep.folder.parent / confirmed["sweep"])
        if selecting.id == confirmed["sweep_id"]:
            return selecting
    return sweep


def read_all(folder: Path) -> list[TestEvaluation]:
    """Return all test evaluations in the log of a sweep folder, oldest first. Raises SweepError for a damaged line."""
    path = folder / FILE
    log = []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
        try:
            entry = parse_json(line)
            log.append({**entry, "scores": with_variants(entry["scores"])} if "scores" in entry else entry)
        except (ValueError, TypeError, AttributeError):
            raise SweepError(f"{path}: line {number} is not a test evaluation; delete that line") from None
    return log


def with_variants(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores of one_view and ten_crop with today's names of the variants, whichever version wrote them."""
    return {
        view: None if variants is None else {VARIANTS.get(name, name): each for name, each in variants.items()}
        for view, variants in scores.items()
    }


def new_entry(verb: str, model: str, data: FaceData, scores: Mapping[str, Any], **more: Any) -> TestEvaluation:
    """Return an entry for the log, with the time of now.

    model: as the user names it, e.g. "demo/7"; scores: of one_view and ten_crop, in both variants
    """
    return {
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "verb": verb,
        "model": model,
        "split": "test",
        "split_name": data.split_name,
        "data_source": data.source,
        "data_digest": data.digest,
        **more,
        "scores": scores,
    }


def append(folder: Path, entry: TestEvaluation) -> list[TestEvaluation]:
    """Append a test evaluation to the log of a sweep folder and return the whole log.

    Raises StorageError, with the file unchanged, if the disk refuses.
    """
    path = folder / FILE
    try:
        with path.open("ab") as file:
            size = file.tell()
            try:
                file.write(json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    os.truncate(path, size)
                raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror}); free some space there") from None
    return read_all(folder)


def repeat_warnings(name: str, log: Sequence[TestEvaluation]) -> list[str]:
    """Return a warning if sweep `name` was evaluated on test more than once."""
    if len(log) < 2:
        return []
    each = "; ".join(f"{entry['when']} {entry['verb']} {entry['model']}" for entry in log)
    return [
        f"sweep {name} has been evaluated on test {len(log)} times: {each}. Test scores are optimistic if earlier ones "
        "influenced what was evaluated later"
    ]


def tags(entry: TestEvaluation, number: int) -> dict[str, str]:
    """Return the tags of the model's MLflow run for a test evaluation, the `number`-th, counted from 1."""
    shown = {key: value for key, value in entry.items() if key != "scores"}
    return {COUNT_TAG: str(number), f"ferhpo.test_reading.{number}": json.dumps(shown)}


def metrics(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return scores as MLflow metrics: `test_acc`, `test_acc_dedup`, `test_acc_ten_crop`, ...

    scores: plain dictionaries, scores[view][variant][score]
    """
    return {
        f"test_{key}{metric_suffix(view, variant)}": float(value)
        for view, variants in scores.items()
        for variant, values in (variants or {}).items()
        for key, value in _flat(values or {}).items()
    }


def _flat(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return all scores of one variant in one dictionary."""
    return {**{key: value for key, value in scores.items() if key != "metrics"}, **scores.get("metrics", {})}


def metric_suffix(view: str, variant: str) -> str:
    """Return how the names of MLflow metrics end: "", "_dedup", "_ten_crop" or "_dedup_ten_crop"."""
    return ("_dedup" if variant == "dedup" else "") + ("_ten_crop" if view == "ten_crop" else "")
