"""The verb `predict`: the probabilities of the classes for images in files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ferhpo.data.io.files import SUFFIXES
from ferhpo.disk import fault_of_file, read_file
from ferhpo.errors import ConfigError, DataError
from ferhpo.evaluation.evaluate import divided
from ferhpo.evaluation.load import TrainedModel, find_model
from ferhpo.keys import Overrides

if TYPE_CHECKING:
    import pandas as pd

MOST_BYTES = 100_000_000  # of one file
_BATCH, _BATCH_BYTES = 256, 200_000_000  # files whose content is in memory at a time


def predict(
    model: str,
    images: Sequence[str | Path],
    overrides: Overrides = (),
    *,
    output_dir: str | Path = "mlruns",
    config_dir: Path | None = None,
    warnings: list[str] | None = None,
) -> "pd.DataFrame":
    """Return the class probabilities as a pandas frame: a row for each file, its path the index, a column a class.

    model: SWEEP (its best trial), SWEEP/7, models:/NAME@ALIAS or models:/NAME/VERSION
    images: files, and folders, whose images are searched at all depths
    overrides: tracking.KEY=... of the store of models:/, security.require_signature=true; warnings: appended to
    Raises ConfigError, DataError, SweepError, TrackingError.
    """
    import pandas as pd

    of_data, stores, faults = divided(overrides, "a prediction")
    faults += [f"{text.partition('=')[0]} cannot be overridden in a prediction" for text in of_data]
    if faults:
        raise ConfigError("predict", faults)
    if not images:
        raise ConfigError("predict", ["no image was named; name files of images, or folders"])
    files = [file for image in images for file in _files(Path(image))]
    trained = find_model(model, output_dir, stores, config_dir)
    if warnings is not None:
        warnings += trained.warnings
    parts = []
    for batch in _batches(files):
        try:
            parts.append(trained.predict([_content(file) for file in batch]))
        except ValueError:
            raise DataError("predict", [fault for file in batch if (fault := _fault(trained, file))]) from None
    frame = pd.concat(parts, ignore_index=True)
    return frame.set_index(pd.Index([str(file) for file in files], name="image"))


def _files(path: Path) -> Iterator[Path]:
    """Yield a file, or the images of a folder. Raises DataError if there is none."""
    if not path.is_dir():
        yield path
        return
    found = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(str(path), [f"the folder has no images ({', '.join(SUFFIXES)})"])
    yield from found


def _batches(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield the files in their order, in lists of bounded size."""
    batch, num_bytes = list[Path](), 0
    for file in files:
        size = file.stat().st_size if file.is_file() else 0  # whoever reads it says what is wrong
        if batch and (len(batch) == _BATCH or num_bytes + size > _BATCH_BYTES):
            yield batch
            batch, num_bytes = [], 0
        batch.append(file)
        num_bytes += size
    if batch:
        yield batch


def _content(file: Path) -> bytes:
    try:
        if fault := fault_of_file(file):
            raise DataError(str(file), [f"it cannot be read ({fault}); name images or folders"])
        return read_file(file, MOST_BYTES)
    except OSError as error:
        raise DataError(str(file), [f"it cannot be read ({error.strerror or error}); name images or folders"]) from None


def _fault(trained: TrainedModel, file: Path) -> str:
    """Return why an image cannot be predicted, empty if it can be."""
    try:
        trained.predict([_content(file)])
    except ValueError as error:
        return f"{file}: {str(error).replace('image 0 ', 'it ', 1)}"
    return ""
