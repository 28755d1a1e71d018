"""Class distribution: the number of images of each class in each split, and how balanced they are."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ferhpo.data.dataset import SPLIT_NAMES, UNUSED, FaceData
from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.style import COLORS, COLUMN_INCHES, figure
from ferhpo.text import join

if TYPE_CHECKING:
    from ferhpo.evaluation.load import Subject

SPLIT_COLORS = {"train": COLORS[0], "val": COLORS[1], "test": COLORS[2]}
SMALL_SHARE = 0.05  # classes with a smaller share of the training images are listed as rare


def panel(subject: "Subject", folder: Path) -> Panel | None:
    """Draw the class distribution of the subject's data."""
    return of_data(subject.data, folder)


def of_data(data: FaceData, folder: Path) -> Panel | None:
    """Draw the share of each class in each split; the table has the counts."""
    counts = {
        name: np.bincount(data.labels[data.split == code], minlength=data.num_classes)
        for code, name in enumerate(SPLIT_NAMES)
    }
    counts = {name: of_split for name, of_split in counts.items() if of_split.sum()}
    drawn_splits = [name for name in counts if name != SPLIT_NAMES[UNUSED]]
    path = folder / "classes.svg"
    with figure(path, COLUMN_INCHES, 1.1 + 0.44 * data.num_classes) as drawn:
        axes = drawn.add_subplot()
        height = 0.8 / len(drawn_splits)
        for index, name in enumerate(drawn_splits):
            rows = np.arange(data.num_classes) + (index - (len(drawn_splits) - 1) / 2) * height
            shares = 100 * counts[name] / counts[name].sum()
            axes.barh(rows, shares, height * 0.92, color=SPLIT_COLORS[name], label=name)
        axes.set_yticks(range(data.num_classes), data.class_names)
        axes.set_ylim(data.num_classes - 0.5, -0.5)
        axes.set_xlabel("% of the split's images")
        axes.grid(axis="y", visible=False)
        drawn.legend(loc="outside lower center", ncols=len(drawn_splits), fontsize=9)
    table = [
        {"class": label, **{name: int(of_split[index]) for name, of_split in counts.items()}}
        for index, label in enumerate(data.class_names)
    ]
    table.append({"class": "all", **{name: int(of_split.sum()) for name, of_split in counts.items()}})
    return Panel("Class distribution", _text(data, counts), (path,), (write_table(folder / "distribution.csv", table),))


def _text(data: FaceData, counts: dict[str, "np.ndarray[tuple[int], np.dtype[np.intp]]"]) -> str:
    train = counts.get("train")
    if train is None:
        return f"{data.source}, {data.split_name} split."
    most, least = int(train.argmax()), int(train.argmin())
    names = data.class_names
    parts = [f"{data.source}, {data.split_name} split: {train.sum():,} training images."]
    if train[least]:
        times = train[most] / train[least]
        parts.append(f"The most frequent class, {names[most]}, has {times:.1f} times as many images as {names[least]}.")
    else:
        parts.append(
            f"There are no training images of {join([n for n, count in zip(names, train, strict=True) if not count])}."
        )
    if "val" in counts:
        share = counts["val"].max() / counts["val"].sum()
        parts.append(
            f"Always predicting {names[int(counts['val'].argmax())]} would be correct for {share:.1%} of validation."
        )
    small = [f"{name} ({n:,})" for name, n in zip(names, train, strict=True) if 0 < n < SMALL_SHARE * train.sum()]
    if small:
        parts.append(f"Rare in training: {join(small)}; they hardly affect accuracy, but macro F1.")
    return " ".join(parts)
