"""The reader that merges further data sets into the training images of a main one.

Note: val and test hold images of the main source only, whatever its split is. Images of the further sources are only
used for training, and those identical to a val or test image of the main source are dropped. Scores with and without
merging are therefore scores on the same images.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ferhpo.data.dataset import TEST, TRAIN, UNUSED, VAL, FaceData, Part, face_data
from ferhpo.data.io.faults import one_of
from ferhpo.data.io.files import resize_images
from ferhpo.data.labels.emotions import emotion_of, spelled
from ferhpo.data.labels.label_map import DROP
from ferhpo.data.splits import identical_groups, with_fold
from ferhpo.data.splits.options import fold_faults
from ferhpo.errors import ConfigError, DataError
from ferhpo.keys import closest

TAKES = ("all", "train")
IDENTICAL = "identical to a val or test image of main"

Reader = Callable[..., FaceData]


def load(
    main: Reader,
    merge: Mapping[str, Reader],
    take: str = "all",
    folds: int | None = None,
    fold: int | None = None,
    split_seed: int = 0,
) -> FaceData:
    """Read all sources and merge them: images uint8 [N, S, S] or [N, S, S, 3], those of the main source first.

    main, merge: readers with their settings, e.g. functools.partial(ckplus.load, "CK48"); sections with a _target_ in a
        configuration. A further source whose path is null is skipped. Each is read in the size and channels of the main
        source. Its classes must be those of the main source, in any spelling; its `labels` renames or drops others.
        Contempt is dropped if the main source does not have it.
    take: "all" images of the further sources, or only those in "train" by the split of each
    folds, fold, split_seed: see splits.SplitOptions; folds cut the images of the main source only
    Raises ConfigError or DataError with every fault of every source.
    """
    faults = fold_faults(folds, fold)
    if take not in TAKES:
        faults.append(f"data.take is {take}; it must be {one_of(TAKES)}")
    if not isinstance(merge, Mapping):
        faults.append(f"data.merge is {merge}; it must be a mapping from names to data sets")
        merge = {}
    faults += [
        f"data.{key} is {reader}; it must be a data set with its _target_"
        for key, reader in [("main", main), *((f"merge.{name}", value) for name, value in merge.items())]
        if not callable(reader)
    ]
    wanted = {name: reader for name, reader in merge.items() if not _is_left_out(reader)}
    if not wanted:
        keys = one_of([f"data.merge.{name}.path" for name in merge] or ["data.merge"])
        faults.append(f"data.merge has no source to merge; set {keys}, or use the main data set alone")
    if faults:
        raise ConfigError("data=merged", faults)

    broken: list[ConfigError | DataError] = []
    first = _read("data.main", main, {}, broken)
    form = {} if first is None else {"image_size": first.image_size, "channels": first.channels}
    further = {name: _read(f"data.merge.{name}", reader, form, broken) for name, reader in wanted.items()}
    if broken:
        raise _together(broken)
    assert first is not None
    merged = _merge(first, {name: data for name, data in further.items() if data is not None}, take)
    return merged if folds is None or fold is None else with_fold(merged, folds, fold, split_seed)


def _is_left_out(reader: Any) -> bool:
    return getattr(reader, "keywords", {}).get("path", "") is None


def _read(key: str, reader: Reader, form: dict[str, int], broken: list[ConfigError | DataError]) -> FaceData | None:
    """Call a reader, with those keys of `form` that it takes and that are not set; append its error to `broken`."""
    names = list(inspect.signature(getattr(reader, "func", reader)).parameters)
    given = getattr(reader, "keywords", {})
    try:
        return reader(**{name: value for name, value in form.items() if name in names and name not in given})
    except (ConfigError, DataError) as error:
        # A reader calls its key data.path; here that is data.main.path. The pattern matches keys, never file names.
        own_key = re.compile(rf"(?<![\w./\\-])data\.(?=(?:{'|'.join(names)})\b)")
        where = own_key.sub(f"{key}.", error.where) if isinstance(error, DataError) else "data=merged"
        broken.append(type(error)(where, [own_key.sub(f"{key}.", fault) for fault in error.faults]))
        return None


def _together(broken: list[ConfigError | DataError]) -> ConfigError | DataError:
    if len(broken) == 1:
        return broken[0]
    faults: list[str] = []
    for error in broken:
        before = "" if isinstance(error, ConfigError) else f"{error.where}: "
        faults += [f"{before}{fault}" for fault in error.faults]
    kind = ConfigError if all(isinstance(error, ConfigError) for error in broken) else DataError
    return kind("data=merged", faults)


def _merge(main: FaceData, further: Mapping[str, FaceData], take: str) -> FaceData:
    faults: list[str] = []
    codes = {name: _codes(name, data, main, faults) for name, data in further.items()}
    if faults:
        raise ConfigError("data=merged", faults)
    images, labels, split = [main.images], [main.labels], [main.split]
    groups = [np.arange(len(main.labels)) if main.groups is None else main.groups]
    own = main.parts or (Part("main", main.source, len(main.labels)),)
    parts = [replace(part, name="main") for part in own] if len(own) == 1 else list(own)
    held_out = main.images[(main.split == VAL) | (main.split == TEST)]
    for name, data in further.items():
        chosen = data.split == TRAIN if take == "train" else data.split != UNUSED
        candidates = _convert(data.images[chosen], main)
        new_labels = codes[name][data.labels[chosen]]
        has_class = new_labels >= 0
        looks = identical_groups(np.concatenate([held_out, candidates]))
        leaks = np.isin(looks[len(held_out) :], looks[: len(held_out)])
        keep = has_class & ~leaks
        dropped = [pair for part in data.parts for pair in part.dropped]
        for reason, mask in (("of class contempt", ~has_class), (IDENTICAL, has_class & leaks)):
            dropped += [(reason, int(mask.sum()))] if mask.any() else []
        images.append(candidates[keep])
        labels.append(new_labels[keep])
        split.append(np.full(int(keep.sum()), TRAIN, np.uint8))
        numbers = identical_groups(data.images) if data.groups is None else data.groups
        groups.append(numbers[chosen][keep] - numbers.min() + groups[-1].max() + 1)
        parts.append(Part(name, data.source, int(keep.sum()), tuple(dropped), train_only=True))
    all_labels = np.concatenate(labels)
    targets = None
    if main.targets is not None:
        one_hot = np.eye(main.num_classes, dtype=np.float32)[all_labels[len(main.labels) :]]
        targets = np.concatenate([main.targets, one_hot])
    has_groups = any(data.groups is not None for data in (main, *further.values()))
    return face_data(
        np.concatenate(images),
        all_labels,
        np.concatenate(split),
        main.class_names,
        " + ".join(data.source for data in (main, *further.values())),
        main.split_name,
        targets,
        groups=np.concatenate(groups) if has_groups else None,
        parts=tuple(parts),
    )


def _codes(name: str, data: FaceData, main: FaceData, faults: list[str]) -> NDArray[np.int64]:
    """Return the main source's label for each label of a further source; -1 for contempt if the main one lacks it."""
    codes = np.full(data.num_classes, -1)
    for label, class_name in enumerate(data.class_names):
        same = spelled(class_name, main.class_names)
        if same is not None:
            codes[label] = main.class_names.index(same)
        elif emotion_of(class_name) != "contempt" and (data.labels == label).any():
            like = closest(class_name, main.class_names)
            remedy = f"set data.merge.{name}.labels={{{class_name}: {like or DROP}}}" + f", or {DROP}" * bool(like)
            rule = f"data.merge.{name} has the class {class_name}, which data.main does not have"
            faults.append(f"{rule} (it has: {', '.join(main.class_names)}); {remedy}")
    return codes


def _convert(images: NDArray[np.uint8], main: FaceData) -> NDArray[np.uint8]:
    """Return the images in the size and channels of the main source, as its reader would have decoded them."""
    if images.ndim == 4 and main.channels == 1:
        images = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])
    if images.shape[1] != main.image_size:
        images = resize_images("data=merged", images, main.image_size)
    if images.ndim == 3 and main.channels == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    return images
