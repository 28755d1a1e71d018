"""last.ckpt, from which a training goes on exactly, best.ckpt, the network at its best epoch, and epoch_0005.ckpt, the
network at an epoch of trainer.keep_epochs, in the form of best.ckpt.

All hold tensors and plain values only, so torch.load(weights_only=True) reads them. A kill at any moment leaves a
matching pair: the new best waits beside the old one until last.ckpt, which names the best epoch, is in place. The
network of an epoch is there before last.ckpt knows the epoch; a resume then writes the same once more.
"""

import io
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ferhpo.data.io.files import UNPACKING_ERRORS
from ferhpo.errors import StorageError, SweepError, first_line, is_out_of_memory

LAST, BEST, NEXT_BEST, DAMAGED = "last.ckpt", "best.ckpt", "next_best.ckpt", "damaged.ckpt"
FORMAT = 1
LAST_KEYS = ("history", "best_epoch", "confusion")
BEST_KEYS = ("epoch", "metrics", "network", "confusion", "class_names", "preprocess")


class DamagedError(SweepError):
    """A checkpoint that is not what was written."""


def save_checkpoints(
    folder: Path, last: dict[str, Any], best: dict[str, Any] | None, kept: dict[str, Any] | None = None
) -> None:
    """Write last.ckpt, best.ckpt if there is a new best, and the epoch's own file if it is one to be kept.

    StorageError where the disk refuses.
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
    """Where the network of an epoch of trainer.keep_epochs stands."""
    return folder / f"epoch_{epoch:04d}.ckpt"


def kept_epochs(folder: Path) -> list[int]:
    """Return the epochs whose networks are kept in `folder`, in their order."""
    return sorted(int(path.stem.removeprefix("epoch_")) for path in folder.glob("epoch_*.ckpt"))


def load_last(folder: Path) -> dict[str, Any] | None:
    """Return last.ckpt, or None where training has not begun. DamagedError where the file is, StorageError where the
    disk does not answer."""
    with _reaching(folder / LAST):
        if not (folder / LAST).exists():
            (folder / NEXT_BEST).unlink(missing_ok=True)
            return None
        last = read(folder / LAST, LAST_KEYS)
        if (folder / NEXT_BEST).exists():
            # The kill came between two renames: last.ckpt knows whether this best belongs to it.
            if read(folder / NEXT_BEST)["epoch"] == last["best_epoch"]:
                (folder / NEXT_BEST).replace(folder / BEST)
            else:
                (folder / NEXT_BEST).unlink()
        return last


def set_aside_damaged(folder: Path) -> str:
    """Where last.ckpt or best.ckpt is damaged, as after a power cut, rename last.ckpt to damaged.ckpt, so that training
    begins anew; return why, or ""."""
    with _reaching(folder / LAST):
        try:
            if load_last(folder) is not None and (folder / BEST).exists():
                read(folder / BEST)
        except DamagedError as error:
            (folder / LAST).replace(folder / DAMAGED)
            return f"begun again: {error}"
    return ""


def read(path: Path, keys: Sequence[str] = BEST_KEYS) -> dict[str, Any]:
    """Return a checkpoint, on the CPU. SweepError where it is missing or of another format, DamagedError where it is
    damaged or lacks one of the keys; StorageError where the disk does not give it now.
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
        # torch takes flipped bits for weights: it does not look at the checksums that it wrote.
        with zipfile.ZipFile(content) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"{broken} is not what was written")
        content.seek(0)
        checkpoint: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
        if checkpoint["format"] != FORMAT:
            raise SweepError(f"{path} has format {checkpoint['format']}; this version of ferhpo reads format {FORMAT}")
        if missing := [key for key in keys if key not in checkpoint]:
            raise ValueError(f"it holds no {missing[0]}")
    except (*UNPACKING_ERRORS, KeyError, TypeError, AttributeError, IndexError, pickle.UnpicklingError) as error:
        if is_out_of_memory(error):
            raise
        raise DamagedError(f"{path} is damaged ({first_line(error)})") from None
    return checkpoint


def load_network(path: Path, network: nn.Module) -> dict[str, Any]:
    """Put the weights of best.ckpt into a network that was built as the trial's was; return the rest of the checkpoint.

    The rest: epoch, metrics, confusion (int64 [classes, classes], rows are true classes), class_names, and preprocess
    (Preprocess.from_dict makes it a Preprocess). SweepError where the file is damaged or the network another one.
    """
    checkpoint = read(path)
    load_weights(network, checkpoint.pop("network"), path)
    return checkpoint


def load_weights(network: nn.Module, weights: dict[str, Any], path: Path) -> None:
    """Put weights into a network. SweepError where they belong to another one."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise SweepError(f"{path} holds the weights of another network: {reason}") from None


@contextmanager
def _reaching(path: Path) -> Iterator[None]:
    """StorageError where the disk refuses: it ends the sweep, not the trial, which goes on at the resume."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be reached: {error.strerror or error}") from error


def _write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f"half_{path.name}")  # a kill may leave it; keeping.py knows it by its suffix
    written = io.BytesIO()  # writing to a full disk itself, torch.save raises now an OSError, now a RuntimeError
    torch.save(content, written)
    try:
        temporary.write_bytes(written.getbuffer())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
