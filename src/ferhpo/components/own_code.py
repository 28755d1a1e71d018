"""Own code: the Python modules outside ferhpo that this process may import and call.

Trusted are the Python files in the user's folder (--config-dir, $FERHPO_CONFIG_DIR, otherwise ferhpo.d/ in the current
folder), and the modules that the command line names with --allow or allowed_targets. What a sweep file, the folder of a
sweep or a store says gives no trust: anyone may have written it.

Note: trust holds for the process, because a module that was imported stays imported.
"""

import functools
import hashlib
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from ferhpo.errors import first_line
from ferhpo.keys import closest, nearest

FOLDER = "ferhpo.d"
NO_FOLDER = (
    f"there is no {FOLDER}/ in the current folder; change to the folder that has it, or name it with --config-dir"
)
_allowed: list[str] = []
_folders: list[Path] = []


@dataclass(frozen=True)
class OwnCode:
    """The own code that a sweep runs, for workers, which may be on another machine.

    allowed: modules that the command line allowed; they must be installed there
    files: the content of each file of the user's folder that was imported, by its path in the folder
    """

    allowed: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file."""
        return {path: hashlib.sha256(content).hexdigest() for path, content in sorted(self.files.items())}


def user_folder(config_dir: Path | None = None) -> Path | None:
    """Return the user's folder: `config_dir`, $FERHPO_CONFIG_DIR, or ferhpo.d/ if it exists; otherwise None."""
    if config_dir is not None:
        return config_dir
    if os.environ.get("FERHPO_CONFIG_DIR"):
        return Path(os.environ["FERHPO_CONFIG_DIR"])
    return Path(FOLDER) if Path(FOLDER).is_dir() else None


def allow(modules: Iterable[str]) -> None:
    """Trust modules, and the packages below them, because the user named them."""
    _allowed.extend(name for name in modules if name not in _allowed)


def allow_overrides(overrides: Iterable[str]) -> None:
    """Trust the modules of an override `allowed_targets=[...]`."""
    import yaml

    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        if key == "allowed_targets":
            with suppress(yaml.YAMLError):  # the composition reports it
                modules = yaml.safe_load(value)
                allow(name for name in (modules if isinstance(modules, list) else []) if isinstance(name, str))


def trust_folder(folder: Path) -> None:
    """Trust the Python files of a folder, and make them importable.

    The folder comes last in sys.path, so that none of its files can replace a module of Python or of a package.
    """
    folder = folder.resolve()
    if folder not in _folders:
        for name in list(sys.modules):  # a module of another folder that was trusted before
            if "." not in name and _has(folder, name) and any(_is_of(name, other) for other in _folders):
                _forget_module(name)
        _folders.insert(0, folder)
        sys.path[:] = [*(path for path in sys.path if Path(path) not in _folders), *map(str, _folders)]


def trusts(module: str) -> bool:
    """Return whether a module, or a package above it, is trusted. Imports nothing."""
    if any(f"{module}.".startswith(f"{name.rstrip('.')}.") for name in _allowed):
        return True
    top = module.partition(".")[0]
    return any(_has(folder, top) and _is_of(top, folder) for folder in _trusted_folders())


def hidden(module: str) -> str:
    """Return why a module that the user's folder seems to have cannot be imported from it; empty if it has none."""
    top = module.partition(".")[0]
    for folder in _trusted_folders():
        if _has(folder, top) and not _is_of(top, folder):
            kind = "Python's own module" if top in sys.stdlib_module_names else "an installed package"
            return f"{folder.name}/{top} has the name of {kind}, which is imported instead; rename it"
        if (folder / top).is_dir() and not _has(folder, top):
            return f"{folder.name}/{top}/ is not a package; add an empty file {folder.name}/{top}/__init__.py"
    return ""


def missing(module: str) -> str:
    """Return why a module cannot be found, with the folders that were searched; empty if it can be imported.

    Only the package at the top is looked for, and it is not imported.
    """
    top = module.partition(".")[0]
    folders = _trusted_folders()
    if top in sys.modules or find_spec(top) is not None:
        return ""
    if not folders:
        return f"{NO_FOLDER} (searched for {top}.py)"
    near = closest(top, [file.stem for folder in folders for file in folder.glob("*.py")])
    remedy = f"did you mean {near}?" if near else "add the file, or correct the name"
    return f"there is no {top}.py in {' or '.join(map(str, folders))}; {remedy}"


def no_folder() -> str:
    """Return that there is no folder of own code, which may be why a name is unknown; empty if there is one."""
    return "" if _trusted_folders() else NO_FOLDER


def once(faults: Iterable[str]) -> list[str]:
    """Return faults without repetitions: a file, or a folder, that is missing is one fault of all keys that need it."""
    kept: dict[str, str] = {}
    for fault in faults:
        missing = re.search(r"; there is no \w+\.py in .*", fault)
        kept.setdefault(NO_FOLDER if NO_FOLDER in fault else missing[0] if missing else fault, fault)
    return list(kept.values())


def options(group: str) -> list[str]:
    """Return the names of the files <group>/NAME.yaml in the user's folder, e.g. of the group "metrics"."""
    return sorted({file.stem for folder in _trusted_folders() for file in folder.glob(f"{group}/*.yaml")})


def no_option(group: str, name: str) -> str:
    """Return that the user's folder has no file <group>/NAME.yaml, with the remedy."""
    names = options(group)
    new = f"`ferhpo new {group.removesuffix('s')} NAME` writes one"
    remedy = nearest(name, names) if names else no_folder() or new
    return f"there is no {group}/{name}.yaml in {FOLDER}/ or --config-dir; {remedy}"


def is_users(file: Path) -> bool:
    """Return whether a file is in a trusted folder."""
    return any(file.resolve().is_relative_to(folder) for folder in _trusted_folders())


def place(error: BaseException) -> str:
    """Return where in own code an exception was raised, e.g. "my_network.py, line 12"; empty if it was elsewhere."""
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if trusts(str(frame.f_globals.get("__name__"))):
            found = f"{_shown(Path(frame.f_code.co_filename))}, line {line}"
    return found


def reason(error: BaseException) -> str:
    """Return an exception in one line, with its place in own code: "KeyError: 'a' (my_network.py, line 12)"."""
    where = place(error)
    message = f": {first_line(error)}" if str(error).strip() else ""
    return f"{type(error).__name__}{message}{f' ({where})' if where else ''}"


def _shown(file: Path) -> str:
    """Return the path of a file of own code below the user's folder; its name, if it is in another one."""
    folder = next((folder for folder in _folders if file.is_relative_to(folder)), file.parent)
    return file.relative_to(folder).as_posix()


def _trusted_folders() -> list[Path]:
    default = user_folder()
    if default is not None and default.is_dir():
        trust_folder(default)
    return _folders


def allowed() -> tuple[str, ...]:
    """Return the modules that the user named."""
    return tuple(_allowed)


def is_file(module: str) -> bool:
    """Return whether a trusted module is a file of the user's, not a module of an installed package."""
    return trusts(module) and module.partition(".")[0] not in distributions()


@functools.cache
def distributions() -> Mapping[str, list[str]]:
    """Return the distributions of each installed package by its import name; the first call takes a second."""
    from importlib.metadata import packages_distributions

    return packages_distributions()


def used() -> OwnCode:
    """Return the own code that this process has imported by now."""
    files = {}
    for module in list(sys.modules.values()):
        path = Path(getattr(module, "__file__", None) or "")
        folder = next((folder for folder in _folders if path.suffix == ".py" and path.is_relative_to(folder)), None)
        if folder is not None:
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return OwnCode(tuple(_allowed), files)


def install(code: OwnCode) -> None:
    """Trust the own code of a sweep in a worker. Its files are written to a temporary folder of this process."""
    if code == _installed.get("code"):
        return
    allow(code.allowed)
    if code.files:
        folder = tempfile.TemporaryDirectory(prefix="ferhpo-code-")
        for path, content in code.files.items():
            file = Path(folder.name) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        trust_folder(Path(folder.name))
        _installed["folder"] = folder  # removed with the process
    _installed["code"] = code


_installed: dict[str, object] = {}


def forget() -> None:
    """Trust nothing any more, and drop the modules of the user's folders."""
    for name in list(sys.modules):
        if "." not in name and any(_is_of(name, folder) for folder in _folders):
            _forget_module(name)
    sys.path[:] = [path for path in sys.path if Path(path) not in _folders]
    for state in (_allowed, _folders, _installed):
        state.clear()


def _has(folder: Path, top: str) -> bool:
    return (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()


def _is_of(top: str, folder: Path) -> bool:
    """Return whether a top-level module is, or would be, imported from a folder."""
    module = sys.modules.get(top)
    origin = getattr(module, "__file__", None) if module is not None else None
    if module is None:
        spec = PathFinder.find_spec(top)
        origin = spec.origin if spec is not None else None
    return origin is not None and Path(origin).resolve().is_relative_to(folder)


def _forget_module(top: str) -> None:
    for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
        del sys.modules[name]
