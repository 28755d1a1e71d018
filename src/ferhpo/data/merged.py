"""One main source, and further sources that are merged into its training images.

Validation and test images are the main source's alone, whatever split it has: further images only ever train, and those
that are identical to a validation or test image of the main source are dropped. So scores with and without merging are
scores on the same images.
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
from ferhpo.data.io.faults import nearest, one_of
from ferhpo.data.io.files import resize_images
from ferhpo.data.labels.emotions import emotion_of, spelled
from ferhpo.data.labels.label_map import DROP
from ferhpo.data.splits import SplitOptions, identical_groups, with_fold
from ferhpo.errors import ConfigError, DataError

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
    """Read all sources and merge: images uint8 [N, S, S] or [N, S, S, 3], the main source's first and in its form.

    main, merge: readers with their settings, as functools.partial(ckplus.load, "CK48"); in a configuration sections
        with a _target_. A further source whose path is null is left out. Each is read in the main source's size and
        channels, and its classes must be the main source's in any spelling; `labels` of its reader maps or drops
        others. Contempt is dropped where the main source has no such class.
    take: "all" images of the further sources, or those that "train" by the split of each
    folds, fold, split_seed: as for other data sets; folds divide the images of the main source
    Raises ConfigError or DataError with every fault of every source.
    """
    faults = SplitOptions("random", folds=folds, fold=fold).faults(("random",))
    if take not in TAKES:
        faults.append(f"data.take is {take}, and it is {one_of(TAKES)}")
    if not isinstance(merge, Mapping):
        faults.append(f"data.merge is {merge}, and it holds data sets by name")
        merge = {}
    faults += [
        f"data.{key} is {reader}, and it is a data set with its _target_"
        for key, reader in [("main", main), *((f"merge.{name}", value) for name, value in merge.items())]
        if not callable(reader)
    ]
    wanted = {name: reader for name, reader in merge.items() if not _is_left_out(reader)}
    if not wanted:
        keys = one_of([f"data.merge.{name}.path" for name in merge] or ["data.merge"])
        faults.append(f"data.merge names no source to merge; set {keys}, or use the main source alone")
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
    """Call a reader with as much of the form as it takes and has not been given; its error goes to `broken`."""
    names = list(inspect.signature(getattr(reader, "func", reader)).parameters)
    given = getattr(reader, "keywords", {})
    try:
        return reader(**{name: value for name, value in form.items() if name in names and name not in given})
    except (ConfigError, DataError) as error:
        # Readers speak of data.path; here it is data.main.path. Only a key begins so, never a file's name.
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
    """The main source's label for each label of a further source; -1 for contempt where the main source has none."""
    codes = np.full(data.num_classes, -1)
    for label, class_name in enumerate(data.class_names):
        same = spelled(class_name, main.class_names)
        if same is not None:
            codes[label] = main.class_names.index(same)
        elif emotion_of(class_name) != "contempt" and (data.labels == label).any():
            like = nearest(class_name, main.class_names)
            remedy = f"set data.merge.{name}.labels={{{class_name}: {like or DROP}}}" + f", or {DROP}" * bool(like)
            rule = f"data.merge.{name} has the class {class_name}, and data.main has {', '.join(main.class_names)}"
            faults.append(f"{rule}; {remedy}")
    return codes


def _convert(images: NDArray[np.uint8], main: FaceData) -> NDArray[np.uint8]:
    """Images in the size and channels of the main source, as its reader would have decoded them."""
    if images.ndim == 4 and main.channels == 1:
        images = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])
    if images.shape[1] != main.image_size:
        images = resize_images(images, main.image_size)
    if images.ndim == 3 and main.channels == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    return images
