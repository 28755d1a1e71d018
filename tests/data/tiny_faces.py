"""Names and writers of small files for the tests of this folder."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGES = ("Training", "Training", "Training", "PublicTest", "PrivateTest")
UNPACK = Path(__file__).resolve().parents[3] / "shared" / "data" / "unpack.py"


def csv_row(image: np.ndarray, emotion: object, usage: str | None) -> str:
    text = f"{emotion},{' '.join(map(str, image.reshape(-1)))}"
    return text if usage is None else f"{text},{usage}"


def zip_folder(folder: Path, archive: Path, top: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as out:
        for file in sorted(folder.rglob("*")):
            out.write(file, top + str(file.relative_to(folder)))
    return archive


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def draw_files(root: Path, names: list[str], size: tuple[int, int] = (48, 48), colour: bool = False) -> Path:
    """Write files of noise with these names, all different, equal for equal names; `size` is width and height."""
    rng = np.random.default_rng(1)
    shape = (size[1], size[0], 3) if colour else (size[1], size[0])
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(root / name)
    return root
