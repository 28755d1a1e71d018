"""Check the skops files of estimators before skops reads them.

Note: skops runs no code of the file, but builds any object of numpy and scikit-learn, from numbers that scikit-learn
does not check: those of a tree say where in memory it reads, and a loop in it never ends.
"""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

# Everything that the skops file of an estimator here is made of, as (module, class, loader); another one could allocate
# any amount of memory. The three belong together: skops calls the loader, which may ignore module and class.
FITTED_NODES = {
    ("builtins", "dict", "DictNode"),
    ("builtins", "list", "ListNode"),
    ("builtins", "str", "JsonNode"),
    ("builtins", "str", "TypeNode"),
    ("builtins", "tuple", "TupleNode"),
    ("numpy", "float64", "NdArrayNode"),
    ("numpy", "int64", "NdArrayNode"),
    ("numpy", "ndarray", "NdArrayNode"),
    ("sklearn.discriminant_analysis", "LinearDiscriminantAnalysis", "ObjectNode"),
    ("sklearn.pipeline", "Pipeline", "ObjectNode"),
    ("sklearn.preprocessing._data", "StandardScaler", "ObjectNode"),
    ("sklearn.svm._classes", "LinearSVC", "ObjectNode"),
    ("sklearn.tree._classes", "DecisionTreeClassifier", "ObjectNode"),
    TREE := ("sklearn.tree._tree", "Tree", "TreeNode"),
}
MOST_FITTED_BYTES, MOST_FITTED_NODES = 300_000_000, 5000


def are_numbers(values: Any, shape: tuple[int, ...]) -> bool:
    """Return whether an array has this shape and finite numbers."""
    return bool(values.shape == shape and values.dtype.kind in "fi" and np.isfinite(values).all())


def check_skops(data: bytes, num_inputs: int, num_classes: int) -> None:
    """Raise an exception if a skops file has something that no estimator here writes; skops then builds it.

    Note: scikit-learn's trees are built from numbers that it does not check, and that say where in memory it reads.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > MOST_FITTED_BYTES:
            raise ValueError(f"its content is larger than {MOST_FITTED_BYTES / 1e6:.0f} MB")
        if archive.getinfo("schema.json").file_size > MOST_FITTED_BYTES // 100:
            raise ValueError("its schema.json is too large")
        nodes = list(_skops_nodes(json.loads(archive.read("schema.json"))))
        if foreign := sorted(
            {"{}.{} ({})".format(*_kind_of_node(node)) for node in nodes if _kind_of_node(node) not in FITTED_NODES}
        ):
            raise ValueError(f"Untrusted types found: {', '.join(foreign)[:200]}")
        known: dict[Any, Any] = {}
        files: dict[Any, Any] = {}
        for node in nodes:
            identity = node.get("__id__")
            # skops takes the first node with an id for all of them.
            if type(identity) is not int or known.setdefault(identity, node) != node:
                raise ValueError("two of its objects have the same id")
            if "file" in node and files.setdefault(node["file"], identity) != identity:
                raise ValueError("two of its objects have the same file")
            if _kind_of_node(node) == TREE and not _is_tree(node, archive, num_inputs, num_classes):
                raise ValueError("its tree is damaged")


def _kind_of_node(node: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(node.get(key)) for key in ("__module__", "__class__", "__loader__"))


def _skops_nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects that a schema describes. Raises ValueError if they are too many."""
    left, count = [schema], 0
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
            if "__class__" in value or "__loader__" in value:
                count += 1
                yield value
        elif isinstance(value, list):
            left += value
        if count > MOST_FITTED_NODES:
            raise ValueError(f"it has more than {MOST_FITTED_NODES:,} objects")


def _is_tree(node: Mapping[str, Any], archive: zipfile.ZipFile, num_inputs: int, num_classes: int) -> bool:
    """Return whether every node of a tree leads to a later one or is a leaf, and asks for an input that exists."""
    features, classes, outputs = node["__reduce__"]["args"]["content"]
    state = node["content"]["content"]
    nodes, values, num_values = (
        np.lib.format.read_array(io.BytesIO(archive.read(array["file"])))
        for array in (state["nodes"], state["values"], classes)
    )
    if any(array["type"] != "numpy" for array in (state["nodes"], state["values"], classes)):
        return False
    numbers = (features["content"], outputs["content"], state["node_count"]["content"])
    if numbers != (str(num_inputs), "1", str(len(nodes))) or nodes.ndim != 1 or len(nodes) == 0:
        return False
    if num_values.shape != (1,) or num_values.dtype != np.int64 or not 0 < num_values[0] <= num_classes:
        return False
    places, is_inner = np.arange(len(nodes)), nodes["left_child"] != -1
    sides, asked = (nodes["left_child"], nodes["right_child"]), nodes["feature"]
    return bool(
        are_numbers(values, (len(nodes), 1, int(num_values[0])))
        and all(((side > places) & (side < len(nodes)))[is_inner].all() for side in sides)
        and ((asked >= 0) & (asked < num_inputs))[is_inner].all()
        and not np.isnan(nodes["threshold"]).any()
    )
