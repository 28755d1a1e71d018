"""SFEW: published split, films, colors and sizes."""

from pathlib import Path

import numpy as np
import pytest
from tiny_faces import draw_files

from ferhpo.data import sfew
from ferhpo.data.dataset import TRAIN, VAL
from ferhpo.data.describe import describe
from ferhpo.errors import ConfigError, DataError


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    films = [("Train", f"Film{number}") for number in range(8)] + [("Val", "21"), ("Val", "50_50")]
    names = [
        f"{split}/{emotion}/{film}_00{index}225840_0000002{index}.png"
        for split, film in films
        for index, emotion in enumerate(("Angry", "Happy", "Neutral"))
    ]
    return draw_files(tmp_path / "SFEW", names, (143, 181), colour=True)


def test_published(faces: Path) -> None:
    data = sfew.load(faces)
    assert data.images.shape == (30, 48, 48)
    assert data.class_names == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert np.bincount(data.split).tolist() == [24, 6]
    assert set(data.labels) == {0, 3, 6}
    assert data.groups is not None
    assert len(set(data.groups)) == 10
    assert sfew.load(faces, image_size=32, channels=3).images.shape == (30, 32, 32, 3)


def test_no_film_in_two_splits(faces: Path) -> None:
    data = sfew.load(faces, split="random", val_fraction=0.2, test_fraction=0.2)
    assert data.groups is not None
    assert np.bincount(data.split).tolist() == [18, 6, 6]
    assert all(len(set(data.split[data.groups == film])) == 1 for film in set(data.groups))


@pytest.mark.parametrize(
    ("name", "film"),
    [
        ("Train/Angry/AlexEmma_000225840_00000024.png", "AlexEmma"),
        ("Val/Sad/50_50_001805320_00000009.png", "50_50"),
        ("OceansThirteen-010619400_00000087.png", "OceansThirteen"),
        ("IAmSam_013827920__00000055.png", "IAmSam"),
    ],
)
def test_film_of(name: str, film: str) -> None:
    assert sfew.film_of(name) == film


def test_faults(faces: Path) -> None:
    with pytest.raises(DataError) as caught:
        sfew.load(faces / "Train")
    assert str(caught.value) == (
        f"data.path is {faces / 'Train'}: data.split=published needs the folders Train and Val; set data.split=random"
    )
    everything = dict.fromkeys(("disgust", "fear", "happy", "sad", "surprise", "neutral"), "angry")
    with pytest.raises(ConfigError) as leaves_one:
        sfew.load(faces, labels=everything)
    assert (
        str(leaves_one.value) == "data=sfew: data.labels leaves only one class, angry; a classifier needs at least two"
    )


@pytest.mark.full
def test_real_sfew(real_fer2013: Path) -> None:
    data = sfew.load(real_fer2013 / "SFEW")
    facts = describe(data)
    assert list(facts["counts"]["train"].values()) == [170, 50, 76, 179, 151, 93, 141]
    assert list(facts["counts"]["val"].values()) == [77, 23, 46, 72, 73, 56, 84]
    assert facts["num_images"] == 1291
    assert data.groups is not None
    films = [set(data.groups[data.split == code]) for code in (TRAIN, VAL)]
    assert [len(numbers) for numbers in films] == [47, 24]
    assert not films[0] & films[1]
