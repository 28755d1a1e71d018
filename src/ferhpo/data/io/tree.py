"""Folders and zips as lists of files that can be opened by name.

Note: nothing is extracted to disk; members of a zip are read into memory one by one. A zip with a path outside its own
folder is still refused, because the user may unpack it with another tool.
"""

import errno
import io
import os
import shlex
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO

from ferhpo.data.io.faults import Faults, check_room, most_unpacked, parsed, raise_faults
from ferhpo.errors import DataError
from ferhpo.text import size

MAX_DEPTH = 5  # folders below the root
MAX_NAMES = 2_000_000  # files and folders below the root; AffectNet has 1,000,000
MAX_PARTS, MAX_PART_LENGTH = 20, 255  # folders in the path of a member of a zip, and characters of each
_MEMBER_BYTES = 16  # of memory for each byte of a zip's list of members
_HEADER_BYTES = 30  # before the name and the content of a member
FOLDERS = "FERHPO_DATA_FOLDERS"
_LEFT_BY_SYSTEMS = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True)
class Tree:
    """The files and folders in a folder or zip; names are relative, sorted, and separated by "/"."""

    names: tuple[str, ...]
    folders: tuple[str, ...]
    open_file: Callable[[str], IO[bytes]]


def own_folders(root: Path) -> tuple[Path, ...]:
    """Return the folders whose files a data set in `root` may have: itself, and those in $FERHPO_DATA_FOLDERS.

    A data set may come from someone else, and must not choose among the user's own pictures, by links or names.
    """
    named = [text for text in os.environ.get(FOLDERS, "").split(os.pathsep) if text]
    return root.resolve(), *(Path(text).expanduser().resolve() for text in named)


def outside(path: Path, folders: tuple[Path, ...]) -> Path | None:
    """Return where a path leads, if that is outside of all these folders; None if it is inside."""
    target = path.resolve() if path.is_symlink() else _resolved(path.parent) / path.name
    return None if any(target.is_relative_to(folder) for folder in folders) else target


def refuse_outside(where: str, path: Path, folders: tuple[Path, ...]) -> None:
    """Raise DataError for a link that leads outside of all these folders, the first of which is the data set."""
    if target := outside(path, folders):
        remedy = f"remove it, or allow it in the environment, e.g. {FOLDERS}={shlex.quote(str(target.parent))}"
        raise DataError(where, [f"{path} is a link to {target}, outside of {folders[0]}; {remedy}"])


@lru_cache(maxsize=1000)
def _resolved(folder: Path) -> Path:
    return folder.resolve()


def tree_names(root: Path) -> tuple[list[str], list[str]]:
    """Return the names of all files and all folders below a folder, without files that operating systems add.

    Raises DataError for a link to a folder above itself or outside of the data set, and for more files than one has.
    """
    names: list[str] = []
    folders: list[str] = []
    allowed = own_folders(root)

    def walk(folder: str, above: tuple[tuple[int, int], ...]) -> None:
        with _readable(root / folder), os.scandir(root / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if _is_left_by_system(entry.name):
                    continue
                is_file, is_folder = _is_there(entry.is_file), _is_there(entry.is_dir)  # neither: a dead link
                if entry.is_symlink() and (is_file or is_folder):
                    refuse_outside(f"data.path is {root}", root / name, allowed)
                if is_file:
                    names.append(name)
                elif is_folder:
                    if len(above) > MAX_DEPTH:
                        continue
                    folders.append(name)
                    own = _identity(root / name)
                    if own in above:
                        rule = f"{name} leads back to a folder that it is in, by a link; remove the link"
                        raise DataError(f"data.path is {root}", [rule])
                    walk(name, (*above, own))
                elif _is_there((root / name).exists):
                    rule = f"{name} is a pipe, a socket or a device; remove it"
                    raise DataError(f"data.path is {root}", [rule])
                if len(names) + len(folders) > MAX_NAMES:
                    rule = f"it has more than {MAX_NAMES:,} files and folders; set a folder that has only the images"
                    raise DataError(f"data.path is {root}", [rule])

    with _readable(root):
        top = _identity(root)
    walk("", (top,))
    return sorted(names), sorted(folders)


def _identity(folder: Path) -> tuple[int, int]:
    """Return what links to a folder and the folder itself have in common."""
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _is_there(test: Callable[[], bool]) -> bool:
    """Return the result of the test, and False for a link that leads to itself."""
    try:
        return test()
    except OSError:
        return False


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        rule = f"the folder cannot be read ({error.strerror}); ask for the permission"
        raise DataError(str(folder), [rule]) from None


@contextmanager
def open_tree(where: str, path: Path) -> Iterator[Tree]:
    """Open a folder or a zip. Raises DataError for a zip that is unreadable or has a path outside its own folder."""
    if path.is_dir():
        names, folders = tree_names(path)
        yield Tree(tuple(names), tuple(folders), lambda name: open_regular(path / name))
        return
    with parsed(where, "it is not a readable zip", "download the file again"):
        with path.open("rb") as file:
            end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # the record that lists the members
        if end is not None:
            check_room(where, _MEMBER_BYTES * end[5], "pack only the images")
        archive = zipfile.ZipFile(path)
    with archive:
        _check_members(where, archive.infolist(), path.stat().st_size)
        members = archive.namelist()
        kept = [name for name in members if not any(map(_is_left_by_system, PurePosixPath(name).parts))]
        files = tuple(sorted(name for name in kept if not name.endswith("/")))
        parents = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
        folders_in_zip = tuple(sorted(parents | {name.rstrip("/") for name in kept if name.endswith("/")}))
        yield Tree(files, folders_in_zip, archive.open)


def open_regular(path: Path) -> io.BufferedReader | io.BytesIO:
    """Open a file to read. Raises OSError for a pipe or a device, which would be waited for.

    A file that says it is empty counts as empty: some of those that a kernel writes block, or have no end.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return file
    file.close()
    if stat.S_ISREG(status.st_mode):
        return io.BytesIO()
    raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def _check_members(where: str, members: list[zipfile.ZipInfo], zip_bytes: int) -> None:
    """Raise DataError for a zip that no data set comes in: one that climbs, or a small one that unpacks to anything."""
    if len(members) > MAX_NAMES:
        raise DataError(where, [f"the zip has more than {MAX_NAMES:,} files; pack only the images"])
    climbing, odd = Faults("path"), Faults("file")
    seen: set[str] = set()
    for member in members:
        name = member.filename
        parts = name.rstrip("/").split("/")
        if _climbs(name):
            climbing.add("climbs", f"the zip has {name[:200]}, a path outside its own folder; nothing was read", name)
        if len(parts) > MAX_PARTS or len(max(parts, key=len)) > MAX_PART_LENGTH:
            rule = f"it must have at most {MAX_PARTS} folders, and {MAX_PART_LENGTH} characters in each name"
            odd.add("long", f"the zip has the path {name[:40]}...; {rule}", name[:40])
        if name in seen and not member.is_dir():
            odd.add("twice", f"the zip has {name} twice; pack the images again", name)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            rule = "must be stored or compressed by Deflate, as usual in a zip; pack the images again"
            odd.add("method", f"{name} {rule}", name)
        seen.add(name)
    raise_faults(where, climbing, odd)
    members = sorted(members, key=lambda member: member.header_offset)
    for first, second in pairwise(members):
        if first.header_offset + _HEADER_BYTES + first.compress_size > second.header_offset:
            rule = "share the same bytes of the zip, which no program packs"
            raise DataError(where, [f"{first.filename} and {second.filename} {rule}; download the zip again"])
    unpacked, most = sum(member.file_size for member in members), most_unpacked(zip_bytes)
    if unpacked > most:
        rule = f"the zip unpacks to {size(unpacked)}; with {size(zip_bytes)} it must unpack to at most {size(most)}"
        raise DataError(where, [f"{rule}; pack only the images"])


def _climbs(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or parts[0] == "" or parts[0].endswith(":")


def _is_left_by_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS
