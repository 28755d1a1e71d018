"""One's own metric, model, sampler, data set and report panel: one Python file and one YAML each, outside the package."""

import sys
import textwrap

import pytest

import ferhpo
from ferhpo.config.compose import compose
from ferhpo.config.validate import check_composed
from ferhpo.errors import ConfigError
from ferhpo.storage.study import SweepStudy
from ferhpo.storage.sweep import create_sweep

CODE = '''
"""My own components."""

import numpy as np
import optuna
from torch import nn

from ferhpo.data.dataset import TEST, TRAIN, VAL, face_data
from ferhpo.reports.panel import Panel


def kappa(found):
    """Return Cohen's kappa of the predictions."""
    matrix = found.confusion.double()
    total = matrix.sum()
    expected = (matrix.sum(0) * matrix.sum(1)).sum() / total**2
    return (matrix.diagonal().sum() / total - expected) / (1 - expected)


class Linear(nn.Module):
    """One linear layer."""

    def __init__(self, in_channels, num_classes, image_size, bias=True):
        super().__init__()
        self.output = nn.Linear(in_channels * image_size**2, num_classes, bias=bias)

    def forward(self, images):
        return self.output(images.flatten(1))


class Halton(optuna.samplers.QMCSampler):
    """Halton points."""

    def __init__(self, seed=None):
        super().__init__(qmc_type="halton", seed=seed, warn_independent_sampling=False)


def load(num_images=120):
    """Dark and bright squares."""
    rng = np.random.default_rng(0)
    labels = np.arange(num_images) % 2
    images = (rng.integers(0, 60, (num_images, 16, 16)) + 150 * labels[:, None, None]).astype(np.uint8)
    split = np.array([TRAIN, VAL, TEST], np.uint8)[np.arange(num_images) // 2 % 3]
    return face_data(images, labels, split, ("dark", "bright"), source="squares", split_name="published")


def panel(sweep, folder):
    """Say how many trials there are."""
    return Panel("My own panel", f"This sweep has {len(sweep.trials())} trials.")
'''
FILES = {
    "my_parts.py": CODE,
    "model/linear.yaml": """
        # @package _global_
        # One linear layer
        model:
          _target_: my_parts.Linear
          bias: true
        space:
          model:
            bias: {choices: [true, false]}
        """,
    "data/squares.yaml": """
        # Dark and bright squares
        _target_: my_parts.load
        num_images: 120
        """,
    "sampler/halton.yaml": """
        # Halton points
        _target_: my_parts.Halton
        """,
    "squares.yaml": """
        # Everything of one's own
        defaults:
          - config
          - override data: squares
          - override model: linear
          - override sampler: halton
          - override tracking: none
          - _self_
        allowed_targets: [my_parts]
        num_trials: 3
        objective: {metric: val_kappa}
        metrics:
          kappa: {_target_: my_parts.kappa}
        trainer: {max_epochs: 3}
        """,
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder of one's own code and configurations."""
    folder = tmp_path / "mine"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text).lstrip())
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    yield folder
    sys.modules.pop("my_parts", None)


def test_a_training_with_own_data_model_and_metric(mine):
    result = ferhpo.train("squares", config_dir=mine)
    trial = result.best
    assert trial.value == trial.metrics["val_kappa"] > 0.9
    assert result.sweep.objective.metric == "val_kappa"
    leaderboard = ferhpo.report("squares").parent / "leaderboard.csv"
    assert "val_kappa" in leaderboard.read_text()


def test_own_sampler_draws_the_same_after_a_resume(mine, tmp_path):
    composed = compose("squares", ["space.optim={lr: {low: 0.001, high: 0.1, log: true}}"], mine)
    check_composed(composed)
    sweep = create_sweep(composed)
    samples = []
    for _ in range(3):  # opened again for each: a resume
        study = SweepStudy(sweep.folder, sweep.space(), composed.config["sampler"], 0, sweep.objective)
        samples.append(study.ask().sample)
        study.close()
    assert len({sample["optim.lr"] for sample in samples}) == 3


def test_own_panel_is_on_the_page(mine, capsys):
    ferhpo.train("squares", config_dir=mine)
    page = ferhpo.report("squares", panels=["my_parts"])
    assert "This sweep has 1 trials." in page.read_text()
    with pytest.raises(ConfigError, match="--panel is my_part; there is no module my_part"):
        ferhpo.report("squares", panels=["my_part"])


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["metrics.kappa._target_=my_parts.kapa"], "metrics.kappa._target_ is my_parts.kapa, which cannot be imported"),
        (["objective.metric=val_kapa"], "objective.metric is val_kapa; did you mean val_kappa?"),
        (["allowed_targets=[]"], "metrics.kappa._target_ is my_parts.kappa; only names under"),
    ],
)
def test_a_fault_of_an_own_metric_is_found_by_check(mine, overrides, fault):
    with pytest.raises(ConfigError) as caught:
        check_composed(compose("squares", overrides, mine))
    assert any(found.startswith(fault) for found in caught.value.faults), caught.value.faults
