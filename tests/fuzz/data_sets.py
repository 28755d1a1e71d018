"""The targets of the fuzzer: small valid data sets in every form that ferhpo reads, and their readers."""

import csv
import json
import random
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ferhpo.data import affectnet, ckplus, fer2013, image_folder, image_table, merged, sfew, synthetic
from ferhpo.data.io.ckplus_original import CODES
from ferhpo.data.io.fer2013_csv import VOTE_COLUMNS
from ferhpo.data.labeled_files import ferplus, jaffe, kdef, rafdb
from ferhpo.data.labels.emotions import CLASS_NAMES
from tests.fuzz.fuzzing import Target

USAGES = ("Training", "Training", "PublicTest", "PrivateTest")


def _draw(path: Path, seed: int, side: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(pixels).save(path)


def _fer2013_csv(folder: Path) -> None:
    with (folder / "fer2013.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["emotion", "pixels", "Usage"])
        for row in range(16):
            out.writerow([row % 7, " ".join([str(row)] * 2304), USAGES[row % 4]])


def _ferplus(folder: Path) -> None:
    _fer2013_csv(folder)
    with (folder / "ferplus.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(VOTE_COLUMNS)
        out.writerows([[(row * column) % 7 for column in range(1, 11)] for row in range(16)])


def _fer2013_folders(folder: Path) -> None:
    for number, name in enumerate(CLASS_NAMES):
        _draw(folder / "train" / name / f"Training_{number}.png", number)
        for usage in ("PublicTest", "PrivateTest"):
            _draw(folder / "test" / name / f"{usage}_{number}.png", 100 * len(usage) + number)


def _classes(folder: Path) -> None:
    for number, name in enumerate(("glad", "sad", "bored")):
        for split, count in (("train", 3), ("val", 1), ("test", 1)):
            for index in range(count):
                _draw(folder / split / name / f"{index}.png", 1000 * len(split) + 10 * number + index)


def _pseudo_labels(folder: Path) -> None:
    _classes(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    rows = [f"{name},{name.split('/')[1]},{name.split('/')[1]}" for name in names]
    (folder / "labels.csv").write_text("\n".join(["file,label,pseudo_label", *rows]) + "\n")


def _table(folder: Path) -> None:
    rows = []
    for index in range(16):
        _draw(folder / "img" / f"{index}.png", index)
        split = ("train", "train", "val", "test")[index % 4]
        rows.append(f"img/{index}.png,{('happy', 'sad')[index % 3 > 0]},{split},{index}")
    (folder / "table.csv").write_text("\n".join(["file,label,split,subject", *rows]) + "\n")


def _parquet(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    _table(folder)
    images = [{"bytes": (folder / "img" / f"{index}.png").read_bytes(), "path": None} for index in range(16)]
    made = pyarrow.table({"image": images, "label": [index % 3 for index in range(16)]})
    names = {"label": {"_type": "ClassLabel", "names": ["a", "b", "c"]}}
    made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": names}})})
    parquet.write_table(made, folder / "table.parquet")


def _rafdb(folder: Path) -> None:
    names = [f"train_{index:05}.jpg {1 + index % 7}" for index in range(14)]
    names += [f"test_{index:04}.jpg {1 + index % 7}" for index in range(7)]
    for seed, line in enumerate(names):
        _draw(folder / "Image" / "aligned" / line.split()[0].replace(".", "_aligned."), seed)
    (folder / "list_patition_label.txt").write_text("\n".join(names) + "\n")


def _jaffe(folder: Path) -> None:
    for seed in range(20):
        _draw(folder / f"{'ABCDEFGHIJ'[seed % 10]}A.{('HA', 'SA')[seed // 10]}1.{seed}.tiff", seed)


def _kdef(folder: Path) -> None:
    for seed in range(20):
        _draw(folder / f"AF{seed % 10:02}" / f"AF{seed % 10:02}{('HA', 'SA')[seed // 10]}S.JPG", seed)


def _ferplus_folders(folder: Path) -> None:
    rows = []
    for index, part in enumerate(("Train", "Train", "Train", "Valid", "Test")):
        _draw(folder / f"FER2013{part}" / f"fer{index:07}.png", index)
        rows.append(f"{part},fer{index:07}.png," + ",".join(str(index * column % 7) for column in range(1, 11)))
    (folder / "fer2013new.csv").write_text("\n".join([f"Usage,Image name,{','.join(VOTE_COLUMNS)}", *rows]) + "\n")


def _affectnet(folder: Path) -> None:
    for number in range(8):
        for index in range(2):
            _draw(folder / "train" / str(number) / f"{index}.png", 10 * number + index, 60)
        _draw(folder / "val" / str(number) / "v.png", 900 + number, 60)
    rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    (folder / "labels.csv").write_text("\n".join(["pth,pseudo_label", *rows]) + "\n")


def _ckplus_folders(folder: Path) -> None:
    for number, name in enumerate(("anger", "contempt", "happy")):
        for subject in range(4):
            for frame in (1, 2):
                _draw(folder / name / f"S{subject:03}_{number:03}_{frame:08}.png", 100 * number + 10 * subject + frame)


def _ckplus_original(folder: Path) -> None:
    for subject in range(6):
        sequence = f"S{subject:03}/001"
        for frame in range(1, 5):
            name = f"S{subject:03}_001_{frame:08}"
            _draw(folder / "cohn-kanade-images" / sequence / f"{name}.png", 10 * subject + frame, 60)
            points = "\n".join(f"  {20 + point:.4e}  {25 + subject + point:.4e}" for point in range(5))
            (folder / "Landmarks" / sequence).mkdir(parents=True, exist_ok=True)
            (folder / "Landmarks" / sequence / f"{name}_landmarks.txt").write_text(points)
        (folder / "Emotion" / sequence).mkdir(parents=True)
        (folder / "Emotion" / sequence / f"{name}_emotion.txt").write_text(
            f"   {1 + subject % (len(CODES) - 1)}.0e+00\n"
        )


def _sfew(folder: Path) -> None:
    for split in ("Train", "Val"):
        for number, name in enumerate(("Angry", "Happy", "Sad")):
            for index in range(2):
                _draw(
                    folder / split / name / f"Film{index}_00{number}_0{index}.png",
                    len(split) * 100 + 10 * number + index,
                )


def _zipped(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        inside = folder / "inside"
        inside.mkdir()
        make(inside)
        with zipfile.ZipFile(folder / "data.zip", "w", zipfile.ZIP_DEFLATED) as out:
            for path in sorted(inside.rglob("*")):
                out.write(path, path.relative_to(inside))
        for path in sorted(inside.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        inside.rmdir()

    return write


def _merged(folder: Path) -> None:
    _fer2013_csv(folder)
    (folder / "ck").mkdir()
    _ckplus_folders(folder / "ck")


def _read_merged(folder: Path) -> Any:
    main = partial(fer2013.load, folder / "fer2013.csv", cache_dir=folder / ".cache")
    more = partial(ckplus.load, folder / "ck", val_fraction=0.3, test_fraction=0.2, cache_dir=folder / ".cache")
    return merged.load(main, {"ckplus": more}).digest


def _reads(load: Callable[..., Any], name: str = ".", **keys: Any) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        given = {key: folder / value if key == "clean" else value for key, value in keys.items()}
        return load(folder / name, cache_dir=folder.parent / "cache", **given).digest

    return read


def _cached(folder: Path) -> None:
    """A folder whose images have been read once; the cache in it is mutated."""
    _classes(folder.parent / "faces")
    _read_cached(folder)


def _read_cached(folder: Path) -> Any:
    return image_folder.load(folder.parent / "faces", cache_dir=folder).digest


def _read_oddly(folder: Path) -> Any:
    """Read with the settings that _odd_settings chose for this folder."""
    return image_folder.load(folder, cache_dir=folder.parent / "cache", **_SETTINGS.get(folder, {})).digest


def _nothing(folder: Path) -> None:
    pass


def _read_drawn(folder: Path) -> Any:
    return synthetic.load(**{"num_train": 4, "num_val": 2, "num_test": 0, **_SETTINGS.get(folder, {})}).digest


def _odd_settings(rng: random.Random, folder: Path) -> str:
    """Choose senseless settings for a reader."""
    _SETTINGS.clear()
    keys = KEYS if any(folder.iterdir()) else DRAWN_KEYS
    _SETTINGS[folder] = {key: rng.choice(ODD_VALUES) for key in rng.sample(keys, rng.choice((1, 1, 2, 3)))}
    return str(_SETTINGS[folder])


_SETTINGS: dict[Path, dict[str, Any]] = {}
ODD_VALUES = (
    None,
    True,
    -1,
    0,
    2,
    10**30,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\0",
    [],
    [1],
    {},
    {"glad": 5},
    {1: 2},
    b"a",
)
KEYS = (
    *("labels", "clean", "split", "val_fraction", "test_fraction", "folds", "fold", "split_seed", "train_subset"),
    *("image_size", "channels"),
)
DRAWN_KEYS = (
    *("num_train", "num_val", "num_test", "image_size", "difficulty", "label_noise", "imbalance", "seed"),
    *("folds", "fold", "split_seed"),
)


DATA_SETS = {
    "fer2013_csv": Target(_fer2013_csv, _reads(fer2013.load, "fer2013.csv")),
    "fer2013_csv_zip": Target(_zipped(_fer2013_csv), _reads(fer2013.load, "data.zip")),
    "fer2013_folders": Target(_fer2013_folders, _reads(fer2013.load)),
    "ferplus_votes": Target(_ferplus, _reads(fer2013.load, "fer2013.csv", labels="ferplus_shares")),
    "ckplus_folders": Target(_ckplus_folders, _reads(ckplus.load, val_fraction=0.3, test_fraction=0.2)),
    "ckplus_original": Target(_ckplus_original, _reads(ckplus.load, val_fraction=0.3, test_fraction=0.2)),
    "sfew": Target(_sfew, _reads(sfew.load)),
    "affectnet": Target(_affectnet, _reads(affectnet.load, clean="labels.csv")),
    "image_folder": Target(_classes, _reads(image_folder.load)),
    "image_folder_zip": Target(_zipped(_classes), _reads(image_folder.load, "data.zip")),
    "pseudo_labels": Target(_pseudo_labels, _reads(image_folder.load, clean="labels.csv")),
    "image_table": Target(_table, _reads(image_table.load, "table.csv")),
    "image_table_parquet": Target(_parquet, _reads(image_table.load, "table.parquet")),
    "rafdb": Target(_rafdb, _reads(rafdb.load, val_fraction=0.3)),
    "jaffe": Target(_jaffe, _reads(jaffe.load)),
    "kdef": Target(_kdef, _reads(kdef.load)),
    "ferplus_folders": Target(_ferplus_folders, _reads(ferplus.load)),
    "merged": Target(_merged, _read_merged),
    "cache": Target(_cached, _read_cached, must_be_same=True),
    "synthetic_settings": Target(_nothing, _read_drawn, _odd_settings, named=lambda folder: "data"),
    "settings": Target(_classes, _read_oddly, _odd_settings, named=lambda folder: "data"),
}
