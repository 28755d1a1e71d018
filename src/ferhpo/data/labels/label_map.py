"""What a setting `labels` makes of the classes of a source: `{contempt: drop}`, `{contempt: disgust, joy: happy}`.

Classes that the setting does not name stay as they are. Both sides may be spelled as data sets do (anger, Happy).
"""

from collections.abc import Mapping
from typing import Any

from ferhpo.data.io.faults import nearest, one_of
from ferhpo.data.labels.emotions import emotion_of, spelled

DROP = "drop"

LabelMap = Mapping[str, str]


def label_faults(labels: Any, given: tuple[str, ...], classes: tuple[str, ...] | None) -> list[str]:
    """One sentence for each entry of `data.labels` that cannot be.

    given: the classes of the source; an emotion that it happens to lack may be named all the same
    classes: what a class may become besides "drop"; None for any name
    """
    if labels is None:
        return []
    if not isinstance(labels, Mapping):
        return [f"data.labels is {labels}, and it says what becomes of a class, as data.labels={{contempt: drop}}"]
    faults = []
    seen: dict[str, str] = {}
    for name, target in labels.items():
        key = f"data.labels.{name}"
        found = spelled(str(name), given) or emotion_of(str(name))
        if found is None:
            like = nearest(str(name), given)
            remedy = f"did you mean {like}?" if like else f"there are {', '.join(given)}"
            faults.append(f"{key} matches no class; {remedy}")
        elif found in seen:
            faults.append(f"{key} and data.labels.{seen[found]} mean the same class; keep one")
        if found is not None:
            seen.setdefault(found, str(name))
        if not isinstance(target, str) or not target.strip():
            faults.append(f"{key} is {target}, and it is drop or the name of a class")
        elif classes is not None and target != DROP and spelled(target, classes) is None:
            like = nearest(target, (DROP, *classes))
            hint = f"; did you mean {like}?" if like else ""
            faults.append(f"{key} is {target}, and it is {one_of((DROP, *classes))}{hint}")
    return faults


def mapped(labels: LabelMap | None, given: tuple[str, ...], classes: tuple[str, ...] | None) -> dict[str, str | None]:
    """What each of the given classes becomes, None where it is dropped; `labels` has no faults."""
    targets: dict[str, str | None] = {name: name for name in given}
    for name, target in (labels or {}).items():
        found = spelled(str(name), given)
        if found is not None:
            becomes = target if classes is None else spelled(target, classes)
            targets[found] = None if target == DROP else becomes
    return targets
