"""The how-to pages: each of their files works outside the package, as the page says."""

import re
import shlex
from pathlib import Path

import pytest

import ferhpo
from ferhpo import cli
from ferhpo.config.compose import compose
from ferhpo.config.rules import objective_warnings
from ferhpo.config.validate import check_composed
from ferhpo.errors import ConfigError
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.storage.sweep import create_sweep

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


def test_the_commands_of_the_pages_run(mine, monkeypatch):
    monkeypatch.chdir(mine.parent)
    small = ["data.num_train=140", "data.num_val=70", "data.num_test=70"]
    lines = [line for page in PAGES for line in re.findall(r"^    ferhpo (.+)$", page.read_text(), re.MULTILINE)]
    assert len(lines) >= 6
    for line in lines:
        arguments = shlex.split(line)
        assert cli.main([*arguments, *(small if arguments[0] == "train" else [])]) == 0, line


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
