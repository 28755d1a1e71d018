"""The images that a reader keeps of all it decoded: classes by `labels`, images by `clean`, then the split.

Note: the cache has every decoded image. Images are dropped here each time the data set is read, and counted in `parts`.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TRAIN, VAL, FaceData, Part, face_data
from ferhpo.data.io.cache import Entry
from ferhpo.data.io.faults import is_whole
from ferhpo.data.io.files import MAX_SIDE
from ferhpo.data.labels.emotions import CLASS_NAMES, EMOTIONS, spelled
from ferhpo.data.labels.label_map import LabelMap, label_faults, mapped
from ferhpo.data.labels.pseudo_labels import agreement
from ferhpo.data.splits import SplitOptions, assign_splits
from ferhpo.data.splits.draw import random_split
from ferhpo.data.splits.groups import image_groups
from ferhpo.data.splits.remedies import warning_of_rare_classes
from ferhpo.errors import ConfigError, DataError

DIFFERS, NO_PSEUDO_LABEL = "whose label and pseudo-label differ", "without a pseudo-label"

log = logging.getLogger(__name__)

_ClassOf = Callable[[str], str | None]


def key_faults(
    options: SplitOptions,
    splits: tuple[str, ...],
    image_size: int | None,
    channels: int,
    labels: LabelMap | None,
    classes: tuple[str, ...] | None = EMOTIONS,
) -> list[str]:
    """Return one sentence per invalid setting.

    splits: the valid values of options.split
    classes: the classes of the source; None if they are the names of its folders
    """
    faults = options.faults(splits) + (label_faults(labels, classes, classes) if classes else [])
    if channels not in (1, 3) or not is_whole(channels):
        faults.append(f"data.channels is {channels}; it must be 1 (gray) or 3 (color)")
    if image_size is not None and not is_whole(image_size, 1):
        faults.append(f"data.image_size is {image_size}; it must be at least 1, or null to keep the size of the images")
    elif image_size is not None and image_size > MAX_SIDE:
        faults.append(f"data.image_size is {image_size}; it must be at most {MAX_SIDE:,} pixels")
    return faults


def split_of_folders(where: str, entry: Entry, options: SplitOptions, configured: str | None) -> SplitOptions:
    """Return the options, with a random split if the source has no split folders.

    Raises DataError if the `configured` split needs them.
    """
    if "published" in entry.arrays:
        return options
    if configured in ("published", "folder"):
        rule = f"data.split={configured} needs folders train and val or test, which it does not have"
        raise DataError(where, [f"{rule}; set data.split=random"])
    return replace(options, split="random")


def select(
    reader: str,
    where: str,
    source: Path,
    entry: Entry,
    options: SplitOptions,
    labels: LabelMap | None,
    clean: str | Path | None,
    class_of: _ClassOf | None = None,
    subject_of: Callable[[str], str] | None = None,
) -> FaceData:
    """Build the data set from the cache entry of a reader.

    reader: its name in conf/data
    where: the first words of a DataError, e.g. "data.path is CK48"
    entry: has the arrays images, labels (indices into meta classes) and, if the source has a split, published; and the
        meta names (of the files), form (for `source`), classes and, if the reader left out images, dropped (reasons and
        numbers). An array subjects, int64 [N], takes the place of `subject_of`
    options: if split is "published" and the source has no VAL images, val_fraction of TRAIN becomes VAL
    class_of: returns the class that a text of the pseudo-label CSV means; by default one of meta classes, any spelling
    subject_of: returns the subject of a file; no split divides the images of a subject
    Raises ConfigError if `labels` names an unknown class or leaves fewer than two, DataError for faults of the data.
    """
    given = tuple(entry.meta["classes"])
    is_emotions = given == EMOTIONS  # the classes of other sources are sorted, which EMOTIONS is not
    if not is_emotions and (faults := label_faults(labels, given, None)):
        raise ConfigError(f"data={reader}", faults)
    becomes = mapped(labels, given, EMOTIONS if is_emotions else None)
    images, codes, names = entry.arrays["images"], entry.arrays["labels"], entry.meta["names"]
    dropped = [(str(reason), int(number)) for reason, number in entry.meta.get("dropped", ())]
    keep = np.array([becomes[given[code]] is not None for code in codes])
    for code, name in enumerate(given):
        if becomes[name] is None and (number := int((codes == code).sum())):
            dropped.append((f"of class {name}", number))
    if clean is not None:
        agrees, has_row = agreement(
            clean, source, names, [given[code] for code in codes], class_of or (lambda text: spelled(text, given))
        )
        for reason, mask in ((DIFFERS, has_row & ~agrees), (NO_PSEUDO_LABEL, ~has_row)):
            if number := int((keep & mask).sum()):
                dropped.append((reason, number))
        keep &= agrees
    if not keep.any():
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in dropped)
        raise DataError(where, [f"no image is left (dropped: {reasons}); change data.labels or data.clean"])
    kept_names = [str(becomes[given[code]]) for code in codes[keep]]
    class_names = _class_names(set(kept_names), is_emotions)
    if len(set(kept_names)) < 2 and not labels:
        raise DataError(where, [f"it has only one class, {kept_names[0]}; a classifier needs at least two"])
    if len(set(kept_names)) < 2:
        rule = f"data.labels leaves only one class, {kept_names[0]}; a classifier needs at least two"
        raise ConfigError(f"data={reader}", [rule])

    images_digest = entry.digests.get("images") if keep.all() else None
    images = images if keep.all() else images[keep]
    new_labels = np.array([class_names.index(name) for name in kept_names], np.int64)
    published = entry.arrays["published"][keep] if "published" in entry.arrays else None
    kept_files = [name for name, kept in zip(names, keep, strict=True) if kept]
    subjects = None if subject_of is None else _numbers([subject_of(name) for name in kept_files])
    if "subjects" in entry.arrays:
        subjects = entry.arrays["subjects"][keep]
    by_subject, given_split = subjects is not None, published
    takes_val = options.split == "published" and published is not None and not (published == VAL).any()
    groups = image_groups(images, subjects) if takes_val or options.split == "random" else None

    def draw(val_fraction: float) -> NDArray[np.uint8]:
        """Return the split with this fraction of val: of all images, or of a published train if it has no val."""
        assert groups is not None
        if options.split == "random":
            fractions = val_fraction, options.test_fraction
            return random_split(new_labels, groups, *fractions, options.split_seed, None, by_subject)
        assert given_split is not None
        train = given_split == TRAIN
        drawn = random_split(new_labels, groups, val_fraction, 0.0, options.split_seed, train, by_subject)
        return np.where(train, drawn, given_split)

    if takes_val:
        published = draw(options.val_fraction)
    split, split_name = assign_splits(
        where, f"data={reader}", options, published, images, new_labels, subjects=subjects
    )
    is_cut = options.folds is not None or options.train_subset is not None
    if groups is not None and not is_cut:
        warning = warning_of_rare_classes(new_labels, split, class_names, options, draw)
        if warning is not None:
            log.warning("%s: %s", where, warning)
    description = f"{source.name} ({', '.join([entry.meta['form'], *_changes(becomes, clean)])})"
    part = Part(reader, description, len(images), tuple(dropped))
    return face_data(
        images,
        new_labels,
        split,
        class_names,
        description,
        split_name,
        images_digest=images_digest,
        groups=subjects,
        parts=(part,),
    )


def _class_names(present: set[str], is_emotions: bool) -> tuple[str, ...]:
    """Return the class names: FER2013's seven even if some have no images, or the sorted names of other classes."""
    if not is_emotions:
        return tuple(sorted(present))
    return EMOTIONS if present - set(CLASS_NAMES) else CLASS_NAMES


def _changes(becomes: dict[str, str | None], clean: str | Path | None) -> list[str]:
    changes = [f"without {name}" if to is None else f"{name} as {to}" for name, to in becomes.items() if to != name]
    return changes if clean is None else [*changes, f"cleaned by {Path(clean).name}"]


def _numbers(names: list[str]) -> NDArray[np.int64]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
