"""The how-to pages: each of their files works outside the package, as the page says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import ferhpo
from ferhpo import cli
from ferhpo.cli.new import KINDS, write
from ferhpo.components import own_code
from ferhpo.components.build import locate
from ferhpo.config.compose import compose
from ferhpo.config.rules import objective_warnings
from ferhpo.config.validate import check_composed
from ferhpo.errors import ConfigError, TrackingError
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.storage.sweep import create_sweep
from ferhpo.tracking.store import connect

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted((DOCS / "how-to").glob("add-*.md"))
BLOCK = re.compile(r"^```(?:python|yaml)\n# (\S+\.(?:py|yaml))\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SQUARES = """
# Every component of one's own
defaults:
  - config
  - override data: squares
  - override model: linear
  - override sampler: halton
  - override tracking: none
  - _self_
num_trials: 3
objective: {metric: val_brier, mode: min}
metrics:
  brier: {_target_: my_metrics.brier}
  kappa: true
trainer: {max_epochs: 3}
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with every file that the pages show."""
    folder = tmp_path / "ferhpo.d"
    names = [name for page in PAGES for name, _ in BLOCK.findall(page.read_text())]
    assert len(names) == len(set(names)) == 9, names
    for page in PAGES:
        for name, text in BLOCK.findall(page.read_text()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    (folder / "squares.yaml").write_text(SQUARES)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.full
def test_a_training_with_own_data_model_and_metric(mine):
    result = ferhpo.train("squares")
    trial = result.best
    assert trial.value == trial.metrics["val_brier"] == min(row["val_brier"] for row in trial.epochs) < 0.2
    assert trial.metrics["val_kappa"] > 0.9
    assert "val_brier" in ferhpo.report("squares").read_text()


def test_an_own_sampler_continues_after_a_resume(mine):
    composed = compose("squares", ["space.optim={lr: {low: 0.001, high: 0.1, log: true}}"], mine)
    check_composed(composed)
    sweep = create_sweep(composed)
    samples = []
    for _ in range(3):  # opened again for each: a resume
        study = SweepStudy(sweep.folder, sweep.space(), composed.config["sampler"], 0, sweep.objective)
        samples.append(study.ask().sample["optim.lr"])
        study.close()
    assert len(set(samples)) == 3, "three points of one sequence"


@pytest.mark.full
def test_an_own_panel_is_on_the_page(mine):
    ferhpo.train("squares")
    assert "Slowest trials" in ferhpo.report("squares", panels=["my_panel"]).read_text()
    with pytest.raises(ConfigError, match="--panel is my_panle; there is no module my_panle"):
        ferhpo.report("squares", panels=["my_panle"])
    (mine / "my_broken.py").write_text("def panel(sweep, folder):\n    return sweep.trails()\n")
    page = ferhpo.report("squares", panels=["my_broken"]).read_text()
    assert "Panel my_broken: AttributeError" in page
    (mine / "my_other.py").write_text("def panel(sweep, folder):\n    return 'text'\n")
    assert "it must return a ferhpo.reports.panel.Panel" in ferhpo.report("squares", panels=["my_other"]).read_text()


@pytest.mark.full
def test_the_commands_of_the_pages_run(mine, monkeypatch):
    monkeypatch.chdir(mine.parent)
    small = ["data.num_train=140", "data.num_val=70", "data.num_test=70"]
    lines = [line for page in PAGES for line in re.findall(r"^    ferhpo (.+)$", page.read_text(), re.MULTILINE)]
    assert len(lines) >= 6
    for line in lines:
        arguments = shlex.split(line)
        assert cli.main([*arguments, *(small if arguments[0] == "train" else [])]) == 0, line


def test_the_page_of_all_kinds_is_followed_word_by_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "extending.md").read_text()
    for name, content in BLOCK.findall(text):
        (tmp_path / "ferhpo.d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ferhpo.d" / name).write_text(content)
    small = ["data.num_train=140", "data.num_val=70", "data.num_test=70", "tracking=none"]
    lines = re.findall(r"^    ferhpo (.+)$", text, re.MULTILINE)
    assert len(lines) == 5
    for line in lines:
        arguments = shlex.split(line)
        assert cli.main([*arguments, *(small if arguments[0] == "train" else [])]) == 0, line
    kinds = set(re.findall(r"^\| [a-z ]+ \| `(\w+)` \| `", text, re.MULTILINE))
    assert kinds == set(KINDS), "the table has every kind"


ALL_KINDS = [
    "model=mine_model", "augment=mine_augment", "loss=mine_loss", "metrics.mine_metric=true", "sampler=mine_sampler",
    "scheduler=mine_scheduler", "lr_schedule=mine_lr_schedule", "callbacks.mine_callback=true", "panels.mine_panel=true",
    "exports.mine_export=true",
]  # fmt: skip


@pytest.fixture
def starters(tmp_path, monkeypatch):
    """Every starting point of `ferhpo new`, as the command writes it."""
    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        write(kind, f"mine_{kind}", tmp_path / "ferhpo.d")
    return tmp_path / "ferhpo.d"


@pytest.mark.full
def test_every_starting_point_passes_check_and_trains(starters, tmp_path):
    faces = tmp_path / "faces"
    faces.mkdir()
    rows = ["file,emotion"]
    for number in range(60):
        Image.new("L", (20, 20), 3 * number).save(faces / f"{number}.png")
        rows.append(f"{number}.png,{('sad', 'happy')[number % 2]}")
    (faces / "labels.csv").write_text("\n".join(rows) + "\n")
    small = ["data.num_train=70", "data.num_val=35", "data.num_test=0", "trainer.max_epochs=3", "trainer.batch_size=35"]
    assert ferhpo.check("demo", [*ALL_KINDS, "space.optim=null"]) == []
    result = ferhpo.train("demo", [*ALL_KINDS, *small, "tracking.uri=none", "objective.metric=val_mine_metric"])
    assert result.best.metrics["val_mine_metric"] > 0
    assert set(result.sweep.meta["code"]) == {f"mine_{kind}.py" for kind in KINDS if kind != "data"}
    assert (result.sweep.folder / "code" / "mine_model.py").read_text() == (starters / "mine_model.py").read_text()
    assert "Slowest trials" in ferhpo.report("demo").read_text()
    assert ferhpo.describe_data("mine_data", [f"path={faces}"])["num_images"] == 60


ANSWER = """
import sys
sys.modules["ferhpo"] = None
import mlflow, numpy
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/ferhpo-own/1")
print(model.predict(numpy.zeros((2, 30, 40, 3), numpy.uint8)).shape)
"""


@pytest.mark.full
def test_an_own_network_goes_through_ray_to_a_registered_model_that_answers_without_ferhpo(starters, tmp_path):
    small = ["data.num_train=70", "data.num_val=35", "data.num_test=0", "trainer.max_epochs=2", "trainer.batch_size=35"]
    small += ["num_trials=2", "scheduler=none", "compute.num_cpus=2", "name=own", "tracking.report=false"]
    result = ferhpo.sweep("demo", ["model=mine_model", "loss=mine_loss", "exports.mine_export=true", *small])
    assert result.registered == ("ferhpo-own", 1), result.warnings
    scores = ferhpo.evaluate("models:/ferhpo-own/1")
    assert scores.scores.all.acc == pytest.approx(result.best.value, abs=1e-6)
    client = connect(result.sweep.tracking)
    (parent,) = [run for run in client.search_runs(["1"]) if run.info.run_name == "own"]
    assert {file.path for file in client.list_artifacts(parent.info.run_id, "code")} >= {"code/mine_model.py"}
    assert len(parent.data.tags["ferhpo.code.mine_model.py"]) == 64
    exported = result.sweep.trial_folder(result.best.number) / "model" / "exports" / "mine_export" / "network.pt2"
    assert exported.stat().st_size > 0
    own_code.forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(starters)  # a folder without ferhpo.d
        with pytest.raises(
            TrackingError,
            match=r"_target_ is mine_model\.MineModel; it must be .* there is no ferhpo\.d/ in the current folder",
        ):
            ferhpo.evaluate("models:/ferhpo-own/1", output_dir=tmp_path / "mlruns")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", ANSWER, result.sweep.tracking.store_uri]
    answer = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert answer.stdout.strip() == "(2, 7)", answer.stderr


def test_a_resume_says_which_own_code_changed(starters):
    small = ["data.num_train=70", "data.num_val=35", "data.num_test=0", "trainer.max_epochs=1", "tracking=none"]
    ferhpo.train("demo", ["model=mine_model", *small])
    own_code.forget()
    with (starters / "mine_model.py").open("a") as file:
        file.write("# changed\n")
    result = ferhpo.train("demo", resume=True)
    assert any("mine_model.py changed" in warning for warning in result.warnings), result.warnings


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("nn.Linear(in_channels, num_classes)", "nn.Linear(in_channels, 5)",
         "with images [2, 1, 48, 48] returned float32 [2, 5]; it must return logits, float [N, num_classes]"),
        ("return logits", "return logits.detach()", "returned logits without gradients"),
        ("return logits", "return {'logits': logits}", "returned dict; it must return logits"),
        ("return logits", "return logits.shapes", "raised AttributeError: 'Tensor' object has no attribute 'shapes'"),
        ("self.output(self.features(images))", "self.output(self.features(images).squeeze(0))", "with one image returned"),
        ("from torch import Tensor, nn", "import ferhpo.models.layers\nfrom torch import Tensor, nn",
         "cannot be exported to the registry: mine_model, line"),
    ],
)  # fmt: skip
def test_check_says_what_a_network_lacks(starters, old, new, fault):
    file = starters / "mine_model.py"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError) as caught:
        ferhpo.check("demo", ["model=mine_model", "space.optim=null"])
    assert any(found.startswith("model: mine_model.MineModel") and fault in found for found in caught.value.faults)


@pytest.mark.parametrize(
    ("kind", "old", "new", "fault"),
    [
        ("loss", "return losses.sum(1).mean()", "return losses", "returned float32 [2, 7]; it must return a scalar"),
        ("loss", "self.gamma = gamma", "self.gamma = nn.Parameter(weight)", "loss: mine_loss.MineLoss"),
        ("augment", "return super().__call__(images, noise) ** power", "return super().__call__(images, noise)[:, :, :5]",
         "it must return images, float [N, C, size, size]"),
        ("lr_schedule", 'every="step")', 'every="step").scheduler', "returned LambdaLR; it must return a ferhpo.training"),
        ("metric", "return float(", "return (", None),
        ("metric", "found.probabilities -", "found.probs -", "raised AttributeError: 'Evaluation' object has no attribute"),
        ("callback", "self.every = every", "self.every = every / 0", "raised ZeroDivisionError"),
        ("panel", "def mine_panel", "def other", "cannot be imported"),
    ],
)  # fmt: skip
def test_check_says_what_the_others_lack(starters, kind, old, new, fault):
    file = starters / f"mine_{kind}.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    used = next(text for text in ALL_KINDS if f"mine_{kind}" in text)
    overrides = [used, "space.optim=null"]
    if fault is None:
        assert ferhpo.check("demo", overrides) == []
        return
    with pytest.raises(ConfigError) as caught:
        ferhpo.check("demo", overrides)
    assert any(fault in found for found in caught.value.faults), caught.value.faults


def test_a_reader_that_returns_something_else_is_said_by_check_and_by_a_sweep(starters, tmp_path):
    file = starters / "mine_data.py"
    file.write_text(file.read_text().replace("    options = ", "    return 5\n    options = "))
    overrides = ["data=mine_data", f"data.path={tmp_path}", "tracking=none"]
    with pytest.raises(ConfigError, match=r"data: mine_data\.mine_data returned int; it must return a FaceData"):
        ferhpo.check("demo", overrides)
    with pytest.raises(ConfigError, match=r"data: mine_data\.mine_data returned int; it must return a FaceData"):
        ferhpo.train("demo", overrides)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["modle", "x"], "new: unknown kind 'modle'; did you mean model?"),
        (
            ["model", "My-Net"],
            "new model: the name is 'My-Net'; it must be a Python name in lowercase, e.g. my_network",
        ),
        (["model", "json"], "new model: the name is json, which is also an installed Python module; choose another"),
        (["model", "mine_model"], "exists already; choose another name"),
        (["network", "../x"], "it must be a Python name in lowercase"),
    ],
)
def test_new_refuses_a_name_that_would_not_work(starters, words, message, capsys):
    before = sorted(starters.rglob("*"))
    assert cli.main(["new", *words]) == 2
    assert message in capsys.readouterr().err
    assert sorted(starters.rglob("*")) == before


def test_workers_get_own_code_as_it_was(tmp_path):
    (tmp_path / "mine.py").write_text("from mine_too import value\ndef load(): return value\n")
    (tmp_path / "mine_too.py").write_text("value = 1\n")
    own_code.trust_folder(tmp_path)
    assert locate("mine.load", "data")() == 1
    sent = own_code.used()
    assert set(sent.files) == {"mine.py", "mine_too.py"}
    own_code.forget()
    (tmp_path / "mine_too.py").write_text("value = 2\n")
    own_code.install(sent)  # as in a worker, which may be on another machine
    own_code.install(sent)
    assert locate("mine.load", "data")() == 1


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["metrics.brier._target_=my_metrics.brir"], "metrics.brier._target_ is my_metrics.brir, which cannot be imported"),
        (["objective.metric=val_brir"], "objective.metric is val_brir; did you mean val_brier?"),
        (["metrics=3"], "metrics is 3; it must be a section"),
    ],
)  # fmt: skip
def test_a_fault_of_an_own_metric_is_found_by_check(mine, overrides, fault):
    with pytest.raises(ConfigError) as caught:
        check_composed(compose("squares", overrides, mine))
    assert any(found.startswith(fault) for found in caught.value.faults), caught.value.faults


@pytest.mark.parametrize(
    ("overrides", "mode", "warned"),
    [
        (["objective.metric=val_ece"], "min", False),
        (["objective.metric=val_loss"], "min", False),
        (["objective.metric=val_kappa"], "max", False),
        (["objective.metric=val_loss", "objective.mode=max"], "max", True),
        (["objective.metric=val_macro_auc", "objective.mode=min"], "min", True),
    ],
)
def test_an_objective_has_its_direction(overrides, mode, warned):
    composed = compose("demo", overrides)
    assert composed.config["objective"]["mode"] == mode
    warnings = objective_warnings(composed.config)
    assert [f"values of {composed.config['objective']['metric']} are better" in warning for warning in warnings] == [
        True
    ] * warned
