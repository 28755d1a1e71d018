"""The checkpoints of a training.

last.ckpt        the state from which a training resumes exactly; after the last epoch, its history only
best.ckpt        the network at its best epoch
epoch_0005.ckpt  the network at an epoch of trainer.keep_epochs, in the format of best.ckpt

All contain only tensors and plain values (see models/files/torch_file.py);
torch.load(weights_only=True) reads them too.

Note: last.ckpt and best.ckpt match after a kill at any moment. A new best network is written to next_best.ckpt and
renamed after last.ckpt, which names the best epoch. The network of an epoch is written before the last.ckpt of that
epoch; a resume then writes the same network again.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ferhpo.disk import fault_of_file
from ferhpo.errors import StorageError, SweepError, first_line, is_out_of_memory
from ferhpo.models.files.torch_file import TORCH_FILE_ERRORS, read_torch
from ferhpo.parse import shape_fault
from ferhpo.scoring.preprocess import Preprocess

LAST, BEST, NEXT_BEST, DAMAGED = "last.ckpt", "best.ckpt", "next_best.ckpt", "damaged.ckpt"
FORMAT = 1
LAST_KEYS = ("history", "best_epoch", "confusion")
BEST_KEYS = ("epoch", "metrics", "network", "confusion", "class_names", "preprocess")
_KINDS: dict[str, type | tuple[type, ...]] = {
    "history": list, "best_epoch": int, "epoch": int, "metrics": dict, "class_names": (list, tuple), "preprocess": dict
}  # fmt: skip


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
        if fault := fault_of_file(path):
            raise OSError(fault)
        content = path.read_bytes()
    except FileNotFoundError:
        raise SweepError(f"{path} does not exist; it is written at the end of a trial's first epoch") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        checkpoint: dict[str, Any] = read_torch(content)
        if checkpoint["format"] != FORMAT:
            raise SweepError(f"{path} has format {checkpoint['format']}; this version of ferhpo reads format {FORMAT}")
        if fault := _fault(checkpoint, keys):
            raise ValueError(fault)
        if "preprocess" in keys:
            Preprocess.from_dict(checkpoint["preprocess"])
    except (*TORCH_FILE_ERRORS, OSError, MemoryError) as error:
        if is_out_of_memory(error):
            raise
        raise DamagedError(f"{path} is damaged ({first_line(error)})") from None
    return checkpoint


def _fault(checkpoint: dict[str, Any], keys: Sequence[str]) -> str:
    """Return what a checkpoint lacks, or has in another form than ferhpo writes it; empty if nothing."""
    if missing := [key for key in keys if key not in checkpoint]:
        return f"it has no {missing[0]}"
    for key, kind in _KINDS.items():
        if key in keys and not isinstance(checkpoint[key], kind):
            return f"its {key} is a {type(checkpoint[key]).__name__}"
    weights = checkpoint.get("network", {})
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        return "its network is not a state_dict"
    names = checkpoint.get("class_names")
    if names is not None and not all(isinstance(name, str) for name in names):
        return "its class_names are not texts"
    of_best = names if "class_names" in keys else None
    return _confusion_fault(checkpoint["confusion"], of_best) if "confusion" in keys else ""


def _confusion_fault(matrix: Any, names: Sequence[str] | None) -> str:
    """Return what is wrong with a confusion matrix: a tensor in best.ckpt, lists in last.ckpt.

    names: of the classes, for best.ckpt
    """
    if names is not None and not isinstance(matrix, Tensor):
        return f"its confusion is a {type(matrix).__name__}"
    rows = matrix.tolist() if isinstance(matrix, Tensor) else matrix
    if fault := shape_fault(rows, [[int]], "its confusion"):
        return fault
    num = len(rows if names is None else names)
    sizes = {len(rows), *map(len, rows)} - {num}
    return f"its confusion has {sizes.pop()} rows or columns, for {num} classes" if sizes else ""


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
    except TORCH_FILE_ERRORS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
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
