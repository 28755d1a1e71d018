"""Which files a spool may name: those in its sweep's folder. A spool may come from someone else."""

import shutil
import stat
from pathlib import Path, PurePosixPath


def fault_of_path(folder: Path, name: str) -> str:
    """Return why the file or folder `name` of a sweep's folder must not be uploaded; empty if it may be.

    Everything must be inside the sweep's folder, also what symbolic links point to, and a regular file or a folder.
    """
    root = folder.resolve()
    try:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return "it is outside the sweep's folder; only files inside it are uploaded"
        path = folder / name
        if not path.resolve().is_relative_to(root):
            return "it is a link to a place outside the sweep's folder; only files inside it are uploaded"
        if not path.exists():
            return "the file was removed before it was uploaded"
        for each in [path, *(path.rglob("*") if path.is_dir() else ())]:
            if not each.resolve().is_relative_to(root):
                return f"{each.relative_to(folder)} is a link to a place outside the sweep's folder"
            mode = each.stat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                return f"{each.relative_to(folder)} is not a regular file"
    except (OSError, RuntimeError, ValueError) as error:  # a link in a circle, a null character
        return f"it cannot be read ({getattr(error, 'strerror', None) or error})"
    return ""


def fault_of_name(name: str) -> str:
    """Return why `name` cannot be the place of an artifact in MLflow; empty if it can be."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        return "its name in MLflow would be outside the run's artifacts"
    return ""


def copy_inside(path: Path, folder: Path) -> Path:
    """Copy a file or folder into a sweep's folder, to be uploaded from there, and return the copy."""
    number = 0
    while (copy := folder / "attached" / str(number) / path.name).exists():
        number += 1
    if path.is_dir():
        shutil.copytree(path, copy)
    elif path.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    return copy
