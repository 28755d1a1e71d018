"""The checkpoints of a training.

last.ckpt        the state from which a training resumes exactly; after the last epoch, its history only
best.ckpt        the network at its best epoch
epoch_0005.ckpt  the network at an epoch of trainer.keep_epochs, in the format of best.ckpt

All contain only tensors and plain values, so that torch.load(weights_only=True) reads them.

Note: last.ckpt and best.ckpt match after a kill at any moment. A new best network is written to next_best.ckpt and
renamed after last.ckpt, which names the best epoch. The network of an epoch is written before the last.ckpt of that
epoch; a resume then writes the same network again.
"""

import io
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ferhpo.data.io.files import UNPACKING_ERRORS
from ferhpo.disk import has_compressed
from ferhpo.errors import StorageError, SweepError, first_line, is_out_of_memory

LAST, BEST, NEXT_BEST, DAMAGED = "last.ckpt", "best.ckpt", "next_best.ckpt", "damaged.ckpt"
FORMAT = 1
LAST_KEYS = ("history", "best_epoch", "confusion")
BEST_KEYS = ("epoch", "metrics", "network", "confusion", "class_names", "preprocess")


class DamagedError(SweepError):
    """A checkpoint whose content is not what was written."""


def save_checkpoints(
    folder: Path, last: dict[str, Any], best: dict[str, Any] | None, kept: dict[str, Any] | None = None
) -> None:
    """Write last.ckpt, best.ckpt if there is a new best network, and the file of the epoch if it is one to keep.

    Raises StorageError if the disk is full or fails.
    """
    if kept is not None:
        _write(epoch_file(folder, kept["epoch"]), kept)
    if best is not None:
        _write(folder / NEXT_BEST, best)
    _write(folder / LAST, last)
    if best is not None:
        with _reaching(folder / BEST):
            (folder / NEXT_BEST).replace(folder / BEST)


def epoch_file(folder: Path, epoch: int) -> Path:
    """Return the path of the network of an epoch of trainer.keep_epochs."""
    return folder / f"epoch_{epoch:04d}.ckpt"


def kept_epochs(folder: Path) -> list[int]:
    """Return the epochs whose networks are kept in `folder`, sorted."""
    return sorted(int(path.stem.removeprefix("epoch_")) for path in folder.glob("epoch_*.ckpt"))


def load_last(folder: Path) -> dict[str, Any] | None:
    """Return last.ckpt, or None if training has not started.

    Raises DamagedError if the file is damaged, StorageError if the disk fails.
    """
    with _reaching(folder / LAST):
        if not (folder / LAST).exists():
            (folder / NEXT_BEST).unlink(missing_ok=True)
            return None
        last = read(folder / LAST, LAST_KEYS)
        if (folder / NEXT_BEST).exists():
            # A kill came between two renames; last.ckpt tells whether this network is its best one.
            if read(folder / NEXT_BEST)["epoch"] == last["best_epoch"]:
                (folder / NEXT_BEST).replace(folder / BEST)
            else:
                (folder / NEXT_BEST).unlink()
        return last


def set_aside_damaged(folder: Path) -> str:
    """If last.ckpt or best.ckpt is damaged (e.g. by a power failure), rename last.ckpt to damaged.ckpt.

    Training then restarts from its first epoch. Return the reason, or "" if nothing is damaged.
    """
    with _reaching(folder / LAST):
        try:
            if load_last(folder) is not None and (folder / BEST).exists():
                read(folder / BEST)
        except DamagedError as error:
            (folder / LAST).replace(folder / DAMAGED)
            return f"restarted: {error}"
    return ""


def read(path: Path, keys: Sequence[str] = BEST_KEYS) -> dict[str, Any]:
    """Return a checkpoint, with its tensors on the CPU.

    Raises SweepError if it is missing or has another format, DamagedError if it is damaged or does not have all of
    `keys`, StorageError if the disk fails.
    """
    try:
        if path.is_fifo():
            raise OSError("it is a pipe")
        content = io.BytesIO(path.read_bytes())
    except FileNotFoundError:
        raise SweepError(f"{path} does not exist; it is written at the end of a trial's first epoch") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        # torch does not verify the checksums that it wrote, so flipped bits would become weights.
        with zipfile.ZipFile(content) as archive:
            if has_compressed(archive):
                raise ValueError("it is compressed, which torch does not write; it might expand to any size")
            broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"{broken} is not what was written")
        content.seek(0)
        checkpoint: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
        if checkpoint["format"] != FORMAT:
            raise SweepError(f"{path} has format {checkpoint['format']}; this version of ferhpo reads format {FORMAT}")
        if missing := [key for key in keys if key not in checkpoint]:
            raise ValueError(f"it has no {missing[0]}")
        if any(tensor.numel() * tensor.element_size() > content.getbuffer().nbytes for tensor in _tensors(checkpoint)):
            raise ValueError("it has a tensor that is larger than the file")
    except (*UNPACKING_ERRORS, KeyError, TypeError, AttributeError, IndexError, pickle.UnpicklingError) as error:
        if is_out_of_memory(error):
            raise
        raise DamagedError(f"{path} is damaged ({first_line(error)})") from None
    return checkpoint


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield every tensor in a checkpoint."""
    if isinstance(value, torch.Tensor):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _tensors(child)


def load_network(path: Path, network: nn.Module) -> dict[str, Any]:
    """Load the weights of best.ckpt into a network of the trial's configuration; return the rest of the checkpoint.

    The rest: epoch, metrics, confusion (int64 [classes, classes], rows are true classes), class_names, and preprocess
    (for Preprocess.from_dict). Raises SweepError if the file is damaged or belongs to another network.
    """
    checkpoint = read(path)
    load_weights(network, checkpoint.pop("network"), path)
    return checkpoint


def load_weights(network: nn.Module, weights: dict[str, Any], path: Path) -> None:
    """Load weights into a network. Raises SweepError if they belong to another one."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise SweepError(f"{path} has the weights of another network: {reason}") from None


@contextmanager
def _reaching(path: Path) -> Iterator[None]:
    """Turn errors of the disk into StorageError, which ends the sweep; a resume continues the trial."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be accessed: {error.strerror or error}") from error


def _write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f"half_{path.name}")  # a kill may leave it; driver/retention.py removes all *.ckpt
    data = io.BytesIO()  # on a full disk, torch.save itself raises OSError or RuntimeError, depending on the moment
    torch.save(content, data)
    try:
        temporary.write_bytes(data.getbuffer())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # the first reason counts
            temporary.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
