"""sweep.json: where it is, whether its content is that of a sweep, and which names are taken."""

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from ferhpo.config import Composed
from ferhpo.config.composed import config_shape
from ferhpo.disk import disk_refused, fault_of_file, write_json
from ferhpo.errors import SweepError
from ferhpo.parse import parse_json, shape_fault
from ferhpo.storage.commands import resume_command

META = "sweep.json"
RECORDS = ("study.jsonl", "spool.jsonl", "trials")  # what a sweep has besides, once it has trials
_TEXTS = {str: str}
SHAPE = {
    "id": str, "kind": str, "created": str, "composed": dict, "versions?": _TEXTS, "git?": _TEXTS, "node?": str,
    "code?": _TEXTS, "data?": {"digest?": str, "split_name?": str}, "earlier?": [dict],
    "warm_start?": [{"state": str, "value": (int, float, type(None)), "reports": int, "sample": dict}],
}  # fmt: skip
UNRECORDED = "warnings"  # of a Composed; they are about what the user has just written


def refuse_foreign(folder: Path) -> None:
    """Raise SweepError if a new sweep's folder is a link, or has anything in it: a sweep would replace parts of it."""
    if folder.is_symlink():
        raise SweepError(f"{folder} is a link to {folder.resolve()}; remove it, or choose another name with name=...")
    try:
        found = sorted(path.name for path in folder.iterdir() if not path.name.startswith(f".{META}"))
    except (FileNotFoundError, NotADirectoryError):
        if folder.exists():
            raise SweepError(f"{folder} is a file; remove it, or choose another name with name=...") from None
        return
    except OSError as error:
        raise disk_refused(folder, error) from None
    if found:
        what = "the trials of another sweep" if set(found) & set(RECORDS) else "files of something else"
        raise SweepError(
            f"{folder} has {found[0]} and no {META}: these are {what}; remove the folder, or choose another name "
            "with name=..."
        )


def refuse_links(folder: Path) -> None:
    """Raise SweepError for a link that leads out of a sweep's folder, and for a file that is none.

    Writing into the folder would follow the link; reading a pipe never ends, nor does reading an endless hole.
    """

    def refuse(error: OSError) -> None:
        raise SweepError(f"{error.filename} cannot be listed ({error.strerror}); make it readable, or remove it")

    for place, names, files in os.walk(folder, onerror=refuse):
        for name in (*names, *files):
            path = Path(place, name)
            if path.is_symlink() and not path.resolve().is_relative_to(folder):
                raise SweepError(
                    f"{path} is a link to {path.resolve()}, outside the sweep's folder, so that a verb would write "
                    "there; replace it by what it leads to, or remove it"
                )
            try:
                fault = fault_of_file(path)
            except OSError:  # removed by another process, or a link that leads nowhere
                continue
            if fault:
                raise SweepError(f"{path} cannot be read ({fault}); restore it from a copy, or remove it")


def has_meta(folder: Path) -> bool:
    """Return whether a folder is that of a sweep. Raises SweepError if this user cannot look into it."""
    try:
        return (folder / META).is_file()
    except OSError as error:
        raise SweepError(
            f"{folder!s:.300} cannot be read ({error.strerror}); make it readable for this user, or name another sweep"
        ) from None


def fault_of(meta: Any) -> str:
    """Return what is wrong with the content of sweep.json; empty if nothing is."""
    if fault := shape_fault(meta, SHAPE):
        return fault
    composed = meta["composed"]
    known = [field.name for field in fields(Composed) if field.name != UNRECORDED]
    for key in known:
        expected = str if key == "name" else dict
        if not isinstance(composed.get(key), expected):
            return f"composed.{key} is {_shown(composed, key)}"
    if unknown := [key for key in composed if key not in known]:
        return f"composed.{unknown[0]} is an unknown field; was it written by another version of ferhpo?"
    if meta.get("cpu_precision", "32") not in ("32", "bf16"):
        return f"cpu_precision is {_shown(meta, 'cpu_precision')}"
    if not isinstance(meta.get("num_threads", 1), int) or meta.get("num_threads", 1) < 1:
        return f"num_threads is {_shown(meta, 'num_threads')}"
    listed = meta.get("listed", [])
    if not isinstance(listed, list) or not all(_is_listed(trial) for trial in listed):
        return "listed is not a list of trials, each with sample and seed"
    config = composed["config"]
    if fault := next(config_shape(config), ""):
        return fault
    confirmed = config.get("confirm", {"sweep": "x"})  # of a confirmation: its sweep, in the folder beside its own
    name = confirmed.get("sweep") if isinstance(confirmed, Mapping) else None
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        return f"confirm.sweep is {name!r:.60}"
    folds = config["data"].get("folds")
    return "" if folds is None or isinstance(folds, int) else f"data.folds is {folds!r:.60}"


def _shown(mapping: Mapping[str, Any], key: str) -> str:
    return f"{mapping[key]!r:.60}" if key in mapping else "missing"


def _is_listed(trial: Any) -> bool:
    return isinstance(trial, dict) and isinstance(trial.get("sample"), dict) and isinstance(trial.get("seed"), int)


def exists_error(folder: Path) -> SweepError:
    """Return the error for a name that is already taken, with the commands to resume it or start another."""
    name = folder.name
    try:
        kind = parse_json((folder / META).read_text())["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = "sweep"
    return SweepError(
        f"sweep {name} already exists in {folder.parent.resolve()}. Resume with: {resume_command(kind, folder)}; "
        f"or start a new one with --new ({free_name(folder)}) or name=..."
    )


def free_name(folder: Path) -> str:
    """Return the first of name-2, name-3, ... that does not exist next to `folder`."""
    number = 2
    while (folder.parent / f"{folder.name}-{number}").exists():
        number += 1
    return f"{folder.name}-{number}"


def publish(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that must be new. Raises FileExistsError if it exists."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    write_json(temporary, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        temporary.replace(path)
    finally:
        with suppress(OSError):  # the reason why it could not be written counts, not this one
            temporary.unlink(missing_ok=True)
