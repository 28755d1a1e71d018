"""Detect a collapsed network: one that predicts the same class for nearly every image.

Such a network's accuracy is the share of that class and says nothing about the others (17.4 and 24.7 % on FER2013 are
"always sad" and "always happy"). Pure Python, because the driver calls it at the end of every trial.
"""

from collections.abc import Mapping, Sequence
from typing import Any

COLLAPSED_SHARE = 0.9


def most_answered(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> dict[str, Any]:
    """The class answered most: its name, its share of the answers, and its true share of the images.

    confusion: in images, rows are true classes
    """
    total = sum(map(sum, confusion))
    answered = [sum(row[index] for row in confusion) for index in range(len(class_names))]
    top = answered.index(max(answered))
    return {
        "class": class_names[top],
        "share": answered[top] / total if total else 0.0,
        "true_share": sum(confusion[top]) / total if total else 0.0,
    }


def collapse(found: Mapping[str, Any] | None) -> str:
    """ "happy 97.3 %" where `most_answered` means a collapse, else nothing. Data that hold one class alone are none."""
    if not found or found["share"] <= COLLAPSED_SHARE or found["true_share"] > COLLAPSED_SHARE:
        return ""
    return f"{found['class']} {100 * found['share']:.1f} %"
