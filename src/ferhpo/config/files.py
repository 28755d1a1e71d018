"""Find configuration files: the folders that are searched, sweeps, and options of groups."""

import os
from pathlib import Path

from ferhpo.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]  # the folder ferhpo
GROUPS = ("data", "augment", "model", "optim", "lr_schedule", "trainer", "sampler", "scheduler", "compute", "tracking")


def config_roots(config_dir: Path | None = None) -> list[Path]:
    """Return the folders that are searched for configurations, in order: the user's, then ferhpo's conf/ and sweeps/.

    The user's folder is `config_dir`, else $FERHPO_CONFIG_DIR, else conf/ and sweeps/ of the current folder if they
    exist. Raises ConfigError if the user's folder does not exist.
    """
    root = _PACKAGE if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1]  # in a wheel, or in a checkout
    own = [root / "conf", root / "sweeps"]
    chosen = config_dir or (Path(os.environ["FERHPO_CONFIG_DIR"]) if os.environ.get("FERHPO_CONFIG_DIR") else None)
    if chosen is not None:
        if not chosen.is_dir():
            raise ConfigError(f"--config-dir is {chosen}", ["the folder does not exist"])
        users = [chosen, chosen / "conf", chosen / "sweeps"]
    else:
        users = [Path("conf"), Path("sweeps")]
    roots: list[Path] = []
    for root in [*users, *own]:
        if root.is_dir() and root.resolve() not in roots:
            roots.append(root.resolve())
    return roots


def sweep_files(config_dir: Path | None = None) -> dict[str, Path]:
    """Return the file of every named sweep and training; a user's file hides ferhpo's file of the same name."""
    files: dict[str, Path] = {}
    for root in config_roots(config_dir):
        for path in sorted(root.glob("*.yaml")):
            if path.stem != "config":
                files.setdefault(path.stem, path)
    return files


def group_files(group: str, config_dir: Path | None = None) -> dict[str, Path]:
    """Return the file of every option of a config group."""
    files: dict[str, Path] = {}
    for root in config_roots(config_dir):
        for path in sorted((root / group).glob("*.yaml")):
            files.setdefault(path.stem, path)
    return files


def headline(path: Path) -> str:
    """Return the first descriptive comment of a configuration file: its line in `ferhpo list`."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        text = line.removeprefix("#").strip()
        if line.startswith("#") and text and not text.startswith("@package"):
            return text
        if line.strip() and not line.startswith("#"):
            break
    return ""
