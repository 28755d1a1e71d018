"""The facts about a data set: counts, duplicates, conflicting labels, blank images, overlap between splits.

Note: two images are identical if all their pixels are equal; a re-encoded JPEG is not identical to its original.
"""

from typing import Any

import numpy as np

from ferhpo.data.dataset import SPLIT_NAMES, TEST, TRAIN, VAL, FaceData
from ferhpo.data.splits import identical_groups
from ferhpo.data.splits.groups import also_in


def describe(data: FaceData) -> dict[str, Any]:
    """Describe a data set in plain JSON values; facts that name no split are about all images, also unused ones."""
    groups = identical_groups(data.images)
    sizes = np.bincount(groups)
    pairs = np.unique(np.stack([groups, data.labels]), axis=1)
    conflicting = np.bincount(pairs[0], minlength=len(sizes)) > 1
    flat = data.images.reshape(len(data.images), -1)
    low, high = flat.min(axis=1), flat.max(axis=1)
    return {
        "source": data.source,
        "split_name": data.split_name,
        "digest": data.digest,
        "num_images": len(data.images),
        "image_size": data.image_size,
        "channels": data.channels,
        "class_names": list(data.class_names),
        "soft_targets": data.targets is not None,
        "counts": {
            name: dict(zip(data.class_names, _counts(data, code), strict=True)) for code, name in enumerate(SPLIT_NAMES)
        },
        "pixels": {"min": int(low.min()), "max": int(high.max()), "mean": round(float(data.images.mean()), 3)},
        "duplicates": {"redundant_images": len(groups) - len(sizes), "groups": int((sizes > 1).sum())},
        "conflicting_labels": {"groups": int(conflicting.sum()), "images": int(conflicting[groups].sum())},
        "blank_images": {"one_value": int((low == high).sum()), "all_black": int((high == 0).sum())},
        "parts": [_part(data, number) for number in range(len(data.parts))],
        "overlap": {
            "val_in_train": int(also_in(data.split, groups, VAL, TRAIN).sum()),
            "test_in_train": int(also_in(data.split, groups, TEST, TRAIN).sum()),
            "test_in_val": int(also_in(data.split, groups, TEST, VAL).sum()),
        },
    }


def _part(data: FaceData, number: int) -> dict[str, Any]:
    """Describe one source of a data set: its images by split, and the number of dropped images by reason."""
    part = data.parts[number]
    start = sum(before.num_images for before in data.parts[:number])
    counts = np.bincount(data.split[start : start + part.num_images], minlength=len(SPLIT_NAMES))
    return {
        "name": part.name,
        "source": part.source,
        "num_images": part.num_images,
        "counts": dict(zip(SPLIT_NAMES, counts.tolist(), strict=True)),
        "dropped": dict(part.dropped),
    }


def _counts(data: FaceData, code: int) -> list[int]:
    return [int(count) for count in np.bincount(data.labels[data.split == code], minlength=data.num_classes)]
