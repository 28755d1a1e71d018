"""Checkpoints, models and stores of a stranger take bounded time and memory, and name no file of the user."""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ferhpo.errors import SweepError
from ferhpo.models.backbone import Backbone, _read_weights
from ferhpo.models.torch_file import TORCH_FILE_ERRORS, read_torch
from ferhpo.training import checkpoint

PREPROCESS = {
    "channels": 1, "image_size": 48, "input_size": 48, "normalise": "dataset", "mean": (0.5,), "std": (0.2,)
}  # fmt: skip


def best(**more: Any) -> dict[str, Any]:
    network = nn.Linear(2, 3)
    content = {"epoch": 1, "metrics": {"val_acc": 0.5}, "network": network.state_dict(), "confusion": torch.eye(3)}
    return {"format": 1, **content, "class_names": ["a", "b", "c"], "preprocess": PREPROCESS, **more}


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def edited(content: bytes, edit: Callable[[bytes], bytes]) -> bytes:
    """The file of torch.save with another pickle, and checksums that are right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.infolist():
            data = old.read(member)
            new.writestr(member.filename, edit(data) if member.filename.endswith("data.pkl") else data)
    return out.getvalue()


class Calling:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


def test_a_checkpoint_reads_as_torch_reads_it() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    for kind in (torch.optim.SGD, torch.optim.AdamW, torch.optim.LBFGS, torch.optim.Adafactor):
        optimizer = kind(network.parameters(), lr=0.1)
        network(torch.rand(2, 1, 8, 8)).sum().backward()
        optimizer.step(lambda: network(torch.rand(2, 1, 8, 8)).sum())
        plain = {"own": [1, 2**70, -1.5, None, (True, "ü"), b"\xff", bytearray(b"a"), {1, 2}, 3j, torch.Size([2])]}
        half = {"half": torch.rand(3).bfloat16(), "none": torch.zeros(0, 2), "part": torch.arange(6.0).view(2, 3).t()}
        content = saved({"network": network.state_dict(), "optimizer": optimizer.state_dict(), **plain, **half})
        found, expected = read_torch(content), torch.load(io.BytesIO(content), weights_only=True)
        assert saved(found) == saved(expected)
        assert found["network"]._metadata == expected["network"]._metadata
    shared = read_torch(saved([tensor := torch.zeros(4), tensor[:2]]))
    shared[0][0] = 1.0
    assert shared[1][0] == 1.0, "one storage"


def nested(levels: int) -> list[Any]:
    value: list[Any] = [0]
    for _ in range(levels):
        value = [value, value]
    return value


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (nested(36), "too many values with every shared list written out"),
        (circle(), "contains itself"),
        (deep(100), "more than 50 levels deep"),
        ({"a": (nested(30),)}, "too many values"),
        (Calling(bytearray, 6_000_000_000), "makes a container from something other than values"),
        (Calling(OrderedDict, [(1, 2)]), "positional argument"),
        (Calling(frozenset, [1]), "neither a tensor nor a plain value"),
        (Calling(print, "x"), "neither a tensor nor a plain value"),
    ],
)
def test_a_small_checkpoint_makes_nothing_large(tmp_path: Path, value: Any, rule: str) -> None:
    (tmp_path / "best.ckpt").write_bytes(saved(best(extra=value)))
    with pytest.raises(SweepError, match=rf"best\.ckpt is damaged \(.*{rule}"):
        checkpoint.read(tmp_path / "best.ckpt")


def tensor_code(numel: int, offset: int, size: list[int], stride: list[int]) -> bytes:
    """The opcodes of a tensor with the storage 0, of four numbers."""

    def number(value: int) -> bytes:
        return pickle.LONG1 + bytes([len(data := pickle.encode_long(value))]) + data

    def tuple_of(values: list[int]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(numel) + b"tQ"
    made = storage + number(offset) + tuple_of(size) + tuple_of(stride) + b"\x89" + b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + made + b"tR"


TEXT = b"X\xe8\x03\x00\x00" + b"a" * 1000
ENCODING = b"X\x06\x00\x00\x00latin1"


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        (tensor_code(4, 0, [5], [1]), "not in its storage"),
        (tensor_code(4, 1, [4], [1]), "not in its storage"),
        (tensor_code(4, 0, [2], [2**40]), "not in its storage"),
        (tensor_code(4, 0, [10**9], [0]), "larger than the file"),
        (tensor_code(4, 0, [-4], [1]), "size is not made of numbers"),
        (tensor_code(4, 0, [2**63], [0]), "size is not made of numbers"),
        (tensor_code(10**9, 0, [4], [1]), "not the size of 1000000000 numbers"),
        (b"(" + tensor_code(4, 0, [4000], [0]) * 50 + b"t", "larger than the file"),
        (b"\x8b\xff\xff\xff\x7f", "opcode 139"),  # LONG4, of 2 GB
        (b"\x8e" + b"\xff" * 7 + b"\x0f", "opcode 142"),  # BINBYTES8
        (b"X\xff\xff\xff\xffx", None),
        (b"]r\xff\xff\xff\xff0", "opcode 48"),  # a place in the memo that C reserves memory up to
        (TEXT + b"q\x01c_codecs\nencode\nq\x02(" + (b"h\x02h\x01" + ENCODING + b"\x86R") * 50 + b"t", "again and"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x06\x00\x00\x00utf-32tR", "a form that Python does not write"),
        (tensor_code(4, 0, [4], [1]) + b"}X\x01\x00\x00\x00aNsb", "attributes of something other"),
    ],
)
def test_opcodes_of_a_checkpoint_reserve_no_memory(code: bytes, rule: str | None) -> None:
    content = saved({"x": torch.ones(4), "y": torch.ones(1000)})

    def read(code: bytes) -> Any:
        return read_torch(edited(content, lambda _: b"\x80\x02}X\x01\x00\x00\x00x" + code + b"s."))["x"]

    assert read(tensor_code(4, 0, [2, 2], [2, 1])).sum() == 4, "what torch writes is read"
    tracemalloc.start()
    with pytest.raises(TORCH_FILE_ERRORS, match=rule):
        read(code)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("kind", ["compressed", "twice", "overlapping"])
def test_the_archive_of_a_checkpoint_is_not_larger_than_the_file(kind: str) -> None:
    content, out = saved({"x": torch.zeros(10_000)}), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.infolist():
            how = zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED
            new.writestr(member.filename, old.read(member), how)
        if kind == "twice":
            new.writestr("other/data.pkl", b"N.")
        if kind == "overlapping":
            new.filelist *= 2
    with pytest.raises(ValueError, match=r"compressed|exactly one data\.pkl|overlap"):
        read_torch(out.getvalue())


@pytest.mark.parametrize("key", ["epoch", "metrics", "network", "class_names", "preprocess", "format"])
@pytest.mark.parametrize("value", [None, [], 10**30, torch.zeros(2), {1: 2}, "x", [None]])
def test_a_checkpoint_with_values_of_other_types_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    (tmp_path / "best.ckpt").write_bytes(saved(best(**{key: value})))
    network = nn.Linear(2, 3)
    try:
        found = checkpoint.read(tmp_path / "best.ckpt")
        checkpoint.load_weights(network, found["network"], tmp_path / "best.ckpt")
    except SweepError as error:
        assert "best.ckpt" in str(error)  # noqa: PT017 - some values are right for some keys


def old(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.mark.parametrize("form", [saved, old])
def test_a_file_of_weights_makes_nothing_large(tmp_path: Path, form: Callable[[Any], bytes]) -> None:
    file = tmp_path / "weights.pth"
    weights = Backbone(in_channels=3, num_classes=2, image_size=32, weights="none").state_dict()
    file.write_bytes(form(weights))
    assert _read_weights("resnet18", str(file)).keys() == weights.keys()
    for value in (Calling(bytearray, 6_000_000_000), Calling(OrderedDict, [(1, 2)]), torch.zeros(1).expand(10**9)):
        file.write_bytes(form({"conv1.weight": value}))
        with pytest.raises(ValueError, match=r"weights\.pth, which is damaged|has objects other than tensors"):
            _read_weights("resnet18", str(file))
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(ValueError, match="it is not a regular file"):
        _read_weights("resnet18", str(tmp_path / "pipe.pth"))
