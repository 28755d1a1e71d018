"""Read files of torch.save: only tensors and plain values, in memory that the size of the file bounds.

Note: torch.load(weights_only=True) runs no code of the file, but a file of a few bytes can make it allocate any amount
of memory, read behind the end of a storage, or leave in a tensor what was in this process's memory before. The reader
here calls none of the functions that the file names: it fills each storage from the file, and builds each tensor
itself, after a comparison with its storage.
"""

import io
import math
import pickle
import zipfile
from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ferhpo.disk import has_compressed
from ferhpo.parse import PlainUnpickler, plain_keys, plain_opcodes

# What damaged files raise in `read_torch`, besides OSError.
TORCH_FILE_ERRORS = (
    zipfile.BadZipFile, pickle.UnpicklingError, EOFError, NotImplementedError, RuntimeError, ValueError, LookupError,
    TypeError, AttributeError, OverflowError,
)  # fmt: skip
MOST_PICKLE_BYTES = 10_000_000  # of everything but the numbers in tensors; a tensor takes about 200
MOST_PICKLED_VALUES = 10_000_000  # with every shared container written out
MOST_PICKLED_LEVELS = 50
# Bytes of all tensors together, as a multiple of the file, and what a small file may have in addition. Tensors may
# share their numbers (tied weights), but those of the network that gets them need not.
MOST_SHARED, MOST_SHARED_BYTES = 4, 2**28
_OLD_START = (0x1950A86A20F9469CFC6C, 1001)  # the first two pickles of a file in torch's format before 1.6
_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128,
}  # fmt: skip


def read_torch(content: bytes) -> Any:
    """Return what torch.save wrote, with its tensors on the CPU. Raises one of TORCH_FILE_ERRORS, or OSError.

    Files that are no zip, as torch wrote them before version 1.6, are read too: torchvision's VGGs are such files.
    """
    is_zip = zipfile.is_zipfile(io.BytesIO(content))
    found = _read_zip(content) if is_zip else _read_old(content)
    if _measure(found, {}, 0)[2] > _most_tensor_bytes(len(content)):
        raise ValueError(f"its tensors together are more than {MOST_SHARED} times as large as the file")
    return found


def _most_tensor_bytes(num_bytes: int) -> int:
    return MOST_SHARED * num_bytes + MOST_SHARED_BYTES


def _read_zip(content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        if has_compressed(archive):
            raise ValueError("it is compressed, which torch does not write; it might expand to any size")
        if sum(member.file_size for member in members) > len(content):
            raise ValueError("its members overlap")
        # torch does not verify the checksums that it wrote, so flipped bits would become weights.
        if (broken := archive.testzip()) is not None:
            raise ValueError(f"{broken} is not what was written")
        pickles = [member for member in members if member.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it has not exactly one data.pkl, which torch writes")
        if pickles[0].file_size > MOST_PICKLE_BYTES:
            raise ValueError(f"its data.pkl is larger than {MOST_PICKLE_BYTES / 1e6:.0f} MB")
        root = pickles[0].filename.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("it was written on a computer with another byte order")
        return _ZipReader(archive, root, len(content)).load()


def _read_old(content: bytes) -> Any:
    """Return the content of a file that is five pickles, then the numbers of each storage behind their count."""
    file = io.BytesIO(content[:MOST_PICKLE_BYTES])
    start = tuple(_OldReader(file, len(content)).load() for _ in range(2))
    system = _OldReader(file, len(content)).load()
    if start != _OLD_START or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise pickle.UnpicklingError("it is not a file of torch, or was written on a computer with another byte order")
    reader = _OldReader(file, len(content))
    found = reader.load()
    keys = _OldReader(file, len(content)).load()
    if not isinstance(keys, list) or sorted(plain_keys(keys), key=str) != sorted(reader.storages):
        raise ValueError("its list of storages is not that of its tensors")
    place = file.tell()
    for key in keys:
        values = reader.storages[key]
        count, end = int.from_bytes(content[place : place + 8], "little"), place + 8 + values.nbytes
        if count != values.numel() or end > len(content):
            raise ValueError(f"the storage {key} does not have the {values.numel()} numbers of its tensors")
        values.view(torch.uint8).numpy()[:] = np.frombuffer(content[place + 8 : end], np.uint8)
        place = end
    return found


class _Storage:
    """The numbers of one or more tensors, in one dimension."""

    def __init__(self, values: Tensor) -> None:
        self.values = values


class _TorchReader(PlainUnpickler):
    dispatch = plain_opcodes(
        "PROTO", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "MARK", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND",
        "APPENDS", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "GLOBAL", "REDUCE",
        "BINPERSID", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE",
        "STOP",
    )  # fmt: skip

    def __init__(self, file: io.BytesIO, num_bytes: int, most_copied: int) -> None:
        super().__init__(file)
        self.num_bytes = num_bytes  # of the file
        self.most_copied = most_copied  # elements of the containers that are copied into others

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "collections.OrderedDict": self.ordered,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_tensor": self.tensor,  # before torch 0.4
            "torch._utils._rebuild_tensor_v3": self.tensor_of_type,
            "torch._utils._rebuild_parameter": lambda data, requires_grad, hooks: nn.Parameter(data, requires_grad),
            "torch.storage.UntypedStorage": torch.uint8,
            "torch.device": lambda *args: torch.device(*args),
            "torch.Size": lambda values: torch.Size(self.copied(values)),
            "collections.Counter": lambda values: Counter({**self.copied(values)}),
            "_codecs.encode": self.encoded,
            "__builtin__.bytearray": lambda values=b"": bytearray(self.copied(values)),
            "__builtin__.set": lambda values: set(plain_keys(self.copied(values))),
            "__builtin__.complex": lambda real, imaginary: complex(real, imaginary),
        }
        full = f"{module}.{name}".replace("builtins.", "__builtin__.")
        if full in known:
            return known[full]
        if module == "torch" and (name in _STORAGES or isinstance(getattr(torch, name, None), torch.dtype)):
            return _STORAGES.get(name) or getattr(torch, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is neither a tensor nor a plain value")

    def tensor(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any = False,
        hooks: Any = None,
        metadata: Any = None,
    ) -> Tensor:
        values = storage.values
        if not all(type(number) is int and 0 <= number < 2**62 for number in (offset, *size, *stride)):
            raise ValueError("it has a tensor whose size is not made of numbers")
        numel, available = math.prod(size), values.numel()
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if metadata or (numel and last >= available) or offset > available:
            raise ValueError("it has a tensor that is not in its storage")
        if numel * values.itemsize > _most_tensor_bytes(self.num_bytes):
            raise ValueError("it has a tensor that is larger than the file")
        return values.as_strided(size, stride, offset).requires_grad_(bool(requires_grad))  # type: ignore[no-any-return]

    def tensor_of_type(
        self, storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, metadata: Any = None
    ) -> Tensor:
        return self.tensor(_Storage(storage.values.view(dtype)), offset, size, stride, grad, hooks, metadata)

    def ordered(self) -> "OrderedDict[Any, Any]":
        return OrderedDict()

    def encoded(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise ValueError("it has bytes in a form that Python does not write")
        return self.copied(text).encode("latin-1")  # type: ignore[no-any-return]

    def copied(self, values: Any) -> Any:
        """Return `values`, if what is copied does not become larger than the pickle itself."""
        if not isinstance(values, str | bytes | list | tuple | dict):
            raise ValueError("it makes a container from something other than values")
        self.most_copied -= len(values)
        if self.most_copied < 0:
            raise ValueError("it copies its values again and again")
        return values

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], OrderedDict) or set(state) != {"_metadata"}:
            raise ValueError("it sets attributes of something other than a state_dict")
        self.stack[-1]._metadata = state["_metadata"]  # type: ignore[attr-defined]

    dispatch[pickle.BUILD[0]] = load_build


class _ZipReader(_TorchReader):
    def __init__(self, archive: zipfile.ZipFile, root: str, num_bytes: int) -> None:
        data = archive.read(f"{root}data.pkl")
        super().__init__(io.BytesIO(data), num_bytes, len(data))
        self.archive, self.root = archive, root
        self.bytes_of: dict[str, Tensor] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, numel = pid
        name = f"{self.root}data/{key}"
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise ValueError("it has something other than a storage outside of its pickle")
        size = self.archive.getinfo(name).file_size
        if not isinstance(numel, int) or numel * dtype.itemsize != size:
            raise ValueError(f"the storage {key} has {size} bytes, which is not the size of {numel} numbers")
        if key not in self.bytes_of:
            self.bytes_of[key] = torch.empty(size, dtype=torch.uint8)
            self.bytes_of[key].numpy()[:] = np.frombuffer(self.archive.read(name), np.uint8)
        return _Storage(self.bytes_of[key].view(dtype))


class _OldReader(_TorchReader):
    """Read a pickle of an old file; its storages get their numbers afterwards."""

    def __init__(self, file: io.BytesIO, num_bytes: int) -> None:
        super().__init__(file, num_bytes, MOST_PICKLE_BYTES)
        self.storages: dict[str, Tensor] = {}
        self.num_stored = 0  # bytes

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, numel, view = pid
        if (
            kind != "storage"
            or not isinstance(dtype, torch.dtype)
            or not isinstance(key, str)
            or type(numel) is not int
        ):
            raise ValueError("it has something other than a storage outside of its pickle")
        if view is not None:
            raise ValueError(f"the storage {key} is a part of another one")
        if key not in self.storages:
            self.num_stored += numel * dtype.itemsize
            if not 0 <= numel * dtype.itemsize <= self.num_stored <= self.num_bytes:
                raise ValueError("its storages are larger than the file")
            self.storages[key] = torch.empty(numel, dtype=dtype)
        if (self.storages[key].dtype, self.storages[key].numel()) != (dtype, numel):
            raise ValueError(f"the storage {key} has two types or sizes")
        return _Storage(self.storages[key])


def _measure(value: Any, known: dict[int, tuple[int, int, int]], level: int) -> tuple[int, int, int]:
    """Return how many values a value has with shared containers written out, how deep it is nested, and its bytes.

    known: of the containers that were measured already; those that are being measured contain themselves
    The bytes are those of its tensors, each with numbers of its own.
    Raises ValueError if it has too many values or is too deep.
    """
    if isinstance(value, dict):
        children = [*value, *value.values(), getattr(value, "_metadata", None)]
    elif isinstance(value, list | tuple | set):
        children = list(value)
    else:
        return 1, 0, value.nbytes if isinstance(value, Tensor) else 0
    if level > MOST_PICKLED_LEVELS:
        raise ValueError(f"it is nested more than {MOST_PICKLED_LEVELS} levels deep")
    if id(value) not in known:
        known[id(value)] = (MOST_PICKLED_VALUES, 0, 0)
        found = [_measure(child, known, level + 1) for child in children]
        deepest = max((depth for _, depth, _ in found), default=0)
        known[id(value)] = (1 + sum(size for size, _, _ in found), 1 + deepest, sum(count for _, _, count in found))
    size, depth, num_bytes = known[id(value)]
    if size > MOST_PICKLED_VALUES or level + depth > MOST_PICKLED_LEVELS:
        raise ValueError("it has too many values with every shared list written out, or it contains itself")
    return size, depth, num_bytes
