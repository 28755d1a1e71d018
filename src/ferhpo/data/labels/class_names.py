"""The names of classes: what they may be, and the labels of a data set in the class order of a model.

Note: a data set and a model number the same classes in their own order.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ferhpo.data.dataset import FaceData
from ferhpo.errors import DataError

MAX_LENGTH = 100  # characters
_CHANGE_DIRECTION = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # of the text around them


def normal(name: str) -> str:
    """Return a name in Unicode's form NFC, in which names are compared; an e with an accent has two spellings."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def name_fault(name: str) -> str | None:
    """Return why a name cannot be that of a class, or None; terminals, reports and MLflow show the names of classes."""
    kinds = {unicodedata.category(character) for character in name}
    if "Cs" in kinds:  # how Python shows bytes that are not UTF-8
        return "is not UTF-8"
    if kinds & {"Cc", "Zl", "Zp"}:
        return "has a line break or another control character"
    if not set(name).isdisjoint(_CHANGE_DIRECTION):
        return "has a character that changes the direction of the text"
    return f"has more than {MAX_LENGTH} characters" if len(name) > MAX_LENGTH else None


def with_classes(data: FaceData, class_names: Sequence[str]) -> FaceData:
    """Return the data set with its labels in the class order of a model. Raises DataError if the classes differ."""
    if data.class_names == tuple(class_names):
        return data
    unknown = [name for name in data.class_names if name not in class_names]
    missing = [name for name in class_names if name not in data.class_names]
    if unknown or missing:
        differences = [f"it has {', '.join(unknown)}, which the model does not predict"] if unknown else []
        differences += [f"it does not have {', '.join(missing)}"] if missing else []
        rule = f"its classes must be those of the model: {', '.join(class_names)}"
        raise DataError(data.source, ["; ".join([*differences, rule])])
    numbers = np.array([class_names.index(name) for name in data.class_names], np.int64)
    order = [data.class_names.index(name) for name in class_names]
    return replace(
        data,
        labels=numbers[data.labels],
        targets=None if data.targets is None else np.ascontiguousarray(data.targets[:, order]),
        class_names=tuple(class_names),
    )
