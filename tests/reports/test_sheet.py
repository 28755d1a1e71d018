"""A sheet draws pictures and text at the given positions, and cuts text that does not fit."""

from pathlib import Path

import numpy as np
from PIL import Image

from ferhpo.reports.network.sheet import LINE, MOST_OPAQUE, WIDTH, Sheet, heat, marked, photograph, shortened


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


def test_a_picture_is_enlarged_without_blurring(tmp_path: Path) -> None:
    sheet = Sheet(60)
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    sheet.picture(picture, 100, 10, 20, 40)
    sheet.write(tmp_path / "a.png")
    written = read(tmp_path / "a.png")
    assert written.shape == (60, WIDTH, 3)
    np.testing.assert_array_equal(written[10:50, 100:120], picture.repeat(20, 0).repeat(10, 1))
    written[10:50, 100:120] = 255
    assert written.min() == 255


def test_words_stay_in_their_lines(tmp_path: Path) -> None:
    sheet = Sheet(4 * LINE)
    sheet.words("jÄg\nupper", 300, LINE, align="right")
    sheet.write(tmp_path / "a.png")
    rows, columns = np.nonzero(read(tmp_path / "a.png").min(2) < 200)
    assert rows.min() >= LINE - 1
    assert rows.max() < 3 * LINE
    assert columns.max() <= 300


def test_words_are_cut_to_their_place() -> None:
    assert shortened("sad", 100) == "sad"
    assert shortened("sad", 100, suffix=" 99%") == "sad 99%"
    cut = shortened("something much too long", 100, suffix=" 99%")
    assert cut.endswith("… 99%")
    assert cut.startswith("s")
    assert len(cut) < 12
    assert shortened("something", 1) == "s…"


def test_gray_and_color_photographs_are_clipped() -> None:
    gray = photograph(np.array([[[-3, 127.6], [255, 300]]], np.float32))
    assert gray.tolist() == [[[0] * 3, [128] * 3], [[255] * 3, [255] * 3]]
    color = photograph(np.array([[[1]], [[2]], [[3]]], np.float32))
    assert color.tolist() == [[[1, 2, 3]]]


def test_marks_leave_what_has_no_share() -> None:
    photo = np.full((1, 2, 3), 100, np.uint8)
    marks = marked(photo, np.array([[0, 1]], np.float32), "#ff0000")
    assert marks[0, 0].tolist() == [100, 100, 100]
    kept = (1 - MOST_OPAQUE) * 100
    np.testing.assert_allclose(marks[0, 1], [kept + MOST_OPAQUE * 255, kept, kept], atol=1)


def test_heat_grows_lighter_and_is_dark_where_nothing_differs() -> None:
    lightness = heat(np.linspace(-1, 2, 10, dtype=np.float32)[None], 0, 1).astype(int).sum(2)[0]
    assert (np.diff(lightness) >= 0).all()
    assert lightness[0] == lightness[3] == heat(np.zeros((1, 1), np.float32), 5, 5).astype(int).sum()
