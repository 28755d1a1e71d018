"""Augmentation against torchvision at fixed noise, and its own rules."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from ferhpo.training.augment import COLUMN, COLUMNS, Augment

CONF = Path(__file__).parents[2] / "conf"
SIZE = 48


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (6, 1, SIZE, SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def noise_of(augment: Augment, num: int = 6, seed: int = 1, size: int = SIZE) -> Tensor:
    return augment.noise(num, size, np.random.default_rng(seed))


def as_torchvision(image: Tensor, row: Tensor, size: int) -> Tensor:
    """One image [1, H, H], float in 0..255, through torchvision's functions in our order."""
    value = {name: row[i].item() for name, i in COLUMN.items()}
    if value["flip"]:
        image = tv.hflip(image)
    image = tv.affine(
        image,
        angle=value["angle"],
        translate=[int(value["shift_x"]), int(value["shift_y"])],
        scale=value["scale"],
        shear=[0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    return tv.crop(image, int(value["crop_y"]), int(value["crop_x"]), size, size)


@pytest.mark.parametrize(
    "augment",
    [
        Augment(rotation=30),
        Augment(scale=0.3),
        Augment(flip=0.5, shift=0.2),
        Augment(crop=40),
        Augment(flip=0.5, shift=0.15, crop=44),
        Augment(flip=0.5, shift=0.15, rotation=20, scale=0.2, crop=40),
    ],
    ids=str,
)
def test_geometry_is_torchvisions(images: Tensor, augment: Augment) -> None:
    noise = noise_of(augment)
    size = augment.output_size(SIZE)
    changed = augment(images, noise)
    expected = torch.stack([as_torchvision(image.float(), row, size) for image, row in zip(images, noise, strict=True)])
    assert changed.shape == (6, 1, size, size)
    torch.testing.assert_close(changed * 255, expected, atol=0.05, rtol=0)


def test_move_without_interpolation_is_what_the_interpolation_gives(images: Tensor) -> None:
    noise = noise_of(Augment(flip=0.5, shift=0.2, crop=40))
    moved = Augment(flip=0.5, shift=0.2, crop=40)(images, noise)
    warped = Augment(flip=0.5, shift=0.2, crop=40, rotation=1e-9)(images, noise)
    torch.testing.assert_close(moved, warped, atol=1e-4, rtol=0)


def test_brightness_and_contrast_are_torchvisions(images: Tensor) -> None:
    augment = Augment(brightness=0.4, contrast=0.4)
    noise = noise_of(augment)
    for image, row, changed in zip(images, noise, augment(images, noise), strict=True):
        expected = tv.adjust_brightness(image.expand(3, -1, -1).float() / 255, row[COLUMN["brightness"]].item())
        expected = tv.adjust_contrast(expected, row[COLUMN["contrast"]].item())
        # torchvision's gray of equal channels is 0.9999 of them.
        torch.testing.assert_close(changed, expected[:1], atol=2e-4, rtol=0)


def test_color_images_move_as_gray_ones(images: Tensor) -> None:
    for augment in (Augment(flip=0.5, shift=0.1, crop=44), Augment(flip=0.5, rotation=15)):
        noise = noise_of(augment)
        color = augment(images.expand(-1, 3, -1, -1), noise)
        assert torch.equal(color, augment(images, noise).expand(-1, 3, -1, -1))


def test_erasing_puts_the_mean_into_a_rectangle_of_the_area_asked_for(images: Tensor) -> None:
    augment = Augment(erasing=1.0, erasing_area=0.25)
    changed = augment(images, noise_of(augment))
    for before, after in zip(images.float() / 255, changed, strict=True):
        erased = after == before.mean()
        rows, columns = erased[0].any(1).sum(), erased[0].any(0).sum()
        assert rows * columns == erased.sum()
        assert 0.01 < erased.float().mean() < 0.3
        torch.testing.assert_close(after[~erased], before[~erased])


def test_erasing_takes_its_share_of_the_images() -> None:
    augment = Augment(erasing=0.3, erasing_area=0.25)
    noise = noise_of(augment, num=20_000)
    area = (noise[:, COLUMN["erase_right"]] - noise[:, COLUMN["erase_left"]]) * (
        noise[:, COLUMN["erase_bottom"]] - noise[:, COLUMN["erase_top"]]
    )
    assert (area > 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert (area[area > 0].mean() / SIZE**2).item() == pytest.approx((0.02 + 0.25) / 2, abs=0.01)


def test_draws_cover_their_range_evenly() -> None:
    augment = Augment(flip=0.25, shift=0.1, rotation=10, scale=0.2, crop=40, brightness=0.3, contrast=0.1)
    noise = noise_of(augment, num=20_000)
    assert noise[:, COLUMN["flip"]].mean().item() == pytest.approx(0.25, abs=0.02)
    assert sorted(noise[:, COLUMN["shift_x"]].unique().tolist()) == list(range(-5, 6))
    assert sorted(noise[:, COLUMN["crop_y"]].unique().tolist()) == list(range(9))
    for name, low, high in (("angle", -10, 10), ("scale", 0.8, 1.2), ("brightness", 0.7, 1.3), ("contrast", 0.9, 1.1)):
        column = noise[:, COLUMN[name]]
        assert column.min().item() == pytest.approx(low, abs=0.01)
        assert column.max().item() == pytest.approx(high, abs=0.01)


def test_turning_one_setting_on_leaves_the_other_draws() -> None:
    plain, more = noise_of(Augment(flip=0.5, shift=0.1)), noise_of(Augment(flip=0.5, shift=0.1, rotation=10, mixup=0.2))
    same = [name for name, i in COLUMN.items() if torch.equal(plain[:, i], more[:, i])]
    assert set(COLUMNS) - set(same) == {"angle", "mix"}


def test_mixup_is_the_weighted_sum_of_neighbours(images: Tensor) -> None:
    augment = Augment(mixup=0.4)
    noise = noise_of(augment)
    pixels, targets = images.float() / 255, torch.eye(6)
    mixed, soft = augment.mix(pixels, noise), augment.mix(targets, noise)
    weight = noise[:, COLUMN["mix"]]
    assert (weight >= 0.5).all()
    for i in range(6):
        torch.testing.assert_close(mixed[i], weight[i] * pixels[i] + (1 - weight[i]) * pixels[i - 1])
        assert soft[i, i] == weight[i]
        torch.testing.assert_close(soft[i].sum(), torch.tensor(1.0))


@pytest.mark.parametrize("file", sorted((CONF / "augment").glob("*.yaml")), ids=lambda file: file.stem)
def test_files_change_batches_without_touching_their_source(file: Path, images: Tensor) -> None:
    settings = yaml.safe_load(file.read_text())
    assert settings.pop("_target_") == "ferhpo.training.augment.Augment"
    augment = Augment(**settings)
    assert set(settings) == set(vars(augment))
    before = images.clone()
    changed = augment(images, noise_of(augment))
    assert torch.equal(images, before)
    assert changed.min() >= 0
    assert changed.max() <= 1
    unchanged = changed.shape == images.shape and torch.allclose(changed * 255, images.float())
    assert unchanged == (file.stem == "none")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip": 1.5}, "flip is 1.5; it must be in [0, 1]"),
        ({"shift": -0.1}, "shift is -0.1; it must be in [0, 0.99]"),
        ({"rotation": 200}, "rotation is 200; it must be in [0, 180] degrees"),
        ({"scale": 1.0}, "scale is 1.0; it must be in [0, 0.99]"),
        ({"crop": 0}, "crop is 0; it must be an integer of at least 1, or null"),
        ({"erasing_area": 1.0}, "erasing_area is 1.0; it must be in [0.02, 1)"),
        ({"mixup": "yes"}, "mixup is 'yes'; it must be at least 0"),
    ],
    ids=str,
)
def test_setting_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Augment(**settings)


def test_crop_larger_than_the_images_is_named() -> None:
    message = "crop is 44; it must be at most 40, the side in pixels of the images"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Augment(crop=44).output_size(40)
