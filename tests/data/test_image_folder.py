"""Folders of any classes, sizes and colors."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_faces import draw_files, zip_folder

from ferhpo.data import fer2013, image_folder, image_table, sfew
from ferhpo.data.dataset import TEST, TRAIN, VAL
from ferhpo.errors import DataError


def make(root: Path, layout: dict[str, int], size: tuple[int, int] = (60, 48), mode: str = "RGB") -> Path:
    """Write a folder; `layout` has the number of images per folder, e.g. {"Train/glad": 3}."""
    rng = np.random.default_rng(0)
    for folder, number in layout.items():
        (root / folder).mkdir(parents=True)
        for index in range(number):
            noise = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
            Image.fromarray(noise).convert(mode).save(root / folder / f"{index}.png")
    return root


def counts(split: np.ndarray) -> list[int]:
    return np.bincount(split, minlength=4).tolist()


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "Valid", "Test"), ("training", "validation", "testing")]
)
def test_folders_of_splits(names: tuple[str, str, str], tmp_path: Path) -> None:
    train, val, test = names
    layout = {f"{train}/b_glad": 3, f"{train}/a_sad": 2, f"{val}/a_sad": 2, f"{test}/b_glad": 1}
    data = image_folder.load(make(tmp_path / "set", layout))
    assert data.class_names == ("a_sad", "b_glad")
    assert data.images.shape == (8, 48, 48)
    assert data.labels.tolist() == [0, 0, 1, 1, 1, 0, 0, 1]
    assert data.split.tolist() == [TRAIN] * 5 + [VAL] * 2 + [TEST]
    assert data.split_name == "published"
    assert data.source == "set (image folder)"


def test_flat_folder_splits_at_random(tmp_path: Path) -> None:
    data = image_folder.load(make(tmp_path / "set", {"glad": 20, "sad": 10}))
    assert counts(data.split) == [24, 3, 3, 0]
    assert data.split_name == "random"


def test_train_and_val_only(tmp_path: Path) -> None:
    path = make(tmp_path / "set", {"Train/glad": 3, "Train/sad": 3, "Val/glad": 2, "Val/sad": 1})
    assert counts(image_folder.load(path).split) == [6, 3, 0, 0]


def test_train_and_test_only_takes_val_from_train(tmp_path: Path) -> None:
    path = make(tmp_path / "set", {"train/glad": 10, "train/sad": 10, "test/glad": 2, "test/sad": 1})
    data = image_folder.load(path, val_fraction=0.2)
    assert counts(data.split) == [16, 4, 3, 0]
    assert counts(image_folder.load(path, split="folder").split) == [20, 3, 0, 0]
    assert counts(image_folder.load(path, split="random", val_fraction=0.2, test_fraction=0).split) == [19, 4, 0, 0]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_colours(mode: str, channels: int, tmp_path: Path) -> None:
    path = tmp_path / "set"
    for name in ("glad", "sad"):
        (path / name).mkdir(parents=True)
        for index in range(2):
            grey = Image.new("RGB", (20, 20), (255 * index,) * 3).convert(mode)
            grey.save(path / name / f"{index}.tif")
    data = image_folder.load(
        path, split="random", val_fraction=0.5, test_fraction=0, image_size=None, channels=channels
    )
    assert data.images.shape == ((4, 20, 20) if channels == 1 else (4, 20, 20, 3))
    assert data.channels == channels
    assert [int(image.max()) for image in data.images] == [0, 255, 0, 255]


def test_resized_as_pillow_does(tmp_path: Path) -> None:
    path = make(tmp_path / "set", {"glad": 2, "sad": 2}, size=(70, 90))
    data = image_folder.load(path, image_size=32, channels=3, val_fraction=0.5, test_fraction=0)
    with Image.open(path / "glad" / "1.png") as image:
        expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(data.images[1], expected)


def test_turned_photographs_stand_upright(tmp_path: Path) -> None:
    upright = np.zeros((16, 16), np.uint8)
    upright[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was held upside down
    for name in ("train/glad", "train/sad", "val/glad", "val/sad"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(upright[::-1].copy()).save(tmp_path / "set" / name / "0.png", exif=exif)
        Image.fromarray(upright).save(tmp_path / "set" / name / "1.png")
    data = image_folder.load(tmp_path / "set", image_size=None)
    assert (data.images == upright).all()


def test_zip_with_a_folder_around_everything(tmp_path: Path) -> None:
    path = make(tmp_path / "set", {"glad": 10, "sad": 10})
    data = image_folder.load(zip_folder(path, tmp_path / "set.zip", "download/set/"))
    assert data.source == "set.zip (zip of images)"
    assert data.digest == image_folder.load(path).digest


@pytest.mark.parametrize("reader", [image_folder, sfew, fer2013, image_table])
@pytest.mark.parametrize("link", ["train", "train/happy", "train/happy/a.png", "fer2013.csv", "a.parquet"])
def test_a_link_out_of_a_data_set_is_refused(tmp_path, monkeypatch, reader, link):
    """Unless the user allows its folder: pictures of the user would be read, and a report would contain them."""
    place, private = tmp_path / "faces" / link, tmp_path / "private" / "x"
    place.parent.mkdir(parents=True)
    private.parent.mkdir()
    private.write_text("x") if "." in link else private.mkdir()
    place.symlink_to(private)
    rule = f"is a link to {private}, outside of {tmp_path / 'faces'}; remove it, or allow it in the environment, e.g. "
    with pytest.raises(DataError) as caught:
        reader.load(tmp_path / "faces")
    assert f"{rule}FERHPO_DATA_FOLDERS={private.parent}" in str(caught.value)
    monkeypatch.setenv("FERHPO_DATA_FOLDERS", f"/nowhere:{private.parent}")
    with pytest.raises(DataError) as caught:
        reader.load(tmp_path / "faces")
    assert "is a link to" not in str(caught.value)


def test_a_link_inside_a_data_set_is_followed(tmp_path: Path) -> None:
    path = draw_files(tmp_path / "faces", [f"{name}/{index}.png" for name in ("glad", "sad") for index in range(8)])
    (path / "sad" / "more.png").symlink_to("../sad/0.png")
    (tmp_path / "link").symlink_to(path)
    assert len(image_folder.load(tmp_path / "link").images) == 17


def test_dead_links_are_ignored(tmp_path: Path) -> None:
    path = make(tmp_path / "set", {"train/glad": 3, "train/sad": 3, "val/glad": 1, "val/sad": 1})
    (path / "train" / "glad" / "dead.png").symlink_to(path / "nowhere.png")
    assert counts(image_folder.load(path).split) == [6, 2, 0, 0]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PNG of RGB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_becomes_white(mode: str, channels: int, tmp_path: Path) -> None:
    """The left half is black below full transparency, the right half opaque black, and one pixel half transparent."""
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, 8:, 3] = 255
    if mode in ("RGBA", "LA"):
        pixels[0, 0, 3] = 128
    image = Image.fromarray(pixels).convert("RGBA" if mode != "LA" else "LA")
    options = {}
    if mode == "P":
        image = Image.fromarray((pixels[..., 3] // 255).copy()).convert("P")
        image.putpalette([0, 0, 0] * 2)
        options = {"transparency": 0}
    if mode == "PNG of RGB":  # one color is transparent
        image = Image.fromarray(np.where(pixels[..., 3:] > 0, 0, [9, 8, 7]).astype(np.uint8))
        options = {"transparency": (9, 8, 7)}
    for name in ("glad", "sad"):
        for index in range(2):
            (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "set" / name / f"{index}.png", **options)
    data = image_folder.load(tmp_path / "set", folds=2, image_size=None, channels=channels)
    assert (data.images[:, 1:, :8] == 255).all()
    assert (data.images[:, :, 8:] == 0).all()
    if mode in ("RGBA", "LA"):
        assert np.abs(data.images[:, 0, 0].astype(int) - 127).max() <= 1


def test_names_of_classes_compare_after_normalization(tmp_path: Path) -> None:
    """One accent is a character of its own, as macOS writes it; the class and its new name are found in both forms."""
    one, two = "gl\u00fccklich", "glu\u0308cklich"
    path = make(tmp_path / "set", {f"train/{one}": 3, "train/sad": 3, f"val/{two}": 2, "val/sad": 1})
    data = image_folder.load(path)
    assert data.class_names == (one, "sad")
    assert counts(data.split) == [6, 3, 0, 0]
    assert image_folder.load(path, labels={two: "happy"}).class_names == ("happy", "sad")
    (tmp_path / "clean.csv").write_text(
        f"file,pseudo_label\nval/{one}/0.png,{two}\ntrain/{two}/0.png,{one}\ntrain/sad/0.png,sad\n"
    )
    assert len(image_folder.load(path, clean=tmp_path / "clean.csv").images) == 3


def test_a_class_in_two_spellings_is_one(tmp_path: Path) -> None:
    data = image_folder.load(make(tmp_path / "set", {"caf\u00e9": 10, "cafe\u0301": 10, "sad": 10}))
    assert data.class_names == ("caf\u00e9", "sad")
    assert np.bincount(data.labels).tolist() == [20, 10]
