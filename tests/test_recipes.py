"""The five published systems: every recipe costs what its document says, and runs small to its end."""

import numpy as np
import pytest
import ray
import torch
from torchvision.models import get_model

import ferhpo
from ferhpo.config import compose, sweep_files
from ferhpo.models.count import count_keras_parameters, count_macs, count_parameters
from ferhpo.trial import build_network

RECIPES = [name for name in sweep_files() if name != "demo"]
COUNTS = {"Training": 70, "PublicTest": 14, "PrivateTest": 14}
SMALL = ["trainer.max_epochs=1", "trainer.batch_size=32", "tracking=none"]


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    """A fer2013.csv of noise, each emotion with its own brightness."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("faces") / "fer2013.csv"
    rows = ["emotion,pixels,Usage"]
    for usage, count in COUNTS.items():
        for number in range(count):
            pixels = rng.integers(0, 90, 48 * 48) + 20 * (number % 7)
            rows.append(f"{number % 7},{' '.join(map(str, pixels))},{usage}")
    path.write_text("\n".join(rows) + "\n")
    return path


def network_of(name):
    with torch.device("meta"):
        return build_network(compose(name, ["data.path=/nowhere"]).config, 1, 7, 48)


@pytest.mark.parametrize(
    ("name", "count", "parameters"),
    [
        ("vulpe2021_winner", count_parameters, 5_170_503),
        ("vulpe2021_winner", count_keras_parameters, 5_173_959),
        ("alizadeh2016_deep", count_keras_parameters, 4_478_727),
    ],
)
def test_parameters_are_those_of_the_document(name, count, parameters):
    assert count(network_of(name)) == parameters


def test_work_is_that_of_the_documents():
    assert round(count_macs(network_of("vulpe2021_winner"), (1, 48, 48)) / 1e9, 2) == 3.86
    assert round(count_macs(network_of("alizadeh2016_deep"), (1, 48, 48)) / 1e6) == 290


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_small_to_its_end(name, csv, tmp_path):
    composed = compose(name, [f"data.path={csv}"])
    model = composed.config["model"]
    narrow = ["model.width_multiplier=0.05"] if "width_multiplier" in model else []
    narrow += ["model.stem=original"] if "stem" in model else []
    if model.get("weights") == "imagenet":  # which a user's machine downloads
        torch.save(get_model(model["arch"]).state_dict(), tmp_path / "weights.pth")
        narrow.append(f"model.weights={tmp_path / 'weights.pth'}")
    narrow += ["trainer.frozen_epochs=1"] if composed.config["trainer"]["frozen_epochs"] else []
    overrides = [f"data.path={csv}", f"output_dir={tmp_path / 'mlruns'}", *SMALL, *narrow]
    if composed.config["space"]:
        grace = ["scheduler.grace_period=1"] if "grace_period" in composed.config["scheduler"] else []
        few = [] if composed.config["num_trials"] is None else ["num_trials=2"]
        result = ferhpo.sweep(name, [*overrides, *grace, *few, "compute.num_cpus=2", "compute.gpus_per_trial=0"])
    else:
        result = ferhpo.train(name, overrides)
    assert result.finished
    assert not ray.is_initialized(), "the next sweep of this process may want other resources"
    assert set(result.counts) == {"COMPLETE"}
    assert result.best is not None
