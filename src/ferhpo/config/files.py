"""Find configuration files: the folders that are searched, sweeps, and options of groups."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ferhpo.components import own_code
from ferhpo.components.own_code import FOLDER
from ferhpo.disk import read_file
from ferhpo.errors import ConfigError
from ferhpo.keys import closest, nearest
from ferhpo.scoring.metrics import CHOSEN

MOST_BYTES = 200_000  # of a configuration file
_PACKAGE = Path(__file__).resolve().parents[1]  # the folder ferhpo
GROUPS = (
    "data", "augment", "model", "loss", "optim", "lr_schedule", "trainer", "sampler", "scheduler", "compute",
    "tracking",
)  # fmt: skip
# Sections of any number of components, each with a name; NAME: true takes the file <section>/NAME.yaml.
NAMED = ("metrics", "callbacks", "panels", "exports")
# Other words for config groups, and for "sweeps". Plurals are added in `group_of`.
SYNONYMS = {
    "sweep": "sweeps", "training": "sweeps", "recipe": "sweeps",
    "optimizer": "optim", "optimiser": "optim",
    "schedule": "lr_schedule", "learning_rate_schedule": "lr_schedule",
    "augmentation": "augment", "dataset": "data", "data_set": "data", "network": "model",
    "metric": "metrics", "callback": "callbacks", "panel": "panels", "export": "exports",
}  # fmt: skip


def config_roots(config_dir: Path | None = None) -> list[Path]:
    """Return the folders that are searched for configurations, in order: the user's, then ferhpo's conf/ and sweeps/.

    The user's folder is `config_dir`, else $FERHPO_CONFIG_DIR, else ferhpo.d/, conf/ and sweeps/ of the current folder
    if they exist. Raises ConfigError if the user's folder does not exist.
    """
    chosen = config_dir or (Path(os.environ["FERHPO_CONFIG_DIR"]) if os.environ.get("FERHPO_CONFIG_DIR") else None)
    if chosen is not None:
        with suppress(RuntimeError):  # no such user
            chosen = chosen.expanduser()
        if not chosen.is_dir():
            raise ConfigError(f"--config-dir is {chosen}", ["the folder does not exist"])
        users = [chosen, chosen / "conf", chosen / "sweeps"]
    else:
        users = [root for root in (Path(FOLDER), Path("conf"), Path("sweeps")) if not _is_foreign(root)]
        for root in users:
            if root != Path(FOLDER):
                _refuse_link(root, Path.cwd())
    roots: list[Path] = []
    for root in [*users, *_own_roots()]:
        if root.is_dir() and root.resolve() not in roots:
            roots.append(root.resolve())
    return roots


def _own_roots() -> list[Path]:
    root = _PACKAGE if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1]  # in a wheel, or in a checkout
    return [root / "conf", root / "sweeps"]


def is_users(file: Path) -> bool:
    """Return whether a file is ferhpo's, or in the user's folder, which is trusted as own code is."""
    return own_code.is_users(file) or is_own(file)


def is_own(file: Path) -> bool:
    """Return whether a file comes with ferhpo."""
    return any(file.resolve().is_relative_to(root) for root in _own_roots())


def _is_foreign(root: Path) -> bool:
    """Return whether a folder in the current one belongs to another program that is configured with Hydra.

    Its config.yaml would replace that of ferhpo. --config-dir names a folder that is used in any case.
    """
    try:
        text = read_file(root / "config.yaml", MOST_BYTES).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return not all(re.search(rf"^\s*-?\s*{group}\s*:", text, re.MULTILINE) for group in GROUPS)


def named_file(name: str | None, config_dir: Path | None = None) -> Path:
    """Return the file of a sweep or training, given by its name or by its path; of None, config.yaml.

    Raises ConfigError, for an unknown name with the closest one.
    """
    if name is None:
        return next(file for root in config_roots(config_dir) if (file := root / "config.yaml").exists())
    files = sweep_files(config_dir)
    if name in files:
        return files[name]
    path = Path(name).expanduser()
    if path.suffix == ".yml":
        raise ConfigError("sweep", [f"{name} ends in .yml; ferhpo reads files that end in .yaml; rename it"])
    if path.suffix == ".yaml" and path.is_file():
        if path.stem == "config":
            raise ConfigError("sweep", [f"{name} is named config, as is what every sweep builds on; rename it"])
        return path.resolve()
    if path.suffix == ".yaml" and path.name == name and path.stem in files:
        return files[path.stem]
    if path.suffix == ".yaml" or "/" in name:
        near = f"; did you mean the sweep {path.stem}?" if path.stem in files else ""
        raise ConfigError("sweep", [f"{name} is not a file{near or '; give the path of a .yaml file, or a name'}"])
    raise ConfigError("sweep", [f"unknown name '{name:.80}'; {nearest(name, list(files))}"])


def sweep_files(config_dir: Path | None = None, roots: Sequence[Path] | None = None) -> dict[str, Path]:
    """Return the file of every named sweep and training; a user's file hides ferhpo's file of the same name."""
    files: dict[str, Path] = {}
    for root in config_roots(config_dir) if roots is None else roots:
        for path in _files_of(root, root):
            if path.stem != "config":
                files.setdefault(path.stem, path)
    return files


def group_files(group: str, config_dir: Path | None = None, roots: Sequence[Path] | None = None) -> dict[str, Path]:
    """Return the file of every option of a config group."""
    files: dict[str, Path] = {}
    for root in config_roots(config_dir) if roots is None else roots:
        for path in _files_of(root / group, root):
            files.setdefault(path.stem, path)
    return files


def _files_of(folder: Path, root: Path) -> list[Path]:
    """Return the configuration files in a folder of a root. Raises ConfigError for a link that leads out of the root.

    The links of the user's own folder are the user's. Elsewhere, one could give the content of any file to a sweep.
    """
    files = sorted(path for path in folder.glob("*.yaml") if not path.name.startswith("."))  # e.g. of an editor
    for path in files if not is_users(root) else ():
        _refuse_link(path, root)
    return files


def _refuse_link(path: Path, root: Path) -> None:
    if not path.resolve().is_relative_to(root.resolve()):
        raise ConfigError(
            str(path),
            [f"it leads to {path.resolve()}, outside {root}; copy it, or name the folder with --config-dir"],
        )


def group_of(word: str) -> str:
    """Return the config group, the section of NAMED, or "sweeps", that a word means.

    It may be the name, a synonym, or the plural of either. Raises ConfigError for any other word.
    """
    names = ("sweeps", *GROUPS, *NAMED)
    known = {name: name for name in names} | SYNONYMS
    known |= {f"{name}s": group for name, group in known.items() if not name.endswith("s")}
    plain = word.lower().replace("-", "_")
    if plain in known:
        return known[plain]
    close = closest(plain, known)
    remedy = f"did you mean {known[close]}?" if close else nearest(word, names)
    raise ConfigError("list", [f"unknown group '{word}'; {remedy}"])


def own_files(group: str) -> dict[str, Path]:
    """Return the file of every option of a config group that comes with ferhpo."""
    return group_files(group, roots=_own_roots())


def descriptions(group: str, config_dir: Path | None = None) -> dict[str, str]:
    """Return the line in `ferhpo list` of each option of a group; of "metrics", also of those that come with ferhpo."""
    files = sweep_files(config_dir) if group == "sweeps" else group_files(group, config_dir)
    chosen = {name: str(metric.__doc__).splitlines()[0] for name, metric in CHOSEN.items() if group == "metrics"}
    return {**chosen, **{name: headline(path) for name, path in files.items()}}


def headline(path: Path) -> str:
    """Return the first descriptive comment of a configuration file: its line in `ferhpo list`."""
    try:
        text = read_file(path, MOST_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        comment = line.removeprefix("#").strip()
        if line.startswith("#") and comment and not comment.startswith("@package"):
            return comment
        if line.strip() and not line.startswith("#"):
            break
    return ""
