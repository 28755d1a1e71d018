"""The same classes in another order: a model and a data set number them each in their own way."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ferhpo.data.dataset import FaceData
from ferhpo.errors import DataError


def with_classes(data: FaceData, class_names: Sequence[str]) -> FaceData:
    """The data set with its labels numbered as a model numbers its classes. DataError where the names differ."""
    if data.class_names == tuple(class_names):
        return data
    unknown = [name for name in data.class_names if name not in class_names]
    missing = [name for name in class_names if name not in data.class_names]
    if unknown or missing:
        parts = [f"it has {', '.join(unknown)}, which the model does not answer"] if unknown else []
        parts += [f"it lacks {', '.join(missing)}"] if missing else []
        parts += [f"the classes must be those of the model: {', '.join(class_names)}"]
        raise DataError(data.source, ["; ".join(parts)])
    numbers = np.array([class_names.index(name) for name in data.class_names], np.int64)
    order = [data.class_names.index(name) for name in class_names]
    return replace(
        data,
        labels=numbers[data.labels],
        targets=None if data.targets is None else np.ascontiguousarray(data.targets[:, order]),
        class_names=tuple(class_names),
    )
