"""The detection of a collapsed network, which predicts the same class for nearly every image.

Its accuracy is the fraction of that class and says nothing about the others: 17.4 and 24.7 % on FER2013 mean "always
sad" and "always happy". The module is pure Python, because the driver calls it at the end of every trial.
"""

from collections.abc import Mapping, Sequence
from typing import Any

COLLAPSED_SHARE = 0.9


def most_answered(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> dict[str, Any]:
    """Return the class that is predicted most often: its name, its share of the predictions, its true share.

    confusion: numbers of images, rows are true classes
    """
    total = sum(map(sum, confusion))
    predicted = [sum(row[index] for row in confusion) for index in range(len(class_names))]
    top = predicted.index(max(predicted))
    return {
        "class": class_names[top],
        "share": predicted[top] / total if total else 0.0,
        "true_share": sum(confusion[top]) / total if total else 0.0,
    }


def collapse(top_class: Mapping[str, Any] | None) -> str:
    """Return e.g. "happy 97.3 %" if the result of `most_answered` is a collapse, else "".

    A network that nearly always predicts the class of nearly all images is not collapsed.
    """
    if not top_class or top_class["share"] <= COLLAPSED_SHARE or top_class["true_share"] > COLLAPSED_SHARE:
        return ""
    return f"{top_class['class']} {100 * top_class['share']:.1f} %"
