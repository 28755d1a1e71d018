"""Checkpoints, models and stores of a stranger take bounded time and memory, and name no file of the user."""

import io
import json
import os
import pickle
import pickletools
import shutil
import sqlite3
import struct
import sys
import tracemalloc
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ferhpo.addresses import trust
from ferhpo.addresses.sqlite import content_fault, opened_sqlite
from ferhpo.cli.servers import ui
from ferhpo.errors import SweepError, TrackingError
from ferhpo.inference.export import export_model
from ferhpo.models.backbone import Backbone, _read_weights
from ferhpo.models.cnn import CNN
from ferhpo.models.estimators import DecisionTree, Estimator, LinearDiscriminants, LinearSVM
from ferhpo.models.files.fitting import build_fitting
from ferhpo.models.files.torch_file import TORCH_FILE_ERRORS, read_torch
from ferhpo.parse import ParseError, parse_json, parse_yaml
from ferhpo.storage.evaluation_log import read_all
from ferhpo.storage.sweep import load_sweep
from ferhpo.tracking import TrackingSettings, check_store, fetch, registry, run_of, trust_fault
from ferhpo.tracking.store import connect, open_experiment
from ferhpo.tracking.upload.rejected import read_rejected
from ferhpo.training import checkpoint
from tests.reports.made_sweeps import made_sweep

PREPROCESS = {
    "channels": 1, "image_size": 48, "input_size": 48, "normalise": "dataset", "mean": (0.5,), "std": (0.2,)
}  # fmt: skip


def best(**more: Any) -> dict[str, Any]:
    network = nn.Linear(2, 3)
    content = {
        "epoch": 1,
        "metrics": {"val_acc": 0.5},
        "network": network.state_dict(),
        "confusion": torch.eye(3).long(),
    }
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
        (b"(" + tensor_code(4, 0, [10**7], [0]) * 7 + b"t", "more than 4 times as large as the file"),
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


def integer(value: int) -> bytes:
    return pickle.LONG1 + bytes([len(data := pickle.encode_long(value))]) + data


COLLIDING = b"".join(integer(1 + number * (2**61 - 1)) + b"N" for number in range(1, 1000))


@pytest.mark.parametrize(
    "code",
    [
        b"}(" + COLLIDING + b"u",
        b"}" + integer(2**31) + b"Ns",
        b"c__builtin__\nset\n](" + COLLIDING + b"e\x85R",
        b"ccollections\nCounter\n}(" + COLLIDING + b"u\x85R",
        b"}G" + struct.pack(">d", 2.0**61) + b"Ns",
        b"})Ns",
    ],
)
def test_keys_in_a_checkpoint_cannot_collide(code: bytes) -> None:
    content = saved({"x": torch.ones(4)})
    with pytest.raises(pickle.UnpicklingError, match="keys must be texts or integers below 2147483648"):
        read_torch(edited(content, lambda _: b"\x80\x02}X\x01\x00\x00\x00x" + code + b"s."))
    assert read_torch(saved({2**31 - 1: 0, -5: 1, "a": {1}, True: 2})) == {2**31 - 1: 0, -5: 1, "a": {1}, True: 2}


def test_a_counter_in_a_checkpoint_is_made_of_a_dictionary() -> None:
    code = b"ccollections\nCounter\n](" + COLLIDING + b"e\x85R"
    with pytest.raises(TypeError, match="mapping"):
        read_torch(edited(saved({}), lambda _: b"\x80\x02" + code + b"."))
    schedule = torch.optim.lr_scheduler.MultiStepLR(torch.optim.SGD([torch.zeros(1)], lr=0.1), [5, 7])
    assert read_torch(saved(schedule.state_dict()))["milestones"] == {5: 1, 7: 1}


def test_tensors_that_share_numbers_are_not_together_larger_than_the_file() -> None:
    weights = torch.zeros(2**20)  # 4 MB
    for form in (saved, old):
        tied = read_torch(form([weights.view(2**10, 2**10) for _ in range(12)]))
        assert len({tensor.data_ptr() for tensor in tied}) == 1, "tied weights of a small network"
        for value in ([weights.view(-1) for _ in range(80)], [[[weights] * 10] * 10], {"a": weights[:1].expand(2**27)}):
            with pytest.raises(ValueError, match=r"more than 4 times as large as the file|larger than the file"):
                read_torch(form(value))


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


def test_a_file_of_torch_before_1_6_reads_as_torch_reads_it() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).double()
    content = old({"n": network.state_dict(), "h": torch.rand(3).half(), "z": torch.zeros(0), "c": torch.ones(2) * 3j})
    assert saved(read_torch(content)) == saved(torch.load(io.BytesIO(content), weights_only=True))


def with_keys(content: bytes, keys: bytes) -> bytes:
    """A file in torch's old form with another list of storages."""
    file = io.BytesIO(content)
    for _ in range(4):
        list(pickletools.genops(file))
    start = file.tell()
    list(pickletools.genops(file))
    return content[:start] + keys + content[file.tell() :]


def test_the_list_of_storages_of_an_old_file_is_that_of_its_tensors() -> None:
    content = old({"x": torch.ones(1000)})
    huge = integer(4_000_000_000)
    for keys in (
        b"\x80\x02].",  # nothing would be filled: the tensors would have what was in the memory before
        b"\x80\x02](X\x01\x00\x00\x00aX\x01\x00\x00\x00be.",
        b"\x80\x02](K\x01K\x02e.",
        b"\x80\x02](" + COLLIDING + b"e.",
        b"\x80\x02N.",
        b"\x80\x02c__builtin__\nbytearray\n" + huge + b"\x85R.",
        b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
        b"",
    ):
        tracemalloc.start()
        with pytest.raises(TORCH_FILE_ERRORS):
            read_torch(with_keys(content, keys))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
        tracemalloc.stop()
    for damaged in (content[:-1], content[:-4008], content[:-4008] + bytes(4008)):
        with pytest.raises(ValueError, match=r"does not have the 1000 numbers of its tensors|larger than the file"):
            read_torch(damaged)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A default store with one version of a registered model, whose artifacts are in it."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder / "mlflow.db")
    client = connect(settings := TrackingSettings(output_dir=folder))
    client.create_registered_model("faces")
    run = client.create_run(open_experiment(client, settings)).info
    client.create_model_version("faces", f"{run.artifact_uri}/model", run_id=run.run_id)
    artifacts = Path(run.artifact_uri)
    export = export_model(checkpoint_of_cnn(), CNN_CONFIG, folder / "export", "d")
    (artifacts / "model" / "artifacts" / "best").mkdir(parents=True)
    for file in ("model.json", "model.py", "network.safetensors"):
        shutil.copy(export / file, artifacts / "model" / "artifacts" / "best")
    (artifacts / "model" / "large.bin").write_bytes(b"never read")
    (artifacts / "model" / "MLmodel").write_text(MLMODEL)
    (artifacts / "config.yaml").write_text("data: {}\nmodel: {}\nseed: 1\n")
    return folder


MLMODEL = "flavors: {python_function: {artifacts: {model: {path: artifacts/best}}, loader_module: x}}\n"
CNN_CONFIG = {"_target_": "ferhpo.models.cnn.CNN", "num_blocks": 1, "stem_channels": 4, "block_channels": 4}


def checkpoint_of_cnn() -> dict[str, Any]:
    torch.manual_seed(1)
    network = CNN(num_blocks=1, stem_channels=4, block_channels=4, in_channels=1, num_classes=3, image_size=48)
    return best(network=network.state_dict())


@pytest.fixture
def copied(store: Path, tmp_path: Path) -> Any:
    """A copy of the store: its settings, its version and the folder of the version's artifacts."""
    shutil.copytree(store, tmp_path / "out")
    settings = TrackingSettings(output_dir=tmp_path / "out")
    connect(settings)  # follows the move
    (folder,) = (tmp_path / "out" / "artifacts").glob("*/artifacts")
    return settings, registry.versions(settings, "faces")[0], folder


def change(settings: TrackingSettings, query: str, *values: str) -> None:
    with closing(sqlite3.connect(settings.output_dir / "mlflow.db")) as database:
        database.execute(query, values)
        database.commit()


def test_a_model_is_read_file_by_file(copied: Any, tmp_path: Path) -> None:
    settings, version, _ = copied
    network, described = fetch.load(settings, version)
    assert described["class_names"] == ["a", "b", "c"]
    assert torch.equal(
        network.state_dict()["features.stem.conv.weight"], checkpoint_of_cnn()["network"]["features.stem.conv.weight"]
    )
    files = {path.name for path in fetch.download(settings, "faces", 1, tmp_path / "got").rglob("*") if path.is_file()}
    assert files == {"MLmodel", "model.json", "model.py", "network.safetensors"}
    assert fetch.run_config(settings, version.run_id) == {"data": {}, "model": {}, "seed": 1}


@pytest.mark.parametrize("kind", ["home", "id", "link", "below", "parent"])
def test_a_store_names_no_folder_of_the_user(copied: Any, tmp_path: Path, kind: str) -> None:
    settings, version, folder = copied
    secret = tmp_path / "home" / (f"{version.run_id}/artifacts" if kind in ("id", "link") else "docs")
    shutil.copytree(folder / "model", secret / "model")
    (secret / "config.yaml").write_text("data: {}\nmodel: {}\nsecret: 1\n")
    place = secret
    if kind == "link":
        shutil.rmtree(folder)
        folder.symlink_to(secret)
        place = folder
    elif kind == "below":
        shutil.rmtree(folder / "model")
        (folder / "model").symlink_to(secret / "model")
        (folder / "config.yaml").unlink()
        (folder / "config.yaml").symlink_to(secret / "config.yaml")
        place = folder
    elif kind == "parent":
        place = folder / ".." / ".." / ".." / "home" / "docs"
    change(settings, "UPDATE model_versions SET source = ?, storage_location = NULL", f"{place}/model")
    change(settings, "UPDATE runs SET artifact_uri = ?", str(place))
    rule = "is a link; nothing is read through links" if kind == "below" else "nothing is read there"
    with pytest.raises(TrackingError, match=rule):
        fetch.download(settings, "faces", 1, tmp_path / "got")
    with pytest.raises(TrackingError, match=rule):
        fetch.run_config(settings, version.run_id)
    assert not list((tmp_path / "got").rglob("*"))


def test_a_store_that_the_user_named_keeps_its_artifacts_anywhere(copied: Any, tmp_path: Path) -> None:
    _, version, folder = copied
    shutil.copytree(folder, elsewhere := tmp_path / "elsewhere" / version.run_id / "artifacts")
    uri = f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}"
    settings = TrackingSettings(output_dir=tmp_path / "out", uri=uri)
    change(settings, "UPDATE runs SET artifact_uri = ?", str(elsewhere))
    with pytest.raises(TrackingError, match=r"not in the folder of this store .* add tracking\.uri=sqlite:"):
        fetch.run_config(settings, version.run_id)
    trust.trust_address("tracking.uri", uri)
    try:
        assert fetch.run_config(settings, version.run_id)["seed"] == 1
    finally:
        trust.forget()


@pytest.mark.parametrize("name", ["config.yaml", "model/MLmodel", "model/artifacts/best/model.json"])
@pytest.mark.parametrize("kind", ["pipe", "sparse", "large"])
def test_files_of_a_store_are_read_with_a_limit(copied: Any, name: str, kind: str) -> None:
    settings, version, folder = copied
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        with (folder / name).open("wb") as file:
            file.truncate(40_000_000_000 if kind == "sparse" else 12_000_000)
    rule = "regular file" if kind == "pipe" else "larger than|nearly all are empty"
    with pytest.raises(TrackingError, match=rule):
        fetch.run_config(settings, version.run_id) if name == "config.yaml" else fetch.load(settings, version)


BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
TEXTS = ["", "{", "[1]", "null", "1", '"x"', "{}", "[" * 100_000, "9" * 10_000, "a: " + "9" * 10_000, BOMB, "\0", "é"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["config.yaml", "model/MLmodel", "model/artifacts/best/model.json"])
def test_other_content_of_a_store_is_refused_with_a_message(copied: Any, name: str, text: str) -> None:
    settings, version, folder = copied
    (folder / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(TrackingError) as caught:
        fetch.run_config(settings, version.run_id) if name == "config.yaml" else fetch.load(settings, version)
    assert name.rpartition("/")[2] in str(caught.value)


VALUES = [None, [], {}, "x", -1, 10**30, 10**5000, 1.5, True, [[]], {"a": None}, "../..", [None]]


def test_no_value_in_model_json_raises_anything_but_a_fault(copied: Any) -> None:
    settings, version, folder = copied
    file = folder / "model" / "artifacts" / "best" / "model.json"
    right = json.loads(file.read_text())
    places = [(key,) for key in right] + [(key, inner) for key in ("network", "preprocess") for inner in right[key]]
    sys.set_int_max_str_digits(10_000)
    for place in places:
        for value in [*VALUES, "missing"]:
            content = json.loads(json.dumps(right))
            inner = content if len(place) == 1 else content[place[0]]
            if value == "missing":
                del inner[place[-1]]
            else:
                inner[place[-1]] = value
            file.write_text(json.dumps(content))
            try:
                fetch.load(settings, version)
            except TrackingError as error:
                assert "faces version 1" in str(error)  # noqa: PT017 - some values are right
    sys.set_int_max_str_digits(4300)


def test_a_network_larger_than_its_weights_is_not_built(copied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, version, folder = copied
    file = folder / "model" / "artifacts" / "best" / "model.json"
    content = json.loads(file.read_text())
    content["network"]["arguments"] |= {"num_dense": 1, "dense_units": 10**9}
    file.write_text(json.dumps(content))
    with pytest.raises(TrackingError, match=r"cannot be loaded: classifier\..* has the shape .*; the network has"):
        fetch.load(settings, version)


def test_own_networks_that_need_numbers_are_built_without_a_comparison() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, int(torch.ones(3).sum().item()))

    shapes = {"layer.weight": (3, 2), "layer.bias": (3,)}
    assert build_fitting(Own, shapes, is_own=True).layer.weight.device.type == "cpu"
    with pytest.raises(RuntimeError):
        build_fitting(Own, shapes, is_own=False)
    with pytest.raises(RuntimeError, match=r"weight has the shape \[4, 2\]; the network has \[3, 2\]"):
        build_fitting(lambda: nn.Linear(2, 3), {"weight": (4, 2), "bias": (3,)}, is_own=True)


def skops_of(estimator: Estimator) -> bytes:
    return estimator.get_extra_state().numpy().tobytes()  # type: ignore[no-any-return]


def fitted(kind: type[Estimator], num_classes: int = 3) -> Estimator:
    estimator = kind(in_channels=1, num_classes=num_classes, image_size=6)  # type: ignore[call-arg]
    random = np.random.default_rng(0)
    estimator.fit(random.random((60, 36)).astype(np.float32), random.integers(0, num_classes, 60), seed=1)
    return estimator


def rewritten(data: bytes, edit: Callable[[dict[str, Any], dict[str, bytes]], None]) -> bytes:
    """The skops file after `edit(schema, files)`."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(files.pop("schema.json"))
    edit(schema, files)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**files, "schema.json": json.dumps(schema).encode()}.items():
            archive.writestr(name, content)
    return out.getvalue()


def load_into(kind: type[Estimator], data: bytes) -> Estimator:
    estimator = kind(in_channels=1, num_classes=3, image_size=6)  # type: ignore[call-arg]
    estimator.set_extra_state(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    return estimator


def saved_array(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


KINDS = (DecisionTree, LinearSVM, LinearDiscriminants)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_estimator_loads(kind: type[Estimator], num_classes: int) -> None:
    estimator = fitted(kind, num_classes)
    images = torch.rand(5, 1, 6, 6)
    found = load_into(kind, skops_of(estimator))(images)
    assert torch.equal(found[:, :num_classes], estimator(images))


TREE_EDITS: list[tuple[str, int, float]] = [
    ("left_child", 0, 0),
    ("right_child", 0, 0),
    ("left_child", 0, 2**40),
    ("right_child", 0, -7),
    ("feature", 0, 36),
    ("feature", 0, -3),
    ("threshold", 0, float("nan")),
]


@pytest.mark.parametrize(("field", "row", "value"), TREE_EDITS)
def test_a_tree_whose_nodes_lead_nowhere_is_refused(field: str, row: int, value: float) -> None:
    def edit(schema: dict[str, Any], files: dict[str, bytes]) -> None:
        name = schema["content"]["content"]["tree_"]["content"]["content"]["nodes"]["file"]
        nodes = np.load(io.BytesIO(files[name]))
        nodes[field][row] = value
        files[name] = saved_array(nodes)

    with pytest.raises(RuntimeError, match="its tree is damaged"):
        load_into(DecisionTree, rewritten(skops_of(fitted(DecisionTree)), edit))


@pytest.mark.parametrize("part", ["features", "outputs", "node_count", "classes", "values", "id", "file"])
def test_a_tree_whose_sizes_differ_is_refused(part: str) -> None:
    def edit(schema: dict[str, Any], files: dict[str, bytes]) -> None:
        tree = schema["content"]["content"]["tree_"]
        features, classes, outputs = tree["__reduce__"]["args"]["content"]
        state = tree["content"]["content"]
        if part == "id":  # skops would take the first object with this id for the tree's nodes
            state["nodes"]["__id__"] = schema["content"]["content"]["classes_"]["__id__"]
        elif part == "file":
            state["values"]["file"] = state["nodes"]["file"]
        elif part in ("classes", "values"):
            file = (classes if part == "classes" else state["values"])["file"]
            files[file] = saved_array(np.full((1,), 10**6) if part == "classes" else np.zeros((2, 1, 3)))
        else:
            changed = {"features": features, "outputs": outputs, "node_count": state["node_count"]}[part]
            changed |= {"content": "1000000", "__id__": 7}

    with pytest.raises(RuntimeError, match=r"its tree is damaged|the same id|the same file"):
        load_into(DecisionTree, rewritten(skops_of(fitted(DecisionTree)), edit))


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_an_estimator_that_no_fit_finds_are_refused(kind: type[Estimator]) -> None:
    data = skops_of(fitted(kind))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
    images = torch.rand(2, 1, 6, 6)
    for name in names:
        for values in (np.full(3, np.nan), np.zeros((1, 1)), np.full(3, 99), np.array(["a", "b", "c"]), np.zeros(())):

            def edit(schema: dict[str, Any], files: dict[str, bytes], name: str = name, values: Any = values) -> None:
                files[name] = saved_array(values)

            try:
                found = load_into(kind, rewritten(data, edit))
            except RuntimeError:
                continue
            assert found(images).isfinite().all(), "an array that predictions do not need"


def test_a_skops_file_is_not_larger_than_its_limit_and_has_no_other_types() -> None:
    def huge(schema: dict[str, Any], files: dict[str, bytes]) -> None:
        files["more.npy"] = bytes(310_000_000)

    def other(schema: dict[str, Any], files: dict[str, bytes]) -> None:
        schema["content"]["content"]["criterion"] |= {"__module__": "builtins", "__class__": "bytearray"}

    for edit, rule in ((huge, "is larger than 300 MB"), (other, "Untrusted types found: builtins.bytearray")):
        with pytest.raises(RuntimeError, match=rule):
            load_into(DecisionTree, rewritten(skops_of(fitted(DecisionTree)), edit))


OTHER_NAMES = [
    ("sklearn.tree", "_tree.Tree", "TreeNode"),  # joined, this is the name of the tree
    ("builtins", "list", "TreeNode"),
    ("sklearn.tree._classes", "DecisionTreeClassifier", "TreeNode"),
    ("sklearn.tree._tree", "Tree", "ObjectNode"),
    ("sklearn.tree._tree", "Tree", "TypeNode"),
]


@pytest.mark.parametrize("names", OTHER_NAMES)
def test_a_tree_under_another_name_is_refused(names: tuple[str, str, str]) -> None:
    def edit(schema: dict[str, Any], files: dict[str, bytes]) -> None:
        tree = schema["content"]["content"]["tree_"]
        name = tree["content"]["content"]["nodes"]["file"]
        nodes = np.load(io.BytesIO(files[name]))
        nodes["left_child"][0] = nodes["right_child"][0] = 2**40
        files[name] = saved_array(nodes)
        tree.update(zip(("__module__", "__class__", "__loader__"), names, strict=True))

    with pytest.raises(RuntimeError, match=rf"Untrusted types found: {'.'.join(names[:2])} \({names[2]}\)"):
        load_into(DecisionTree, rewritten(skops_of(fitted(DecisionTree)), edit))


ENDLESS = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x"
OBJECTS = {
    "view": f"CREATE VIEW experiment_tags AS {ENDLESS} AS experiment_id, 'k' AS key, 'v' AS value FROM r",
    "trigger": "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END",
    "virtual": "CREATE VIRTUAL TABLE v USING rtree(id, low, high)",
    "computed": "ALTER TABLE params ADD COLUMN b AS (hex(zeroblob(1000000000)))",
    "index": "CREATE INDEX i ON params (hex(value))",
    "part": "CREATE INDEX i ON params (value) WHERE length(value) > 9",
    "check": "CREATE TABLE t (a, CHECK(length(hex(zeroblob(450000000))) > 0))",
    "hidden check": "CREATE TABLE t (\"CHECK (a IN ('\" CHECK (hex(zeroblob(450000000))), b DEFAULT '))')",
    "default": "CREATE TABLE t (a DEFAULT (hex(zeroblob(450000000))))",
    "comment": "CREATE TABLE t (a DEFAULT/**/(hex(zeroblob(450000000))))",
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_store_with_more_than_tables_is_not_opened(copied: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, version, _ = copied
    assert trust_fault(settings) == ""
    if kind == "view":
        change(settings, "DROP TABLE experiment_tags")
    change(settings, OBJECTS[kind])
    assert content_fault(settings.sqlite_path).startswith("it has ")
    if kind not in ("view", "index"):
        return
    for call in (connect, lambda settings: fetch.load(settings, version), lambda s: registry.versions(s, "faces")):
        with pytest.raises(TrackingError, match=r"mlflow\.db; it has .*, which MLflow does not make"):
            call(settings)
    with pytest.raises(TrackingError, match="which MLflow does not make"):
        check_store(settings)
    with pytest.raises(SweepError, match="which MLflow does not make"):
        ui(Namespace(output_dir=str(settings.output_dir), host="127.0.0.1", port=5000))
    if kind != "index":
        return
    uri = f"sqlite:///{settings.sqlite_path}"
    trust.trust_address("tracking.uri", uri)
    try:
        assert trust_fault(TrackingSettings(output_dir=settings.output_dir, uri=uri)) == "", "the user named it"
    finally:
        trust.forget()


def test_statements_of_a_database_end_in_time(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute(f"CREATE VIEW v AS {ENDLESS} FROM r")
    with (
        opened_sqlite(tmp_path / "a.db", wait_seconds=1, most_seconds=0.2) as database,
        pytest.raises(sqlite3.OperationalError, match="interrupted"),
    ):
        database.execute("SELECT count(*) FROM v").fetchone()


def test_numbers_of_thousands_of_digits_are_faults(tmp_path: Path) -> None:
    long = "9" * 5000
    with pytest.raises(ParseError, match="it has a number of 5,000 digits; at most 100 are read"):
        parse_json(f'{{"a": [{long}]}}')
    assert parse_json(f"[{2**128}, -1.5e300]") == [2**128, -1.5e300]
    with pytest.raises(ParseError, match="nested too deeply"):
        parse_json("[" * 100_000)
    for text in (f"a: {long}", f"a: 0x{'f' * 5000}", f"a: -{long}"):
        with pytest.raises(ParseError, match="line 1 has a number of more than 100 digits"):
            parse_yaml(text)
    assert parse_yaml(f"a: 'x'\nb: '{long}'") == {"a": "x", "b": long}
    colliding = "\n".join(f"{1 + number * (2**61 - 1)}: 0" for number in range(2, 2000))
    with pytest.raises(ParseError, match="more than 1,000 numbers of more than 18 digits"):
        parse_yaml(colliding)


def test_files_of_a_sweep_with_such_numbers_are_refused_with_a_message(tmp_path: Path) -> None:
    long = "9" * 5000
    sweep = made_sweep(tmp_path / "runs", ["COMPLETE"])
    file = sweep.folder / "sweep.json"
    right = file.read_text()
    file.write_text(right.replace("{", f'{{"more": {long},', 1))
    with pytest.raises(SweepError, match=r"sweep\.json is damaged \(it has a number of 5,000 digits"):
        load_sweep(sweep.folder)
    file.write_text(right)
    (sweep.folder / "test_readings.jsonl").write_text(f'{{"scores": {long}}}\n')
    with pytest.raises(SweepError, match="line 1 is not a test evaluation"):
        read_all(sweep.folder)
    (sweep.folder / "rejected.jsonl").write_text(f'{{"run": {long}}}\n')
    assert read_rejected(sweep.folder) == []
    (sweep.folder / "spool.shipped.json").write_text(f'{{"offset": {long}}}')
    assert run_of(sweep.folder, TrackingSettings(tmp_path / "runs"), 0) is None
    journal = sweep.folder / "study.jsonl"
    journal.write_text(journal.read_text() + f'{{"op_code": {long}}}\n')
    with pytest.raises(SweepError, match=r"study\.jsonl"):
        load_sweep(sweep.folder).trials()
