"""The setting `labels`, which renames or drops classes: `{contempt: drop}`, `{contempt: disgust, joy: happy}`.

Classes that it does not name stay as they are. Keys and values may have any spelling found in data sets (anger, Happy).
"""

from collections.abc import Mapping
from typing import Any

from ferhpo.data.io.faults import one_of
from ferhpo.data.labels.class_names import name_fault, normal
from ferhpo.data.labels.emotions import emotion_of, spelled
from ferhpo.keys import closest

DROP = "drop"

LabelMap = Mapping[str, str]


def label_faults(labels: Any, given: tuple[str, ...], classes: tuple[str, ...] | None) -> list[str]:
    """Return one sentence per invalid entry of `data.labels`.

    given: the classes of the source; an entry may also name an emotion that the source does not have
    classes: the names that a class may get besides "drop"; None for any name
    """
    if labels is None:
        return []
    if not isinstance(labels, Mapping):
        return [f"data.labels is {labels}; it must be a mapping from classes, e.g. data.labels={{contempt: drop}}"]
    faults = []
    key_of: dict[str, str] = {}
    for name, target in labels.items():
        key = f"data.labels.{name}"
        found = spelled(str(name), given) or emotion_of(str(name))
        if found is None:
            like = closest(str(name), given)
            remedy = f"did you mean {like}?" if like else f"there are: {', '.join(given)}"
            faults.append(f"{key} matches no class; {remedy}")
        elif found in key_of:
            faults.append(f"{key} and data.labels.{key_of[found]} mean the same class; keep one")
        if found is not None:
            key_of.setdefault(found, str(name))
        if not isinstance(target, str) or not target.strip():
            faults.append(f"{key} is {target}; it must be {DROP} or the name of a class")
        elif rule := name_fault(target):
            faults.append(f"{key} is {target!r}, which {rule}; it must be {DROP} or the name of a class")
        elif classes is not None and target != DROP and spelled(target, classes) is None:
            like = closest(target, (DROP, *classes))
            hint = f"; did you mean {like}?" if like else ""
            faults.append(f"{key} is {target}; it must be {one_of((DROP, *classes))}{hint}")
    return faults


def mapped(labels: LabelMap | None, given: tuple[str, ...], classes: tuple[str, ...] | None) -> dict[str, str | None]:
    """Return the new name of each given class, None if it is dropped; `labels` must have no faults."""
    targets: dict[str, str | None] = {name: name for name in given}
    for name, target in (labels or {}).items():
        found = spelled(str(name), given)
        if found is not None:
            becomes = normal(target) if classes is None else spelled(target, classes)
            targets[found] = None if target == DROP else becomes
    return targets
