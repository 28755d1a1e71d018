"""Tiny data sets in each form, and the real FER2013 if ../shared/data can make it."""

import fcntl
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_faces import EMOTIONS, UNPACK, USAGES, csv_row


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep tests away from the cache of the user."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FERHPO_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def pixels() -> np.ndarray:
    """35 different images uint8 [35, 48, 48]: five of each emotion, three to train, one to validate, one to test."""
    return np.random.default_rng(0).integers(0, 256, (35, 48, 48), np.uint8)


@pytest.fixture
def rows(pixels: np.ndarray) -> list[str]:
    """Header and rows of a good CSV; row 1 is the header."""
    lines = [csv_row(image, index // 5, USAGES[index % 5]) for index, image in enumerate(pixels)]
    return ["emotion,pixels,Usage", *lines]


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    def write(lines: list[str], name: str = "fer2013.csv") -> Path:
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path / name

    return write


@pytest.fixture
def folders(tmp_path: Path, pixels: np.ndarray) -> Path:
    """The same images as train/<emotion>/Training_*.png and test/<emotion>/{PublicTest,PrivateTest}_*.png."""
    root = tmp_path / "fer2013"
    for index, image in enumerate(pixels):
        usage = USAGES[index % 5]
        folder = root / ("train" if usage == "Training" else "test") / EMOTIONS[index // 5]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{usage}_{index:02}.png")
    return root


@pytest.fixture(scope="session")
def real_fer2013() -> Path:
    """A folder with fer2013.csv, ferplus.csv, fer2013/, CK48/ and SFEW/, made once and kept between test runs."""
    if not UNPACK.is_file():
        pytest.skip("FER2013 is not at ../shared/data")
    folder = Path(tempfile.gettempdir()) / "ferhpo-fer2013"
    with folder.with_suffix(".lock").open("w") as lock:  # the processes of the tests share the folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed
            subprocess.run([sys.executable, str(UNPACK), str(folder)], check=True)
            (folder / "complete").touch()
    return folder
