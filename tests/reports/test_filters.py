"""The filters of the first layer, of every size, are shown unchanged."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ferhpo.reports.network import filters
from tests.reports.tiny_subject import SIZE, build, linear_subject, make_data, make_subject


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_filter_is_shown_at_its_own_contrast_the_strongest_first(tmp_path: Path, size: int, channels: int) -> None:
    network = build("cnn", channels=channels, stem_channels=40, stem_kernel_size=size, width_multiplier=1.0)
    weights = network.get_parameter("features.stem.conv.weight").data
    weights[7] = torch.linspace(-50, 100, channels * size**2).reshape(channels, size, size)
    weights[3] *= 1e-4
    panel = filters.panel(make_subject(network, tmp_path, make_data(channels)), tmp_path)
    assert panel is not None
    color = "gray" if channels == 1 else "color"
    assert panel.text.startswith(f"40 {color} filters of {size}x{size} pixels (features.stem.conv); shown are all")
    picture = np.asarray(Image.open(panel.images[0]).convert("RGB"))
    side = (filters.WIDTH - 17 * filters.GAP) // 16
    centres = filters.GAP + ((np.arange(size) + 0.5) * side / size).astype(int)
    shown = picture[np.ix_(centres, centres)].transpose(2, 0, 1)
    expected = np.rint(127.5 + 127.5 * weights[7].numpy() / 100).astype(np.uint8)
    np.testing.assert_array_equal(shown, np.broadcast_to(expected, (3, size, size)))
    assert "39 have less than a tenth of the largest norm" in panel.text


def test_of_many_filters_the_strongest_are_shown(tmp_path: Path) -> None:
    network = build("cnn", stem_channels=512, width_multiplier=1.0, block_channels=4, dense_units=4)
    panel = filters.panel(make_subject(network, tmp_path), tmp_path)
    assert panel is not None
    assert panel.text.startswith("512 gray filters")
    assert "the 128 strongest" in panel.text
    assert Image.open(panel.images[0]).height < 600


def test_a_dense_first_layer_is_shown_as_images(tmp_path: Path) -> None:
    subject = linear_subject(tmp_path, channels=3)
    found = filters.first_filters(subject)
    assert found is not None
    assert found[0] == "1"
    torch.testing.assert_close(torch.from_numpy(found[1]).flatten(1), subject.network.get_parameter("1.weight").data)
    assert found[1].shape == (4, 3, SIZE, SIZE)


def test_filters_of_one_pixel_have_no_picture(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(4 * SIZE**2, 4))
    assert filters.panel(make_subject(network, tmp_path), tmp_path) is None


def test_patches_of_a_transformer_are_its_filters(tmp_path: Path) -> None:
    found = filters.first_filters(make_subject(build("vit"), tmp_path))
    assert found is not None
    assert found[0] == "patches"
    assert found[1].shape[1:] == (1, 6, 6)
