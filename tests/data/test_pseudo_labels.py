"""The CSV of pseudo-labels: the images that agree, in every form of the CSV, and every fault."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_faces import zip_folder

from ferhpo.data.labels.emotions import EMOTIONS, emotion_of
from ferhpo.data.labels.pseudo_labels import agreement
from ferhpo.errors import DataError

NAMES = ("train/anger/1.png", "train/anger/2.png", "train/happy/1.png", "val/happy/9.png")
LABELS = ("angry", "angry", "happy", "happy")


def agree(folder: Path, text: str, names: tuple[str, ...] = NAMES, labels: tuple[str, ...] = LABELS) -> list[list[int]]:
    path = folder / "pseudo.csv"
    path.write_text(text, newline="")
    agrees, has_row = agreement(path, folder, names, labels, emotion_of)
    return [agrees.astype(int).tolist(), has_row.astype(int).tolist()]


def message(folder: Path, text: str) -> str:
    with pytest.raises(DataError) as caught:
        agree(folder, text)
    return str(caught.value).replace(str(folder), "HERE")


@pytest.mark.parametrize(
    "text",
    [
        "file,label,pseudo_label\ntrain/anger/1.png,anger,Angry\n2.png,angry,fear\ntrain/happy/1.png,happy,joy\n",
        "pth,pseudo_label\r\ntrain/anger/1.png,anger\r\nanger/2.png,sadness\r\nhappy/1.png,HAPPY\r\n",
        "\ufeffid, Pseudo_Label ,File\n7,anger,./train/anger/1.png\n\n8,sad,train\\anger\\2.png\n9,happy,happy/1.png",
        'pseudo,image\n"anger","train/anger/1.png"\nnone,2.png\nhappiness,"happy/1.png"\n'.replace("none", "fear"),
    ],
)
def test_forms(tmp_path: Path, text: str) -> None:
    assert agree(tmp_path, text) == [[1, 0, 1, 0], [1, 1, 1, 0]]


_WORD = st.text(st.characters(exclude_characters="/\\\0\r\n", exclude_categories=["Cs"]), min_size=1, max_size=5)
_PART = _WORD.filter(lambda word: word == word.strip() and word not in (".", ".."))


@given(st.data())
def test_any_names_in_any_order(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.tuples(_PART, _PART).map("/".join), min_size=1, max_size=12, unique=True))
    labels = [data.draw(st.sampled_from(EMOTIONS)) for _ in names]
    pseudo = [data.draw(st.sampled_from(EMOTIONS)) for _ in names]
    listed = data.draw(st.lists(st.sampled_from(range(len(names))), min_size=1, unique=True))
    path = tmp_path_factory.mktemp("csv") / "pseudo.csv"
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["pseudo_label", "file", "label"])
        writer.writerows([pseudo[place], names[place], labels[place]] for place in listed)
    agrees, has_row = agreement(path, path.parent, names, labels, emotion_of)
    expected = np.array([place in listed and labels[place] == pseudo[place] for place in range(len(names))])
    np.testing.assert_array_equal(agrees, expected)
    assert np.flatnonzero(has_row).tolist() == sorted(listed)


def test_every_fault(tmp_path: Path) -> None:
    rows = [
        "file,label,pseudo_label",
        "1.png,anger,anger",
        "train/anger/3.png,anger,anger",
        "train/anger/2.png,happy,anger",
        "happy/1.png,happy,hapy",
        "val/happy/9.png,happy",
        "anger/2.png,angry,anger",
        "gone.png,anger,anger",
    ]
    assert message(tmp_path, "\n".join(rows)) == (
        "data.clean is HERE/pseudo.csv: 6 faults\n"
        "  row 2 names '1.png', which several images match; add the folders of the file\n"
        "  row 3 names 'train/anger/3.png', which the data set does not have; remove the row, or use the path in the "
        "data set; 1 more row is broken (8)\n"
        "  row 4 has the label 'happy', but train/anger/2.png has angry; use the CSV of this data set\n"
        "  row 5 has the pseudo-label 'hapy', which is not a class; the label of the image is happy\n"
        "  row 6 has 2 of 3 columns\n"
        "  row 7 repeats train/anger/2.png of row 4; keep one"
    )


def test_a_name_of_another_folder_is_never_taken_for_it(tmp_path: Path) -> None:
    assert "row 2 names 'fear/9.png', which the data set does not have" in message(
        tmp_path, "file,pseudo_label\nfear/9.png,happy\n"
    )


def test_columns(tmp_path: Path) -> None:
    rule = "its first line must name file, label and pseudo_label"
    start = "data.clean is HERE/pseudo.csv: it has no column"
    assert message(tmp_path, "file,label\nx,y\n") == f"{start} pseudo_label (it has: file, label); {rule}"
    assert message(tmp_path, "a;b\n") == f"{start} file and no column pseudo_label (it has: a;b); {rule}"
    assert message(tmp_path, "") == f"{start} file and no column pseudo_label (it has: nothing); {rule}"
    assert message(tmp_path, "file,pseudo_label\n").endswith("it has a header but no rows; download the file again")


def test_inside_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    root = tmp_path / "set"
    root.mkdir()
    (root / "labels.csv").write_text("file,pseudo_label\nval/happy/9.png,happy\n")
    archive = zip_folder(root, tmp_path / "set.zip")
    for source in (root, archive):
        agrees, _ = agreement("labels.csv", source, NAMES, LABELS, emotion_of)
        assert agrees.tolist() == [False, False, False, True]
        with pytest.raises(DataError) as caught:
            agreement("label.csv", source, NAMES, LABELS, emotion_of)
        assert str(caught.value) == (
            f"data.clean is label.csv: there is no such file, neither here nor in {source}; did you mean labels.csv?"
        )
    (tmp_path / "here" / "labels.csv").write_text("file,pseudo_label\ntrain/anger/1.png,anger\n")
    agrees, _ = agreement("labels.csv", root, NAMES, LABELS, emotion_of)
    assert agrees.tolist() == [True, False, False, False], "a path is looked up from the current folder first"
    with pytest.raises(DataError, match="there is no such file"):
        agreement(tmp_path / "no.csv", root, NAMES, LABELS, emotion_of)
    with pytest.raises(DataError, match="it is a folder; it must be a CSV"):
        agreement(tmp_path / "here", root, NAMES, LABELS, emotion_of)
