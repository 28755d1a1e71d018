"""Confusion matrix, in images and in percent of each true class, and the scores by class."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.style import COLUMN_INCHES, figure
from ferhpo.text import join

if TYPE_CHECKING:
    from ferhpo.evaluation.load import Subject

MOST_CLASSES_WITH_NUMBERS = 12
Matrix = NDArray[np.int64]


def panel(subject: "Subject", folder: Path) -> Panel | None:
    """Draw the subject's confusion matrix on validation, with a table of the scores by class."""
    return of_matrix(subject.predictions.confusion.tolist(), subject.data.class_names, folder)


def of_matrix(confusion: Sequence[Sequence[int]], class_names: Sequence[str], folder: Path) -> Panel | None:
    """Do the same from the matrix alone, in images, rows are true classes; None if it is empty."""
    matrix = np.asarray(confusion, np.int64)
    if not matrix.sum():
        return None
    images = tuple(
        draw(folder / f"confusion_{kind}.svg", matrix, class_names, [kind]) for kind in ("images", "shares")
    )  # fmt: skip
    rows = class_scores(matrix, class_names)
    return Panel(
        "Confusion matrix (validation)", describe(matrix, rows), images, (write_table(folder / "classes.csv", rows),)
    )


def class_scores(matrix: Matrix, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of each class, then their unweighted means.

    A score is 0 if its class is never predicted or has no images, like scikit-learn's with zero_division=0.
    """
    hits, predicted, support = np.diag(matrix), matrix.sum(0), matrix.sum(1)
    precision, recall = _share(hits, predicted), _share(hits, support)
    f1 = _share(2 * hits, predicted + support)
    rows: list[dict[str, Any]] = [
        {"class": name, "precision": p, "recall": r, "f1": f, "images": int(n)}
        for name, p, r, f, n in zip(
            class_names, precision.tolist(), recall.tolist(), f1.tolist(), support.tolist(), strict=True
        )
    ]
    means = {key: sum(row[key] for row in rows) / len(rows) for key in ("precision", "recall", "f1")}
    return [*rows, {"class": "mean of classes", **means, "images": int(support.sum())}]


def describe(matrix: Matrix, rows: Sequence[dict[str, Any]]) -> str:
    """Return accuracy, the best and worst class, and the most frequent confusion, in sentences."""
    classes = [row for row in rows[:-1] if row["images"]]
    best, worst = max(classes, key=lambda row: row["recall"]), min(classes, key=lambda row: row["recall"])
    accuracy = np.trace(matrix) / matrix.sum()
    parts = [
        f"Accuracy {accuracy:.4f} on {matrix.sum():,} images. Recall is highest for {best['class']} "
        f"({best['recall']:.0%}) and lowest for {worst['class']} ({worst['recall']:.0%})."
    ]
    shares = _share(matrix, matrix.sum(1)[:, None])
    np.fill_diagonal(shares, 0)
    true, predicted = divmod(int(shares.argmax()), len(matrix))
    if shares[true, predicted] > 0:
        parts.append(
            f"Most frequent confusion: {shares[true, predicted]:.0%} of {rows[true]['class']} predicted as "
            f"{rows[predicted]['class']}."
        )
    never = [row["class"] for row, count in zip(rows[:-1], matrix.sum(0), strict=True) if not count]
    if never:
        parts.append(f"Never predicted: {join(never)}.")
    return " ".join(parts)


def draw(path: Path, matrix: Matrix, class_names: Sequence[str], kinds: Sequence[str], prefix: str = "") -> Path:
    """Draw a figure with the matrix in each of `kinds` ("images", "shares") and return its path.

    prefix: of the titles
    """
    with figure(path, COLUMN_INCHES * len(kinds), COLUMN_INCHES * 0.94) as drawn:
        for index, kind in enumerate(kinds, 1):
            _draw_matrix(drawn.add_subplot(1, len(kinds), index), matrix, class_names, kind, prefix)
    return path


def _draw_matrix(axes: Axes, matrix: Matrix, class_names: Sequence[str], kind: str, prefix: str) -> None:
    values = matrix if kind == "images" else 100 * _share(matrix, matrix.sum(1)[:, None])
    axes.imshow(values, vmin=0, vmax=max(float(values.max()), 1.0))
    axes.grid(visible=False)
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(prefix + ("images" if kind == "images" else "% of the true class"), fontsize=10)
    if len(class_names) > MOST_CLASSES_WITH_NUMBERS:
        return
    for row, column in np.ndindex(matrix.shape):
        value = values[row, column]
        text = f"{value:.0f}" if value < 10_000 else f"{value / 1000:.0f}k"
        color = "black" if value > 0.55 * values.max() else "white"
        axes.text(column, row, text, ha="center", va="center", fontsize=9.5, color=color)


def _share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.zeros(np.broadcast(part, whole).shape)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares
