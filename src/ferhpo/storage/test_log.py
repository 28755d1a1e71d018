"""The readings of the test split, one JSON object a line in test_readings.jsonl of a sweep's folder.

What a reader would get wrong: the file is that of the sweep which chose. What is read on trials of a confirmation is
noted in the folder of the sweep that it confirms, so that nothing read by another door goes uncounted.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ferhpo.data.dataset import FaceData
from ferhpo.errors import StorageError, SweepError
from ferhpo.storage.sweep import META, Sweep, load_sweep

FILE = "test_readings.jsonl"
NUMBER_TAG = "ferhpo.test_readings"
Reading = dict[str, Any]


def sweep_that_chose(record: Sweep) -> Sweep:
    """The sweep itself, or the one that it confirms, as long as that stands beside it."""
    confirmed = record.config.get("confirm")
    if confirmed and (record.folder.parent / confirmed["sweep"] / META).exists():
        chooser = load_sweep(record.folder.parent / confirmed["sweep"])
        if chooser.id == confirmed["sweep_id"]:
            return chooser
    return record


def read_all(folder: Path) -> list[Reading]:
    """Every reading noted in a sweep's folder, oldest first. Raises SweepError for a line that is none."""
    path = folder / FILE
    found = []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
        try:
            found.append(json.loads(line))
        except ValueError:
            raise SweepError(f"{path}: line {number} is no reading; delete that line") from None
    return found


def new_reading(verb: str, model: str, data: FaceData, scores: Mapping[str, Any], **more: Any) -> Reading:
    """A reading of the test images of `data`, made now: by which verb, of which model, as "demo/7", with its scores."""
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


def note(folder: Path, reading: Reading) -> list[Reading]:
    """Add a reading to a sweep's folder and return all there are.

    Raises StorageError, with the file as before, if the disk refuses.
    """
    path = folder / FILE
    try:
        with path.open("ab") as file:
            size = file.tell()
            try:
                file.write(json.dumps(reading).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(path, size)
                raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror}); free some space there") from None
    return read_all(folder)


def repeated(name: str, noted: Sequence[Reading]) -> list[str]:
    """A warning where test images were read more than once for sweep `name`."""
    if len(noted) < 2:
        return []
    each = "; ".join(f"{reading['when']} {reading['verb']} {reading['model']}" for reading in noted)
    return [
        f"test has been read {len(noted)} times for this sweep, {name}: {each}. What was chosen by earlier readings "
        "makes later ones too good"
    ]


def tags(reading: Reading, number: int) -> dict[str, str]:
    """What the MLflow run of the model says of a reading that is the `number`-th, counted from 1."""
    shown = {key: value for key, value in reading.items() if key != "scores"}
    return {NUMBER_TAG: str(number), f"ferhpo.test_reading.{number}": json.dumps(shown)}


def metrics(scores: Mapping[str, Any]) -> dict[str, float]:
    """`test_acc`, `test_acc_clean`, `test_acc_ten_crop`, ... of scores whose lines are plain dictionaries."""
    found: dict[str, float] = {}
    for way, lines in scores.items():
        for line, values in (lines or {}).items():
            end = ("_clean" if line == "clean" else "") + ("_ten_crop" if way == "ten_crop" else "")
            found |= {f"test_{key}{end}": float(value) for key, value in (values or {}).items()}
    return found
