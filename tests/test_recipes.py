"""The five published systems: every recipe costs what its document says, and runs small to its end."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model

import ferhpo
from ferhpo.config import ComputeSettings
from ferhpo.config.compose import compose
from ferhpo.config.files import sweep_files
from ferhpo.config.folds import num_reports
from ferhpo.models.count import count_keras_parameters, count_macs, count_parameters
from ferhpo.trial.run import build_network

RECIPES = [name for name in sweep_files() if name != "demo"]
COUNTS = {"Training": 70, "PublicTest": 14, "PrivateTest": 14}
SMALL = ["trainer.max_epochs=1", "trainer.batch_size=32", "tracking=none"]


@pytest.fixture(scope="module", autouse=True)
def ray_for_all(warm):
    """One Ray for the file: each sweep would start its own."""
    yield
    from ferhpo.driver import ray_cluster

    ray_cluster.stop_ray()


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


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """CK+ as folders of 48x48, and AffectNet in colour with a labels CSV that doubts every fifth image; of noise."""
    rng = np.random.default_rng(1)
    ckplus, affectnet = tmp_path_factory.mktemp("faces") / "CK48", tmp_path_factory.mktemp("faces") / "AffectNet"
    emotions = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
    rows = ["file,label,pseudo_label"]
    for number in range(56):
        emotion, code = emotions[number % 7], number % 8
        grey, colour = ckplus / emotion / f"S{number // 4:03}_001_{number:08}.png", f"train/{code}/{number}.png"
        for path, shape in ((grey, (48, 48)), (affectnet / colour, (64, 64, 3))):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
        rows.append(f"{colour},{code},{code if number % 5 else 'none'}")
    (affectnet / "labels.csv").write_text("\n".join(rows) + "\n")
    return {"ckplus": ckplus, "affectnet": affectnet}


def data_of(name, csv, folders):
    """The overrides that give a recipe its data."""
    data = compose(name).config["data"]
    if "merge" not in data:
        return [f"data.path={csv}"]
    return [f"data.main.path={csv}", *(f"data.merge.{source}.path={path}" for source, path in folders.items())]


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
def test_every_recipe_runs_small_to_its_end(name, csv, folders, tmp_path):
    data = data_of(name, csv, folders)
    composed = compose(name, data)
    model = composed.config["model"]
    narrow = ["model.width_multiplier=0.05"] if "width_multiplier" in model else []
    narrow += ["model.stem=original"] if "stem" in model else []
    if model.get("weights") == "imagenet":  # which a user's machine downloads
        torch.save(get_model(model["arch"]).state_dict(), tmp_path / "weights.pth")
        narrow.append(f"model.weights={tmp_path / 'weights.pth'}")
    narrow += ["trainer.frozen_epochs=1"] if composed.config["trainer"]["frozen_epochs"] else []
    overrides = [*data, f"output_dir={tmp_path / 'mlruns'}", *SMALL, *narrow]
    if composed.config["space"]:
        last = num_reports(compose(name, overrides).config)  # so that none is stopped early
        grace = [f"scheduler.grace_period={last}"] if "grace_period" in composed.config["scheduler"] else []
        from ferhpo.driver import ray_cluster

        ray_cluster.start_ray(ComputeSettings(num_cpus=2, num_gpus=0))
        few = [] if composed.config["num_trials"] is None else ["num_trials=2"]
        result = ferhpo.sweep(name, [*overrides, *grace, *few, "compute.num_cpus=2", "compute.gpus_per_trial=0"])
    else:
        result = ferhpo.train(name, overrides)
    assert result.finished
    assert set(result.counts) == {"COMPLETE"}
    assert result.best is not None
