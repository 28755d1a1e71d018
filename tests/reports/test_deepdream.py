"""DeepDream raises the logit of its class, and is reproducible."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ferhpo.reports.network import deepdream
from ferhpo.reports.network.deepdream import DreamSettings
from ferhpo.reports.network.looking import logits_of
from tests.reports.tiny_subject import FAMILIES, NUM_CLASSES, SIZE, build, make_data, make_subject, train

TARGETS = torch.arange(NUM_CLASSES)


FAST = ("cnn", "feed_forward")


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=() if family in FAST else pytest.mark.full) for family in FAMILIES]
)
def test_every_class_rises_in_every_family(tmp_path: Path, family: str) -> None:
    deep = family.startswith("torchvision")
    subject = train(make_subject(build(family), tmp_path), steps=3 if deep else 20)
    initial = torch.cat([deepdream.start_pixels(subject, start, NUM_CLASSES) for start in deepdream.STARTS])
    before, targets = initial.clone(), TARGETS.repeat(2)
    dreams = deepdream.dream(subject, initial, targets, settings=DreamSettings(iterations=5 if deep else 10))
    with torch.no_grad():
        rise = (logits_of(subject, dreams) - logits_of(subject, initial)).gather(1, targets[:, None])
    assert (rise > 0).all(), rise
    assert dreams.shape == initial.shape
    assert 0 <= float(dreams.min()) <= float(dreams.max()) <= 255
    assert torch.equal(initial, before), "the start was overwritten"


def test_trained_network_predicts_each_dream_as_its_class(tmp_path: Path) -> None:
    """In color, cropped to the center, from both starts; the panel counts them."""
    network = build("cnn", channels=3, image_size=24, width_multiplier=0.1)
    subject = train(make_subject(network, tmp_path, make_data(channels=3), "image", input_size=24), steps=60)
    panel = deepdream.panel(subject, tmp_path, settings=DreamSettings(octaves=2))
    assert panel is not None
    assert f"{2 * NUM_CLASSES} of {2 * NUM_CLASSES} are predicted as their class" in panel.text
    assert Image.open(panel.images[0]).width == deepdream.WIDTH


def test_dreams_follow_the_seed(tmp_path: Path) -> None:
    subject = make_subject(build("cnn"), tmp_path)
    settings = DreamSettings(iterations=2, octaves=2)

    def dream(seed: int) -> torch.Tensor:
        initial = deepdream.start_pixels(subject, "noise", NUM_CLASSES, seed)
        return deepdream.dream(subject, initial, TARGETS, seed, settings)

    once = dream(1)
    torch.rand(3)  # the global state makes no difference
    assert torch.equal(once, dream(1))
    assert not torch.equal(once, dream(2))


def test_total_variation_smooths_and_is_the_mean_difference_of_neighbours(tmp_path: Path) -> None:
    picture = torch.tensor([[[[0.0, 1.0], [3.0, 3.0]]]])
    assert deepdream.total_variation(picture).tolist() == [(3 + 2) / 2 + (1 + 0) / 2]
    subject = make_subject(build("cnn"), tmp_path)
    initial = deepdream.start_pixels(subject, "mean face", NUM_CLASSES)
    rough, smooth = (
        deepdream.dream(subject, initial, TARGETS, settings=DreamSettings(iterations=5, total_variation=weight))
        - initial
        for weight in (0.0, 0.9)
    )
    assert (deepdream.total_variation(smooth) < deepdream.total_variation(rough)).all()


def test_small_octaves_draw_what_is_smooth(tmp_path: Path) -> None:
    """Of one octave of half the size every pixel could differ from its neighbour only half as much as of the last."""
    subject = make_subject(build("cnn"), tmp_path)
    initial = torch.full((NUM_CLASSES, 1, SIZE, SIZE), 127.5)
    fine = deepdream.dream(
        subject, initial, TARGETS, settings=DreamSettings(iterations=1, octaves=1, total_variation=0)
    )
    several = DreamSettings(iterations=1, octaves=3, octave_scale=2, total_variation=0)
    coarse = deepdream.dream(subject, initial, TARGETS, settings=several)
    assert (coarse - initial).abs().mean() > (fine - initial).abs().mean()  # it went three steps, not one
    assert not torch.equal(coarse, fine)


def test_mean_face_is_the_mean_of_training(tmp_path: Path) -> None:
    subject = make_subject(build("cnn", channels=3), tmp_path, make_data(3))
    found = deepdream.start_pixels(subject, "mean face", 2)
    expected = torch.from_numpy(subject.data.images[:40]).float().mean(0).permute(2, 0, 1)
    torch.testing.assert_close(found, expected.expand(2, -1, -1, -1))


def test_many_classes_are_in_several_bands(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(11)]
    pictures = torch.zeros(11, 1, SIZE, SIZE)
    deepdream._draw(tmp_path / "a.png", pictures[:8], pictures[:8], ["noise"], names[:8], names[:8])
    deepdream._draw(tmp_path / "b.png", pictures, pictures, ["noise"], names, names)
    assert Image.open(tmp_path / "b.png").height == 2 * Image.open(tmp_path / "a.png").height


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, "iterations is 0; it must be 1 or more"),
        ({"octaves": 0}, "octaves is 0; it must be 1 or more"),
        ({"jitter": -1}, "jitter is -1; it must be 0 or more"),
        ({"total_variation": -0.1}, "total_variation is -0.1; it must be 0 or more"),
        ({"step": 0}, "step is 0; it must be above 0"),
        ({"octave_scale": 0.5}, "octave_scale is 0.5; it must be 1 or more"),
    ],
)
def test_setting_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        DreamSettings(**settings)


def test_unknown_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^starts has 'face'; it may contain noise and mean face$"):
        deepdream.panel(make_subject(build("cnn"), tmp_path), tmp_path, starts=["face"])
