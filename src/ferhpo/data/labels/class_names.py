"""The labels of a data set in the class order of a model; both number the same classes in their own order."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ferhpo.data.dataset import FaceData
from ferhpo.errors import DataError


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
