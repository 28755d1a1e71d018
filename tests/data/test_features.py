"""HOG features: equal to those of scikit-image, computed once per data set."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from skimage.feature import hog as skimage_hog

from ferhpo.data.dataset import TEST, UNUSED, FaceData
from ferhpo.data.features.cached import with_hog
from ferhpo.data.features.hog import Hog
from ferhpo.data.synthetic import load


@pytest.fixture
def data() -> FaceData:
    return load(num_train=20, num_val=10, num_test=10)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the number of images each time features are computed."""
    done: list[int] = []
    compute = Hog.__call__
    monkeypatch.setattr(Hog, "__call__", lambda self, images: done.append(len(images)) or compute(self, images))
    return done


@pytest.mark.parametrize("hog", [Hog(), Hog(6, 12, 3), Hog(pixels_per_cell=7)], ids=str)
def test_features_are_scikit_images(data: FaceData, hog: Hog) -> None:
    features = with_hog(data, hog).features
    cell, block = (hog.pixels_per_cell,) * 2, (hog.cells_per_block,) * 2
    expected = [skimage_hog(image, hog.orientations, cell, block) for image in data.images]
    assert features is not None
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, np.array(expected, np.float32))
    assert features.shape == (40, hog.num_features(48))


def test_features_of_colour_images_are_scikit_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    expected = [skimage_hog(image, 9, (8, 8), (2, 2), channel_axis=-1) for image in images]
    np.testing.assert_array_equal(Hog()(images), np.array(expected, np.float32))


def test_an_image_of_48_pixels_has_900_features() -> None:
    assert Hog().num_features(48) == 900  # 5 x 5 blocks of 2 x 2 cells with 9 bins


def test_rest_of_the_data_stays_and_features_cannot_be_written(data: FaceData) -> None:
    featured = with_hog(data, Hog())
    assert featured.features is not None
    assert not featured.features.flags.writeable
    assert featured.images is data.images
    assert featured.digest == data.digest


def test_features_are_computed_once_for_all_splits(data: FaceData, computed: list[int], own_cache: Path) -> None:
    first = with_hog(data, Hog())
    part = replace(data, split=np.where(data.split == TEST, UNUSED, data.split).astype(np.uint8))
    assert np.array_equal(with_hog(part, Hog()).features, first.features)
    assert computed == [40]
    with_hog(data, Hog(orientations=8))
    with_hog(load(num_train=20, num_val=10, num_test=10, seed=1), Hog())
    assert computed == [40, 40, 40]
    assert len(list(own_cache.glob("*.arrays"))) == 3


def test_another_version_of_scikit_image_computes_anew(
    data: FaceData, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_hog(data, Hog())
    monkeypatch.setattr("ferhpo.data.features.cached.version", lambda name: version(name) + ".post1")
    with_hog(data, Hog())
    assert computed == [40, 40]


def test_damaged_entry_is_computed_again(data: FaceData, computed: list[int], own_cache: Path) -> None:
    good = with_hog(data, Hog()).features
    (entry,) = own_cache.glob("*.arrays")
    whole = entry.read_bytes()
    entry.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    np.testing.assert_array_equal(with_hog(data, Hog()).features, good)
    assert computed == [40, 40]
    assert entry.read_bytes() == whole


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"orientations": 0}, "hog.orientations is 0; it must be an integer of at least 1"),
        ({"pixels_per_cell": True}, "hog.pixels_per_cell is True; it must be an integer of at least 1"),
        ({"cells": 2}, "hog.cells matches no key; hog has: orientations, pixels_per_cell, cells_per_block"),
        (
            True,
            "hog is True; it must be null or a mapping with any of orientations, pixels_per_cell, cells_per_block",
        ),
    ],
    ids=str,
)
def test_wrong_setting_is_named(values: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Hog.from_config(values)
    assert str(caught.value) == message


def test_image_without_room_for_a_block_is_named() -> None:
    with pytest.raises(ValueError) as caught:
        Hog(pixels_per_cell=16).num_features(24)
    assert str(caught.value) == (
        "hog.pixels_per_cell is 16 and hog.cells_per_block is 2; a block of 32x32 pixels must fit in an image of "
        "24x24; set a smaller one"
    )
