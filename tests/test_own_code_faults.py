"""Faults of own code: each is found before a trial starts, or named in the trial's reason, without a traceback."""

import json
import re

import numpy as np
import pytest

import ferhpo
from ferhpo import cli
from ferhpo.components import own_code
from ferhpo.components.build import locate
from ferhpo.components.bundle import BundleError, bundle
from ferhpo.data.dataset import TRAIN, face_data
from ferhpo.errors import ConfigError
from ferhpo.scoring.metrics import CHOSEN
from tests.conftest import TINY

READER = """
import numpy as np
from ferhpo.data.dataset import TRAIN, VAL, face_data

def read():
    labels = np.arange(40) % 2
    images = np.repeat(labels[:, None, None], 16, 1).repeat(16, 2).astype(np.uint8)
    split = np.array([TRAIN, VAL], np.uint8)[np.arange(40) // 2 % 2]
    names, targets, groups = ("dark", "bright"), None, None
    {broken}
    return face_data(images, labels, split, names, "mine", "published", targets=targets, groups=groups)
"""
BROKEN = [
    ("labels = labels + 1", "labels is int64 [40] with values 1..2; it must be in 0..1, because there are 2 class_names"),
    ("labels = labels - 1", "labels is int64 [40] with values -1..0; it must be in 0..1"),
    ("labels = labels[:30]", "labels is int64 [30]; it must be int64 [40]"),
    ("labels = list(labels)", "labels is list; it must be int64 [40]"),
    ("images = images / 255", "images is float64 [40, 16, 16]; it must be uint8 [N, H, H] (gray) or [N, H, H, 3]"),
    ("images = images[:, :8]", "images is uint8 [40, 8, 16]; it must be uint8 [N, H, H]"),
    ("images = images[:, None]", "images is uint8 [40, 1, 16, 16]; it must be uint8 [N, H, H]"),
    ("images = images[0]", "images is uint8 [16, 16]; it must be uint8 [N, H, H]"),
    ("images, labels, split = images[:0], labels[:0], split[:0]", "images is empty; it must contain at least one image"),
    ("split = split * 7", "split is uint8 [40] with the value 7; it must be TRAIN (0), VAL (1), TEST (2) or UNUSED (3)"),
    ("split = split * 0", "split has no val image; a training needs at least one"),
    ("split = split * 0 + 2", "split has no train image; a training needs at least one"),
    ("targets = np.eye(3, dtype=np.float32)[labels]", "targets is float32 [40, 3]; it must be float32 [40, 2]"),
    ("targets = 2 * np.eye(2, dtype=np.float32)[labels]", "targets is float32 [40, 2] with values 0..2; each row must"),
    ("names = ('dark', 'dark')", "class_names is ('dark', 'dark'); it must be a tuple of different names"),
    ("names = (0, 1)", "class_names is (0, 1); it must be a tuple of different names"),
    ("groups = np.arange(40.0)", "groups is float64 [40]; it must be int64 [40]"),
    ("{}['oops']", "raised KeyError: 'oops' (my_reader.py, line 10)"),
    ("raise AssertionError", "raised AssertionError (my_reader.py, line 10)"),
    ("read.nothing", "raised AttributeError: 'function' object has no attribute 'nothing' (my_reader.py, line 10)"),
]  # fmt: skip


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """An empty folder for own code, in the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "ferhpo.d"
    folder.mkdir()

    def write(name, text):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return write


@pytest.mark.parametrize(
    ("broken", "fault"), [*BROKEN[:2], *(pytest.param(*case, marks=pytest.mark.full) for case in BROKEN[2:])]
)
def test_a_broken_reader_is_one_message_of_every_verb(mine, broken, fault, capsys):
    mine("my_reader.py", READER.format(broken=broken))
    mine("data/mine.yaml", "_target_: my_reader.read\n")
    for verb, name in (("check", "demo"), ("plan", "demo"), ("train", "demo"), ("data", "mine")):
        overrides = ["data=mine"] if verb != "data" else []
        assert cli.main([verb, name, *overrides]) == 2
        said = capsys.readouterr().err
        assert "data: my_reader.read" in said, (verb, said)
        assert said.count(fault) == 1, (verb, said)
        assert "Traceback" not in said, (verb, said)


@pytest.mark.full
def test_a_sweep_says_too_what_a_reader_raised(mine, capsys):
    mine("my_reader.py", READER.format(broken="{}['oops']"))
    mine("data/mine.yaml", "_target_: my_reader.read\n")
    assert cli.main(["sweep", "demo", "data=mine", "tracking=none"]) == 2
    assert "data: my_reader.read raised KeyError: 'oops' (my_reader.py, line 10)" in capsys.readouterr().err


def test_a_reader_that_makes_its_own_face_data_object_is_checked_too(mine):
    text = (
        READER.format(broken="pass").replace("face_data(images", "FaceData(images").replace(", face_data", ", FaceData")
    )
    text = text.replace('names, "mine"', 'names, "0" * 64, "mine"').replace(
        "targets=targets, groups=groups", "groups=groups"
    )
    text = text.replace("labels, split, names", "labels + 5, None, split, names")
    mine("my_reader.py", text)
    mine("data/mine.yaml", "_target_: my_reader.read\n")
    with pytest.raises(ConfigError, match=r"returned a FaceData in which labels is int64 \[40\] with values 5\.\.6"):
        ferhpo.check("demo", ["data=mine"])


def test_a_test_set_of_an_own_reader_needs_no_training_images():
    data = face_data(np.zeros((2, 8, 8), np.uint8), np.arange(2), np.full(2, 2, np.uint8), ["a", "b"], "x", "published")
    assert not (data.split == TRAIN).any()
    assert data.class_names == ("a", "b")


@pytest.mark.parametrize("source", ["1 / 0", "import sys; sys.exit(3)", "undefined", "raise KeyError('a')"])
def test_a_module_that_fails_when_it_is_imported_is_a_fault(mine, source):
    mine("my_model.py", f"\n{source}\nclass Net: pass\n")
    with pytest.raises(
        ValueError, match=r"^_target_ is my_model\.Net, which cannot be imported \(\w+: .*my_model\.py, line 2"
    ):
        locate("my_model.Net", "model")


SAMPLER = """
import optuna

class Broken(optuna.samplers.RandomSampler):
    def sample_independent(self, *args, **kwargs):
        return {}["oops"]
"""


def test_an_exception_of_own_code_in_the_driver_is_one_line(mine, capsys):
    mine("my_sampler.py", SAMPLER)
    overrides = ["sampler={_target_: my_sampler.Broken}", "tracking=none", *TINY]
    mine("sampler/broken.yaml", "_target_: my_sampler.Broken\n")
    overrides[0] = "sampler=broken"
    assert cli.main(["sweep", "demo", *overrides]) == 2
    said = capsys.readouterr().err
    assert "sweep: own code raised KeyError: 'oops' (my_sampler.py, line 6); correct the file" in said
    assert "Traceback" not in said


CALLBACK = """
import pytorch_lightning as pl

class Broken(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        {}["oops"]
"""


def test_the_reason_of_a_trial_starts_with_the_exception_and_its_place(mine):
    mine("my_callback.py", CALLBACK)
    mine("callbacks/broken.yaml", "_target_: my_callback.Broken\n")
    result = ferhpo.train("demo", ["callbacks.broken=true", "tracking=none", *TINY])
    (trial,) = result.sweep.trials()
    assert trial.reason.startswith("KeyError: 'oops' (my_callback.py, line 6)\nTraceback")


@pytest.mark.parametrize(
    ("target", "role", "fault"),
    [
        ("torch.nn.Relu", "layer", "has no attribute 'Relu'); did you mean torch.nn.ReLU?"),
        ("my_model.Nett", "model", "has no attribute 'Nett'); did you mean my_model.Net?"),
        ("my_model.helper", "model", "_target_ is my_model.helper, a function; it must be a subclass of torch.nn.Module"),
        ("my_model.Other", "model", "_target_ is my_model.Other, a class; it must be a subclass of torch.nn.Module"),
        ("my_modle.Net", "model", "there is no my_modle.py in {}/ferhpo.d; did you mean my_model?"),
        ("unrelated.Net", "model", "there is no unrelated.py in {}/ferhpo.d; add the file, or correct the name"),
        ("mlflow.Net", "model", "add allowed_targets=[mlflow] to the command line if you trust it (or --allow mlflow)"),
    ],
)  # fmt: skip
def test_a_target_that_is_not_there_says_what_to_do(mine, tmp_path, target, role, fault):
    mine("my_model.py", "from torch import nn\nclass Net(nn.Module): pass\nclass Other: pass\ndef helper(): pass\n")
    with pytest.raises(ValueError, match=re.escape(fault.format(tmp_path))) as caught:
        locate(target, role)
    assert ("allow" in str(caught.value)) == ("allow" in fault)


def test_without_a_folder_a_missing_module_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_code.forget()
    with pytest.raises(ValueError, match=r"there is no ferhpo\.d/ in the current .* \(searched for my_model\.py\)"):
        locate("my_model.Net", "model")


NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, num_classes, image_size):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))

    def forward(self, images):
        return self.layers(images)
"""
MEAN = """
def mean(found):
    return {}
"""


@pytest.fixture
def written(mine, tmp_path):
    """A network and two metrics of one file."""
    mine("my_net.py", NET)
    mine("model/my_net.yaml", "_target_: my_net.Net\n")
    mine("my_metric.py", MEAN.format("0.5"))
    for name in ("mean", "mean_too"):
        mine(f"metrics/{name}.yaml", "_target_: my_metric.mean\n")
    return tmp_path / "ferhpo.d"


SMALL = ["data.num_train=70", "data.num_val=35", "data.num_test=7", "trainer.max_epochs=2", "tracking=none"]


def test_a_resume_says_once_where_a_missing_file_was_searched_and_where_its_copy_is(written, tmp_path):
    ferhpo.train("demo", ["model=my_net", "metrics.mean=true", "metrics.mean_too=true", "name=own", *SMALL])
    own_code.forget()
    (written / "my_metric.py").rename(written / "renamed.py")
    with pytest.raises(ConfigError) as caught:
        ferhpo.train("own", resume=True)
    (fault,) = caught.value.faults
    assert fault.startswith("metrics.mean._target_ is my_metric.mean; ")
    assert f"there is no my_metric.py in {written}; " in fault
    assert fault.endswith(f"; the sweep has a copy: {tmp_path}/mlruns/own/code/my_metric.py")
    assert "allow" not in fault
    assert str(caught.value).startswith("own: ")
    written.rename(tmp_path / "elsewhere")
    own_code.forget()
    with pytest.raises(
        ConfigError, match=r"^own: model\._target_ is my_net\.Net; .*there is no ferhpo\.d/ in"
    ) as caught:
        ferhpo.train("own", resume=True)
    assert len(caught.value.faults) == 1


def test_another_folder_is_said_where_an_unknown_option_may_come_from(written, tmp_path, monkeypatch):
    with pytest.raises(ConfigError) as here:
        ferhpo.check("demo", ["model=pixmix"])
    monkeypatch.chdir(tmp_path.parent)
    own_code.forget()
    with pytest.raises(ConfigError) as elsewhere:
        ferhpo.check("demo", ["model=pixmix"])
    with pytest.raises(ConfigError) as named:
        ferhpo.check("demo", ["model=pixmix"], written)
    note = (
        "; there is no ferhpo.d/ in the current folder; change to the folder that has it, or name it with --config-dir"
    )
    assert [note in str(caught.value) for caught in (here, elsewhere, named)] == [False, True, False]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("model", "cnn"),
        ("metric", "acc"),
        ("metric", "kappa"),
        ("sampler", "tpe"),
        ("data", "fer2013"),
        ("loss", "focal"),
    ],
)
def test_new_refuses_a_name_of_ferhpo(mine, tmp_path, kind, name, capsys):
    taken = name != "focal"
    assert cli.main(["new", kind, name]) == (2 if taken else 0)
    said = capsys.readouterr().err
    assert (f"the name is {name}, which ferhpo's own" in said) == taken
    assert (tmp_path / "ferhpo.d" / f"{name}.py").exists() != taken


def test_own_metrics_are_suggested_and_switched_on_by_the_objective(written):
    with pytest.raises(ConfigError, match=r"metrics\.maen is true; ferhpo has no metric maen; did you mean mean\?"):
        ferhpo.check("demo", ["metrics.maen=true"])
    with pytest.raises(ConfigError, match=r"objective\.metric is val_maen; did you mean val_mean\?"):
        ferhpo.check("demo", ["objective.metric=val_maen"])
    result = ferhpo.train("demo", ["objective.metric=val_mean", *SMALL])
    assert result.best.value == 0.5
    assert set(result.sweep.config["metrics"]) == {"mean"}


def test_a_callback_without_a_file_suggests_another(mine):
    mine("callbacks/log_norm.yaml", "_target_: my_callback.Log\n")
    with pytest.raises(ConfigError, match=r"there is no callbacks/log_nrom\.yaml in .*did you mean log_norm\?"):
        ferhpo.check("demo", ["callbacks.log_nrom=true"])


def test_list_shows_the_named_components(written, capsys):
    assert cli.main(["list"]) == 0
    shown = capsys.readouterr().out
    for text in ("metrics\n", "kappa", "mean_too", "callbacks\n", "panels\n", "exports\n", "`ferhpo new export NAME`"):
        assert text in shown, text
    assert cli.main(["list", "metric", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["metrics"]) == {*CHOSEN, "mean", "mean_too"}


NAN = "import numpy as np\n\ndef mean(found):\n    return {}\n"


@pytest.mark.full
def test_an_objective_that_is_not_a_number_is_the_reason_of_the_trial(written):
    value = "np.mean([]) if len(found.labels) != 14 else 0.5"  # not in check
    mine = written / "my_metric.py"
    mine.write_text(NAN.format(value))
    result = ferhpo.train("demo", ["objective.metric=val_mean", *SMALL])
    (trial,) = result.sweep.trials()
    assert trial.state == "FAILED"
    assert trial.reason.startswith("metrics.mean returned nan at epoch 1, and no later epoch has a finite number")
    mine.write_text(NAN.format(value.replace("np.mean([])", "float('inf')")))
    own_code.forget()
    result = ferhpo.train("demo", ["objective.metric=val_mean", "data.folds=2", "name=folds", *SMALL])
    (trial,) = result.sweep.trials()
    assert trial.reason.startswith("data.fold=0: metrics.mean returned inf at epoch 1")


@pytest.mark.full
def test_another_metric_that_is_not_a_number_is_one_warning(written, caplog, capfd):
    (written / "my_metric.py").write_text(NAN.format("np.mean([]) if len(found.labels) != 14 else 0.5"))
    small = ["num_trials=3", "compute.num_cpus=2", "tracking.report=false", *SMALL]
    result = ferhpo.sweep(
        "demo", ["model=my_net", "space={optim: {lr: {low: 0.001, high: 0.1}}}", "metrics.mean=true", *small]
    )
    assert [trial.state for trial in result.sweep.trials()].count("FAILED") == 0
    warned = [record.getMessage() for record in caplog.records if "returned nan" in record.getMessage()]
    assert len(warned) == 1
    assert "metrics.mean returned nan at epoch 1" in warned[0]
    assert "RuntimeWarning" not in "".join(capfd.readouterr())


@pytest.mark.full
def test_asha_does_not_compare_what_is_not_a_number(written, capfd):
    (written / "my_metric.py").write_text(NAN.format("np.mean([]) if len(found.labels) != 14 else 0.5"))
    small = [
        "num_trials=3",
        "compute.num_cpus=2",
        "scheduler=asha",
        "tracking.report=false",
        *SMALL,
        "trainer.max_epochs=3",
    ]
    small += ["compute.stop_after_failures=null", "objective.metric=val_mean", "scheduler.grace_period=1"]
    result = ferhpo.sweep("demo", ["model=my_net", "space={optim: {lr: {low: 0.001, high: 0.1}}}", *small])
    assert {trial.reason.partition(",")[0] for trial in result.sweep.trials()} == {
        "metrics.mean returned nan at epoch 1"
    }
    assert "RuntimeWarning" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("value", ["'0.5'", "float('nan')", "float('inf')", "[0.5, 0.6]", "None"])
def test_check_refuses_a_metric_that_returns_no_number(written, value):
    (written / "my_metric.py").write_text(MEAN.format(value))
    with pytest.raises(
        ConfigError, match=r"metrics\.mean: my_metric\.mean returned .*; it must return one finite number"
    ):
        ferhpo.check("demo", ["metrics.mean=true"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("_target_: my_net.Net\nwidth: 3\n", "model.width matches no argument of my_net.Net; it has no arguments to set; remove"),
        ("width: 3\n", "model has no _target_; add one to model/my_net.yaml, the dotted name of a class or function, e.g. "),
        ("_target_: my_net.Small\n", "got an unexpected keyword argument 'image_size'; ferhpo passes in_channels, "
         "num_classes, image_size and the keys of its section, which it must take"),
        ("_target_: my_net.Wide\n", "model.width is not set, but my_net.Wide requires it (ferhpo passes in_channels, "
         "num_classes, image_size and the keys of its section); add model.width=..."),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_have_a_remedy(written, text, fault):
    small = NET.replace("Net", "Small").replace(", image_size)", ")").replace("image_size**2", "48**2")
    wide = NET.replace("Net", "Wide").replace("image_size)", "image_size, width)")
    (written / "my_net.py").write_text(NET + small + wide)
    (written / "model" / "my_net.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(fault)):
        ferhpo.check("demo", ["model=my_net"])


def test_a_renamed_import_is_copied_into_a_model(mine, tmp_path):
    mine("my_layers.py", "from ferhpo.models.layers import make_norm as block\n\n\nclass Layer:\n    made = 1\n")
    mine("my_parts.py", "from my_layers import (\n    Layer as Part,\n)\n\n\nclass Whole(Part):\n    pass\n")
    own_code.trust_folder(tmp_path / "ferhpo.d")
    names = {}
    exec(bundle(["my_parts"]), names)
    assert names["Whole"].__mro__[1] is names["Layer"]
    assert names["block"] is names["make_norm"]
    mine("my_clash.py", "from my_parts import Whole as Layer\n")
    with pytest.raises(BundleError, match="both define Layer; rename one"):
        bundle(["my_clash"])
    mine("my_module.py", "import my_layers as layers\n")
    with pytest.raises(
        BundleError, match=r"line 1: write `from my_layers import name` at .*, not `import my_layers as layers`"
    ):
        bundle(["my_module"])


PANEL = "from ferhpo.reports.panel import Panel\n\n\ndef {}(sweep, folder):\n    return Panel('Mine', 'text of mine')\n"


@pytest.mark.full
def test_a_panel_is_found_by_the_name_of_its_module(written):
    ferhpo.train("demo", SMALL)
    for name in ("my_panel", "panel"):
        (written / "my_panel.py").write_text(PANEL.format(name))
        own_code.forget()
        assert "text of mine" in ferhpo.report("demo", panels=["my_panel"]).read_text()
    (written / "my_panel.py").write_text(PANEL.format("other"))
    own_code.forget()
    with pytest.raises(ConfigError, match="the module must have a function my_panel, or panel"):
        ferhpo.report("demo", panels=["my_panel"])
    (written / "my_panel.py").write_text("1 / 0\n")
    own_code.forget()
    with pytest.raises(ConfigError, match=r"which raised ZeroDivisionError: division by zero \(my_panel\.py, line 1\)"):
        ferhpo.report("demo", panels=["my_panel"])


def test_a_failed_trial_is_shown_without_stray_spaces(mine, capsys):
    mine("my_callback.py", CALLBACK)
    mine("callbacks/broken.yaml", "_target_: my_callback.Broken\n")
    cli.main(["train", "demo", "callbacks.broken=true", *SMALL])
    assert "trial    0 failed: KeyError: 'oops' (my_callback.py, line 6)" in capsys.readouterr().out
