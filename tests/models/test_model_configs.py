"""Every file in conf/model: its network has the right shapes, a gradient in every parameter, and fits 32 images."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import yaml
from torch import nn

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted(  # of networks; test_estimators.py tests the estimators
    path for path in (CONF / "model").glob("*.yaml") if "models.estimators" not in path.read_text()
)


def build(file: Path, **overrides: Any) -> nn.Module:
    settings = yaml.safe_load(file.read_text())["model"]
    if "width_multiplier" not in settings:
        overrides.pop("width_multiplier", None)
    module, name = settings.pop("_target_").rsplit(".", 1)
    assert set(overrides) <= set(settings) | {"in_channels", "num_classes", "image_size"}
    arguments = {"in_channels": 1, "num_classes": 7, "image_size": 48, **settings, **overrides}
    return getattr(importlib.import_module(module), name)(**arguments)  # type: ignore[no-any-return]


def small(file: Path) -> nn.Module:
    """The network of a file for small images, an eighth as wide and without dropout."""
    settings = yaml.safe_load(file.read_text())["model"]
    torch.manual_seed(0)
    cheap = {"stem": "original"} if "stem" in settings else {}
    no_dropout = {key: 0.0 for key in settings if key.endswith("dropout")}
    return build(file, image_size=24, width_multiplier=0.125, **cheap, **no_dropout)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_default_network_is_built_on_the_meta_device(file: Path) -> None:
    with torch.device("meta"):
        network = build(file)
        assert network(torch.empty(2, 1, 48, 48)).shape == (2, 7)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize(("channels", "num_classes", "image_size"), [(1, 7, 48), (3, 8, 44), (1, 2, 100)])
def test_shapes_follow_the_data(file: Path, channels: int, num_classes: int, image_size: int) -> None:
    network = build(
        file, width_multiplier=0.05, in_channels=channels, num_classes=num_classes, image_size=image_size
    ).eval()
    assert network(torch.rand(1, channels, image_size, image_size)).shape == (1, num_classes)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_fits_32_images_with_a_gradient_in_every_parameter(file: Path) -> None:
    network = small(file)
    images = torch.rand(32, 1, 24, 24)
    labels = torch.arange(32) % 7
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    moved = dict.fromkeys(dict(network.named_parameters()), False)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        losses.append(loss.item())
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            # A residual block that starts at zero has gradients from its second step on.
            moved[name] |= bool(parameter.grad.abs().sum() > 0)
        optimizer.step()
        if losses[-1] < 0.05:
            break
    assert all(moved.values()), [name for name, has_moved in moved.items() if not has_moved]
    assert losses[0] > 1.5
    assert losses[-1] < 0.05


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_space_slice_draws_only_keys_that_the_model_has(file: Path) -> None:
    first_line, _, rest = file.read_text().partition("\n")
    config = yaml.safe_load(rest)
    assert first_line == "# @package _global_"
    assert rest.startswith("# ")
    assert set(config) == {"model", "space"}
    assert set(config["space"]["model"]) <= set(config["model"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_bounds_of_the_space_are_accepted_by_the_model(file: Path) -> None:
    for key, draw in yaml.safe_load(file.read_text())["space"]["model"].items():
        for bound in (draw["low"], draw["high"]):
            with torch.device("meta"):
                build(file, **{key: bound})
