"""Read model.json, which describes an exported model and may come from anyone."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ferhpo.disk import read_file
from ferhpo.parse import parse_json

DIGEST_TAG = "ferhpo.model_json_sha256"  # of logged models and their versions
MOST_BYTES = 10_000_000
MOST_CLASSES = 10_000
MOST_MEMBERS = 100


def read_description(path: Path) -> dict[str, Any]:
    """Return the content of a model.json. Raises ValueError if it is not what an export writes."""
    try:
        content = parse_json(read_file(path, MOST_BYTES))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); export the model again") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); export the model again") from None
    if fault := description_fault(content):
        raise ValueError(f"{path} is damaged: {fault}; export the model again")
    return content  # type: ignore[no-any-return]


def description_fault(content: Any) -> str:
    """Return what is wrong with the content of a model.json; empty if nothing."""
    if not isinstance(content, Mapping):
        return f"it is a {type(content).__name__}, not an object"
    for key, is_right, rule in _RULES:
        if not is_right(content.get(key)):
            shown = repr(content[key])[:60] if key in content else "missing"
            return f"{key} is {shown}; it must be {rule}"
    return ""


def _is_network(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("name"), str)
        and isinstance(value.get("target", ""), str)
        and isinstance(value.get("arguments"), Mapping)
        and all(_is_bounded(number) for number in value["arguments"].values())
    )


def _is_bounded(value: Any) -> bool:
    """Return whether an integer fits in what torch takes for a size; other values do."""
    return not isinstance(value, int) or abs(value) < 2**63


def _is_classes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= MOST_CLASSES
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


def _is_preprocess(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    sides = (value.get("image_size"), value.get("input_size"))
    lists = (value.get("mean"), value.get("std"))
    return (
        value.get("channels") in (1, 3)
        and all(type(side) is int and 0 < side <= 10_000 for side in sides)
        and isinstance(value.get("normalise"), str)
        and all(isinstance(numbers, list) and all(map(_is_finite, numbers)) for numbers in lists)
    )


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)


def _is_scores(value: Any) -> bool:
    numbers = value.values() if isinstance(value, Mapping) else ()
    is_right = all(not isinstance(number, int) or abs(number) < 1e300 for number in numbers)
    return value is None or (isinstance(value, Mapping) and is_right)


def _is_members(value: Any) -> bool:
    return value is None or (
        isinstance(value, list)
        and 0 < len(value) <= MOST_MEMBERS
        and all(isinstance(member, Mapping) and not description_fault({**_ALONE, **member}) for member in value)
        and all(_is_finite(member.get("share")) and 0 < member["share"] <= 1 for member in value)
        and not any("members" in member for member in value)
    )


_ALONE = {"class_names": ["a"]}  # what a member of an ensemble has in common with the others
_RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("network", _is_network, "an object with name, arguments and, in newer files, target"),
    ("class_names", _is_classes, f"a list of 1 to {MOST_CLASSES:,} different names"),
    ("preprocess", _is_preprocess, "an object with channels, image_size, input_size, normalise, mean and std"),
    ("weights_sha256", lambda value: value is None or isinstance(value, str), "a text"),
    ("hog", lambda value: value is None or isinstance(value, Mapping), "null or an object"),
    ("members", _is_members, "null, or a list of objects with network, preprocess and a share from 0 to 1"),
    ("scores", _is_scores, "null or an object with numbers"),
)
