"""What a file from somebody else cannot do: run code on being read, write outside its folder, name any Python object."""

import copy
import io
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml

from ferhpo import cli, sweep
from ferhpo.components import own_code
from ferhpo.components.build import instantiate, locate
from ferhpo.components.roles import ROLES
from ferhpo.config import validate
from ferhpo.config.compose import compose
from ferhpo.data.io import cache
from ferhpo.errors import ConfigError, FerhpoError, SweepError, TrackingError
from ferhpo.models.backbone import Backbone
from ferhpo.models.estimators import DecisionTree
from ferhpo.storage.meta import META
from ferhpo.storage.sweep import load_sweep
from ferhpo.training import checkpoint
from tests.reports.made_sweeps import demo, made_sweep

SOURCES = Path(__file__).parents[1] / "src" / "ferhpo"


class Evil:
    """Writes a file when a pickle that holds it is read."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture
def marker(tmp_path):
    """A folder that is there once somebody's code has run; each test ends in its absence."""
    path = tmp_path / "code-has-run"
    yield path
    assert not path.exists()


def in_zip_form(content) -> bytes:
    written = io.BytesIO()
    torch.save(content, written)
    return written.getvalue()


def in_old_form(content) -> bytes:
    written = io.BytesIO()
    torch.save(content, written, _use_new_zipfile_serialization=False)
    return written.getvalue()


def as_plain_pickle(content) -> bytes:
    return pickle.dumps(content)


FORMS = [in_zip_form, in_old_form, as_plain_pickle]


def test_the_malicious_file_does_run_where_it_is_trusted(tmp_path):
    for number, form in enumerate(FORMS[:2]):
        torch.load(io.BytesIO(form({"x": Evil(tmp_path / f"ran{number}")})), weights_only=False)
        assert (tmp_path / f"ran{number}").exists()
    pickle.loads(as_plain_pickle(Evil(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_with_code_is_refused(tmp_path, marker, form):
    evil = form({"format": 1, "epoch": 1, "history": [], "network": Evil(marker), "confusion": Evil(marker)})
    for name in (checkpoint.LAST, checkpoint.BEST, checkpoint.NEXT_BEST):
        (tmp_path / name).write_bytes(evil)
    with pytest.raises(SweepError, match=r"last\.ckpt is damaged \("):
        checkpoint.load_last(tmp_path)
    with pytest.raises(SweepError, match=r"best\.ckpt is damaged"):
        checkpoint.load_network(tmp_path / checkpoint.BEST, torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    "verb",
    [
        ["evaluate", "made/0"],
        pytest.param(["report", "made", "--trial", "0"], marks=pytest.mark.full),
        pytest.param(["report", "made"], marks=pytest.mark.full),
    ],
)
def test_the_verbs_refuse_a_checkpoint_with_code(tmp_path, marker, verb, capsys):
    record = made_sweep(tmp_path, ["COMPLETE"], overrides=("data.num_train=7", "data.num_val=7", "data.num_test=0"))
    record.trial_folder(0).mkdir(parents=True)
    (record.trial_folder(0) / checkpoint.BEST).write_bytes(in_zip_form({"format": 1, "network": Evil(marker)}))
    status = cli.main([*verb, "--output-dir", str(tmp_path)])
    told = capsys.readouterr()
    if verb[0] == "evaluate":
        assert status == 2
        assert "best.ckpt is damaged" in told.err
    else:  # a page says what it lacks
        assert "Traceback" not in told.err


@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors"])
@pytest.mark.parametrize("form", FORMS)
def test_weights_with_code_are_refused(tmp_path, marker, form, name):
    (tmp_path / name).write_bytes(form({"conv1.weight": Evil(marker)}))
    with pytest.raises(ValueError, match=rf"weights is .*{name}, which (has objects|is damaged)"):
        Backbone(in_channels=1, num_classes=7, image_size=48, weights=str(tmp_path / name))
    composed = copy.deepcopy(demo(("model=torchvision",)))
    composed.config["model"]["weights"] = str(tmp_path / name)
    with pytest.raises(ConfigError, match=rf"weights is .*{name}, which"):
        validate.check_weights(composed.config, composed.space())


def skops_file(type_name: str, module: str) -> bytes:
    """A skops file whose object says to be of a type that nobody trusts."""
    schema = {
        "__class__": type_name, "__module__": module, "__loader__": "ObjectNode", "__id__": 1,
        "content": {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": '"x"', "__id__": 2},
        "protocol": 2, "_skops_version": "0.13",
    }  # fmt: skip
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as out:
        out.writestr("schema.json", json.dumps(schema))
    return written.getvalue()


@pytest.mark.parametrize("form", [as_plain_pickle, lambda evil: skops_file("Popen", "subprocess"), in_zip_form])
def test_an_estimator_with_code_is_refused(marker, form):
    tree = DecisionTree(in_channels=1, num_classes=7, image_size=8)
    state = torch.frombuffer(bytearray(form(Evil(marker))), dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="it is not the skops file of a DecisionTreeClassifier"):
        tree.set_extra_state(state)


def test_a_cached_array_is_never_a_pickle(tmp_path, marker, caplog):
    """An array of objects is what numpy would read by pickle."""
    (tmp_path / "faces").write_text("source")

    def make() -> cache.Entry:
        return cache.Entry({"images": np.arange(8, dtype=np.uint8)}, {})

    cache.cached("key", tmp_path, make)
    (file,) = tmp_path.glob("*.arrays")
    line, _, _ = file.read_bytes().partition(b"\n")
    header = json.loads(line.partition(b" ")[2])
    header["arrays"]["images"] |= {"dtype": "|O", "shape": [1]}
    line = json.dumps(header).encode()
    digest = cache.hashlib.sha256(line).hexdigest().encode()
    file.write_bytes(digest + b" " + line + b"\n" + pickle.dumps(Evil(marker)))
    assert cache.cached("key", tmp_path, make).arrays["images"].tolist() == list(range(8))
    assert "is damaged" in caplog.text
    file.write_bytes(pickle.dumps(Evil(marker)))
    assert cache.cached("key", tmp_path, make).arrays["images"].tolist() == list(range(8))


@pytest.mark.full
def test_a_registered_model_with_pickles_in_it_is_not_read(tmp_path, marker, monkeypatch):
    from ferhpo.tracking import fetch
    from ferhpo.tracking.registry import Version

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.json").write_text("{}")
    (folder / "python_model.pkl").write_bytes(pickle.dumps(Evil(marker)))
    loader = {
        "loader_module": "mlflow.pyfunc.model",
        "python_model": "python_model.pkl",
        "cloudpickle_version": "3.1.0",
    }
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": loader}}))
    monkeypatch.setattr(
        fetch, "_fetch", lambda _, __, out, ___: shutil.copytree(folder, out, dirs_exist_ok=True) and ""
    )
    monkeypatch.delenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", raising=False)
    version = Version("m", 1, (), None, None, None, {}, "")
    with pytest.raises(TrackingError, match="m version 1 is not a ferhpo model: its MLmodel names no folder"):
        fetch.load(None, version)


TAGS = ["!!python/object/apply:os.mkdir ['{}']", "!!python/object/new:os.mkdir ['{}']", "!!python/name:os.system"]


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_that_names_python_objects_is_refused(tmp_path, marker, tag):
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.yaml").write_text(f"defaults: [demo, _self_]\nseed: {tag.format(marker)}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        compose("mine", config_dir=own)
    made_sweep(tmp_path, ["RUNNING"])
    from ferhpo.tuning.preflight import resumed

    with suppress(ConfigError):
        read = resumed("made", [f"num_trials={tag.format(marker)}", f"output_dir={tmp_path}"], "sweep")
        assert isinstance(read.config["num_trials"], str), "a text, which the check refuses"


OUTSIDE = [
    "os.system",
    "builtins.eval",
    "torch.hub.load",
    "torch.load",
    "torch.nnx.Module",
    "ferhpo_evil.run",
    "subprocess.run",
    "ferhpo.components.own_code.allow",
    "ferhpo.components.build.instantiate",
    "ferhpo.training.checkpoint._write",  # a helper of the package
    "ferhpo.training.checkpoint.read",
    "ferhpo.training.averaging.WeightAverage",
    "ferhpo.data.dataset.face_data",
    "ferhpo.data.io.cache.save",
    "torch.nn.utils.prune.custom_from_mask",
    "torch.nn.functional.torch.load",
    "ferhpo.tracking.fetch.load",  # a registered model is code
    "ferhpo.cli.servers.ui",
    "ferhpo.driver.os.kill",
]
THROUGH = [
    "torch.nn.functional.torch.hub.load",
    "torch.optim.lr_scheduler.torch.load",
    "torch.nn.modules.module.torch.serialization.load",
    "torchvision.models._api.load_state_dict_from_url",
    "torchvision.models.resnet.partial",
    "ferhpo.data.io.cache.os.system",
    "ferhpo.data.io.files.zipfile.ZipFile",
    "ferhpo.training.checkpoint.torch.load",
    "ferhpo.training.checkpoint.pickle.loads",
    "optuna.samplers._cmaes.pickle.loads",
    "ray.tune.schedulers.trial_scheduler.Trial",
]
NO_NAMES = [
    "torch.nn.Module.__init__.__globals__",
    "torch.nn.Module.__subclasses__",
    "torch.nn.modules:torch.load",
    "torch.nn.functional",
    "ferhpo.data.labels.emotions.EMOTIONS",
    "torch.nn.",
    "",
    "torch..nn",
    5,
    None,
    ["os", "system"],
    {"a": 1},
]


@pytest.mark.parametrize("target", [*OUTSIDE, *THROUGH, *NO_NAMES], ids=str)
def test_no_target_leads_out_of_the_allowed_modules(target):
    for role in ROLES:
        with pytest.raises(ValueError, match=r"^_target_ is "):
            locate(target, role)
        with pytest.raises(ConfigError):
            instantiate({"_target_": target}, role)


def test_each_role_takes_its_own_components_only():
    """What one section accepts, another refuses, although both are ferhpo's."""
    named = {
        "data": "ferhpo.data.synthetic.load",
        "augment": "ferhpo.training.augment.Augment",
        "model": "ferhpo.models.cnn.CNN",
        "loss": "torch.nn.CrossEntropyLoss",
        "optim": "torch.optim.SGD",
        "lr_schedule": "ferhpo.training.schedules.cosine",
        "trainer": "ferhpo.training.settings.TrainerSettings",
        "sampler": "optuna.samplers.TPESampler",
        "scheduler": "ray.tune.schedulers.ASHAScheduler",
        "layer": "torch.nn.ReLU",
    }
    for name, target in named.items():
        assert callable(locate(target, name))
        for other in set(ROLES) - {name}:
            if (name, other) != ("loss", "layer"):  # a layer may be any module of torch.nn
                with pytest.raises(ValueError, match=rf"^_target_ is {target}"):
                    locate(target, other)


def test_a_refused_target_says_how_to_allow_it():
    with pytest.raises(
        ValueError, match=r"must be a subclass of .*; add allowed_targets=\[torch\.hub\] to the command"
    ):
        locate("torch.hub.load", "model")


OWN = """
import os, shutil
from os import system
from pathlib import Path
from subprocess import Popen
from torch.nn import Linear as Renamed
def load(path="x"): pass
class Other: pass
def _hidden(): pass
"""


@pytest.mark.parametrize(
    ("role", "name", "fault"),
    [
        ("data", "mine.load", None),
        ("model", "mine.Renamed", None),  # a class of a package that fits the role
        ("data", "mine.system", "which is posix.system; it must be defined in mine"),
        ("data", "mine.Popen", "which is subprocess.Popen; it must be defined in mine"),
        ("data", "mine.Path", "which is pathlib.Path; it must be defined in mine"),
        ("data", "mine.os.system", "add allowed_targets="),
        ("data", "mine.shutil.rmtree", "which cannot be imported"),
        ("metrics", "mine._hidden", "private and never called"),
        ("model", "mine.load", "is mine.load, a function; it must be a subclass of torch.nn.Module"),
        ("model", "mine.Other", "is mine.Other, a class; it must be a subclass of torch.nn.Module"),
        ("sampler", "mine.Other", "it must be a subclass of optuna.samplers.BaseSampler"),
        ("callbacks", "mine.Other", "it must be a subclass of pytorch_lightning.Callback"),
    ],
)
def test_what_own_code_may_name(tmp_path, role, name, fault):
    """A sweep file from somebody else may name what the user's own files contain, but not what they import."""
    (tmp_path / "mine.py").write_text(OWN)
    own_code.trust_folder(tmp_path)
    if fault is None:
        assert callable(locate(name, role))
    else:
        with (
            pytest.raises(ValueError, match=re.escape(fault))
            if fault != "add allowed_targets="
            else pytest.raises(ValueError)
        ):
            locate(name, role)


def test_own_code_never_replaces_a_module_of_a_package(tmp_path):
    (tmp_path / "json.py").write_text("def load(): raise AssertionError\n")
    own_code.trust_folder(tmp_path)
    with pytest.raises(ValueError, match=r"json has the name of Python's own module, .* rename it") as caught:
        locate("json.load", "data")
    assert "allowed_targets" not in str(caught.value), "that would trust Python's module"
    (tmp_path / "torchvision.py").write_text("def load(): raise AssertionError\n")
    with pytest.raises(ValueError, match=r"torchvision has the name of an installed package, .* rename it"):
        locate("torchvision.load", "data")


def test_a_folder_of_own_code_that_is_no_package_says_so(tmp_path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "small.py").write_text("def load(): ...\n")
    own_code.trust_folder(tmp_path)
    with pytest.raises(ValueError, match=r"nets/ is not a package; add an empty file .*/nets/__init__\.py"):
        locate("nets.small.load", "data")
    (tmp_path / "nets" / "__init__.py").write_text("")
    assert locate("nets.small.load", "data").__module__ == "nets.small"


def test_a_file_gives_no_trust(tmp_path):
    """Neither a sweep file nor a sweep's folder; only the command line does."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mine.yaml").write_text("defaults: [demo, _self_]\nallowed_targets: [tests.faulty]\n")
    with pytest.raises(
        ConfigError, match=r"in a file, and a file cannot allow modules, .* add allowed_targets=\[tests\.faulty\]"
    ):
        validate.check("mine", [], tmp_path)
    validate.check("mine", ["allowed_targets=[tests.faulty]"], tmp_path)


def test_a_component_inside_another_must_be_declared_by_its_annotation(tmp_path):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, in_channels, num_classes, image_size, activation: nn.Module | None = None, other=None):\n"
        "        super().__init__()\n"
        "        self.activation, self.other = activation, other\n"
    )
    own_code.trust_folder(tmp_path)
    shape = {"in_channels": 1, "num_classes": 7, "image_size": 48}
    relu = {"_target_": "torch.nn.ReLU"}
    net = instantiate({"_target_": "nets.Net", "activation": relu}, "model", **shape)
    assert isinstance(net.activation, torch.nn.ReLU)
    with pytest.raises(ConfigError, match="takes no component as other"):
        instantiate({"_target_": "nets.Net", "other": relu}, "model", **shape)
    with pytest.raises(ConfigError, match=r"it must be a subclass of torch\.nn\.Module"):
        instantiate(
            {"_target_": "nets.Net", "activation": {"_target_": "os.system", "command": "true"}}, "model", **shape
        )


@pytest.mark.parametrize("target", ["os.system", "torch.nn.functional.torch.hub.load"])
@pytest.mark.parametrize("section", validate.TARGET_SECTIONS)
def test_check_refuses_a_target_in_every_section(section, target):
    composed = copy.deepcopy(demo(()))
    composed.config[section]["_target_"] = target
    with pytest.raises(ConfigError, match=rf"{section}\._target_ is {target}"):
        validate.check_composed(composed)


def test_check_refuses_nested_targets():
    evil = "{_target_: os.mkdir, path: /tmp/x}"
    with pytest.raises(
        ConfigError, match=r"data\.merge\.more\._target_ is os\.mkdir; it must be a function that returns a FaceData"
    ):
        validate.check_composed(compose("demo", ["data=merged", "data.main.path=x", f"+data.merge.more={evil}"]))
    with pytest.raises(ConfigError, match=r"model\.hog\._target_ is os\.mkdir, but .* takes no component as hog"):
        validate.check_composed(compose("demo", [f"model.hog={evil}"]))


def test_a_users_own_options_are_held_to_the_rule(tmp_path):
    """Also an option that only the space chooses."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# a network of mine\n_target_: os.mkdir\npath: x\n")
    with pytest.raises(ConfigError, match=r"model\._target_ is os\.mkdir; it must be a subclass of"):
        validate.check_composed(compose("demo", ["model=mine"], tmp_path))
    with pytest.raises(ConfigError, match=r"space\.model\.options contains mine: model\._target_ is os\.mkdir"):
        validate.check_composed(compose("demo", ["space.model={options: [cnn, mine]}"], tmp_path))


@pytest.mark.parametrize("allowed", ["os", 5, [5], {"a": 1}])
def test_allowed_targets_are_a_list_of_names(allowed):
    composed = copy.deepcopy(demo(()))
    composed.config["allowed_targets"] = allowed
    with pytest.raises(ConfigError, match=r"allowed_targets is .*; it must be a list of Python modules"):
        validate.check_composed(composed)


@pytest.mark.full
@pytest.mark.parametrize("section", ["data", "model", "optim", "sampler", "trainer"])
def test_an_edited_sweep_names_nothing_else(tmp_path, marker, section, capsys):
    record = made_sweep(tmp_path, ["COMPLETE", "RUNNING"])
    meta = json.loads((record.folder / META).read_text())
    meta["composed"]["config"][section] = {"_target_": "os.mkdir", "path": str(marker)}
    (record.folder / META).write_text(json.dumps(meta))
    assert cli.main(["sweep", "made", "--resume", f"output_dir={tmp_path}"]) == 2
    assert f"{section}._target_ is os.mkdir; it must be " in capsys.readouterr().err
    (record.trial_folder(0)).mkdir(parents=True)
    assert cli.main(["evaluate", "made/0", "--output-dir", str(tmp_path)]) == 2
    assert cli.main(["report", "made", "--trial", "0", "--output-dir", str(tmp_path)]) in (0, 2)
    if section != "sampler":  # a confirmation draws nothing
        assert cli.main(["confirm", "made", "--output-dir", str(tmp_path)]) == 2
    assert cli.main(["runs", "made", "--output-dir", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    "place", ["spool.jsonl", "driver.lock", "report", "trials/0000", "code", "test_readings.jsonl"]
)
@pytest.mark.parametrize("verb", [["report"], ["sync"], ["promote"], ["runs"], ["confirm"]], ids=str)
def test_a_sweep_with_a_link_out_of_its_folder_is_refused(tmp_path, place, verb, capsys):
    record = made_sweep(tmp_path / "out", ["COMPLETE"])
    target = tmp_path / "elsewhere"
    target.mkdir() if place in ("report", "trials/0000", "code") else target.write_text("precious")
    link = record.folder / place
    if link.is_dir():
        link.rmdir()
    link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target)
    before = sorted(target.iterdir()) if target.is_dir() else target.read_text()
    assert cli.main([*verb, "made", "--output-dir", str(tmp_path / "out")]) == 2
    assert "is a link to" in capsys.readouterr().err
    assert before == (sorted(target.iterdir()) if target.is_dir() else target.read_text())


def test_a_link_inside_a_sweeps_folder_is_fine(tmp_path):
    record = made_sweep(tmp_path, ["COMPLETE"])
    (record.folder / "kept").mkdir()
    (record.folder / "newest").symlink_to("kept")
    assert load_sweep("made", tmp_path).name == "made"


@pytest.mark.parametrize("section", ["exports", "panels", "callbacks"])
@pytest.mark.parametrize("name", ["../..", "/tmp/x", "..", "a b", ""])
def test_a_named_component_is_no_path(tmp_path, section, name):
    composed = copy.deepcopy(demo(()))
    composed.config[section] = {name: {"_target_": "mine.run"}}
    with pytest.raises(ConfigError, match=r"a name may contain letters, digits, '-' and '_'"):
        validate.check_composed(composed)


def test_a_confirmation_names_a_sweep_beside_its_own(tmp_path):
    record = made_sweep(tmp_path, ["COMPLETE"])
    meta = json.loads((record.folder / META).read_text())
    meta["composed"]["config"]["confirm"] = {"sweep": "../other/honest", "sweep_id": "1"}
    (record.folder / META).write_text(json.dumps(meta))
    with pytest.raises(SweepError, match=r"confirm\.sweep is '\.\./other/honest'"):
        load_sweep("made", tmp_path)


def test_the_commit_is_read_without_running_what_a_repository_names(tmp_path, marker, monkeypatch):
    from ferhpo.storage.provenance import git_state

    monkeypatch.chdir(tmp_path)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", "."], check=True)
    (tmp_path / "file").write_text("x")
    subprocess.run(["git", *author, "add", "file"], check=True)
    subprocess.run(["git", *author, "commit", "-qm", "first"], check=True)
    assert git_state()["dirty"] in ("true", "false")
    for key, value in (("core.fsmonitor", f"touch {marker}; false"), ("filter.e.clean", f"touch {marker}; cat")):
        subprocess.run(["git", "config", key, value], check=True)
        (tmp_path / ".git" / "info").mkdir(exist_ok=True)
        (tmp_path / ".git" / "info" / "attributes").write_text("* filter=e\n")
        (tmp_path / "file").write_text(value)
        state = git_state()
        assert (state["dirty"], len(state["commit"])) == ("unknown", 40)
        assert not marker.exists()


NAMES = ["../../etc", "/etc/x", "a/b", "..", ".hidden", "", "a b", "-", "a\nb", "~", "$(id)", "a\\b"]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_sweeps_name_is_one_folder(name):
    composed = copy.deepcopy(demo(()))
    composed.config["name"] = name
    with pytest.raises(ConfigError, match=r"name is (?s:.*); it is used as a folder name"):
        validate.check_composed(composed)


@pytest.mark.parametrize("verb", ["sweep", pytest.param("train", marks=pytest.mark.full)])
def test_no_verb_takes_a_name_that_leads_elsewhere(tmp_path, verb, capsys):
    assert cli.main([verb, "demo", "name=../../etc", f"output_dir={tmp_path / 'out'}"]) == 2
    assert "name is ../../etc; it is used as a folder name" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_confirmations_name_is_one_folder(tmp_path, capsys):
    made_sweep(tmp_path / "out", ["COMPLETE"])
    assert cli.main(["confirm", "made", "--output-dir", str(tmp_path / "out"), "name=../escaped"]) == 2
    assert "name is ../escaped; it is used as a folder name" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["study.jsonl", "spool.jsonl", "trials"])
def test_a_new_sweep_does_not_adopt_the_trials_in_its_folder(tmp_path, name):
    folder = tmp_path / "mlruns" / "demo"
    (folder / name).mkdir(parents=True)
    with pytest.raises(SweepError, match="the trials of another sweep"):
        sweep("demo", [f"output_dir={tmp_path / 'mlruns'}"])
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize("number", ["-1", "1", "99999999999999999999"])
def test_a_trial_that_is_not_there_is_refused(tmp_path, number, capsys):
    made_sweep(tmp_path, ["COMPLETE"])
    assert cli.main(["report", "made", f"--trial={number}", "--output-dir", str(tmp_path)]) == 2
    assert f"--trial is {number}; sweep made has no such trial" in capsys.readouterr().err
    assert cli.main(["evaluate", f"made/{number}", "--output-dir", str(tmp_path)]) == 2


# Every call that would run what a file says, or write where an archive says.
FORBIDDEN = re.compile(
    r"pickle\.loads?\(|cloudpickle|joblib|np\.load\(|allow_pickle|yaml\.(?:load|unsafe_load|full_load)\(|weights_only=False|"
    r"tarfile|unpack_archive|\.extract(?:all)?\(|(?<![\w.])(?:eval|exec)\(|shell=True|os\.system|torch\.hub"
)


def test_no_file_is_loaded_by_a_way_that_runs_code():
    found = [
        f"{path.relative_to(SOURCES)}:{number}: {line.strip()}"
        for path in sorted(SOURCES.rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if (FORBIDDEN.search(line) and "yaml.SafeLoader" not in line)
        or ("torch.load(" in line and "weights_only=True" not in line)
    ]
    harmless = ("which is not", "hub.load, are never", "of the process that started this one")
    assert [line for line in found if not any(text in line for text in harmless)] == []


def test_a_zip_is_read_and_never_unpacked(tmp_path):
    """Members are read into memory one by one; one that climbs out is refused all the same (tests/data/test_bad_data.py)."""
    from ferhpo.data import image_folder
    from tests.fuzz.data_sets import DATA_SETS

    folder = tmp_path / "data"
    folder.mkdir()
    DATA_SETS["image_folder_zip"].make(folder)
    with zipfile.ZipFile(folder / "data.zip", "a") as out:
        out.writestr("train/../../climbed.png", b"x")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FerhpoError, match="a path outside its own folder; nothing was read"):
        image_folder.load(folder / "data.zip", cache_dir=tmp_path / "data")
    made = set(tmp_path.rglob("*")) - set(before)
    assert all("seen" in path.parts for path in made), made


def test_an_edited_sweep_that_is_read_keeps_its_own_folder(tmp_path):
    """What its configuration says of a name or place does not move where its trials are read."""
    record = made_sweep(tmp_path, ["COMPLETE"])
    meta = json.loads((record.folder / META).read_text())
    meta["composed"]["config"]["name"] = "../../etc"
    (record.folder / META).write_text(json.dumps(meta))
    read = load_sweep("made", tmp_path)
    assert read.trial_folder(0).is_relative_to(record.folder)


def listening(process: psutil.Process) -> dict[str, str]:
    """Each address and port on which a process, or one that it started, listens, and who does."""
    found = {}
    for each in [process, *process.children(recursive=True)]:
        with suppress(psutil.Error):
            for place in each.net_connections(kind="inet"):
                if place.status == psutil.CONN_LISTEN:
                    found[f"{place.laddr.ip} {place.laddr.port}"] = each.name()
    return found


LOOPBACK = re.compile(r"(127\.0\.0\.1|::ffff:127\.0\.0\.1|::1) \d+")
START_RAY = """
import sys
from ferhpo.config import ComputeSettings
from ferhpo.driver.ray_start import RayStart
with RayStart(ComputeSettings(num_cpus=1)) as started:
    started.result()
    import ray
    ray.get(ray.remote(lambda: 1).remote())
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.full
def test_a_ray_that_ferhpo_starts_listens_on_this_machine_only():
    with subprocess.Popen([sys.executable, "-c", START_RAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            found = listening(psutil.Process(process.pid))
        finally:
            process.communicate(b"\n", timeout=120)
    assert {"gcs_server", "raylet"} <= set(found.values())
    assert [place for place in found if not LOOPBACK.fullmatch(place)] == []


@pytest.mark.full
def test_the_ui_listens_on_this_machine_only(tmp_path):
    from ferhpo.tracking import TrackingSettings
    from ferhpo.tracking.store import connect

    connect(TrackingSettings(output_dir=tmp_path)).search_experiments()  # makes the store
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ferhpo", "ui", "--output-dir", str(tmp_path), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 120
            while f"127.0.0.1 {port}" not in (found := listening(psutil.Process(process.pid))):
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.5)
            time.sleep(2)
            found = listening(psutil.Process(process.pid))
        finally:
            process.terminate()
    assert [place for place in found if not LOOPBACK.fullmatch(place)] == []


@pytest.mark.full
def test_a_port_that_is_taken_is_said(tmp_path):
    from ferhpo.tracking import TrackingSettings
    from ferhpo.tracking.store import connect

    connect(TrackingSettings(output_dir=tmp_path)).search_experiments()  # makes the store
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "ferhpo", "ui", "--output-dir", str(tmp_path), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"the MLflow server exited; if port {port} is in use, choose another with --port"
    assert "psutil" not in done.stderr
