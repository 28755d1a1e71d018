"""Collect what a sweep runs with, and compare it at a resume: package versions, git commit, overrides."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ferhpo.components import own_code
from ferhpo.keys import PLACES, get_path, has_key

CODE = "code"  # in a sweep's folder: copies of the own code that ran it
PACKAGES = ("ferhpo", "torch", "pytorch-lightning", "ray", "optuna", "mlflow-skinny", "hydra-core", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    result = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            result[package] = version(package)
        except PackageNotFoundError:
            continue
    return result


# Settings of a repository that run nothing. `git status` runs what others name (filters, hooks, monitors, transports),
# and the repository may belong to someone else.
_HARMLESS = re.compile(
    r"core\.(repositoryformatversion|filemode|bare|logallrefupdates|ignorecase|precomposeunicode|symlinks|autocrlf|eol)|"
    r"(user|init|color|pull|push|gc|advice|log)\.[a-z]*|remote\..*\.(url|fetch)|branch\..*|submodule\..*\.(url|active)"
)


def git_state() -> dict[str, str]:
    """Return the commit of the current folder's repository and whether its tree is dirty; empty outside one.

    `dirty` is "unknown" if looking might run something that the repository names.
    """
    try:
        commit = _git("rev-parse", "HEAD").strip()
        words = _git("config", "--show-scope", "--includes", "--list", "-z").split("\0")
        scopes = zip(words[::2], words[1::2], strict=False)  # scope, then the name and the value on lines of their own
        own = [text.partition("\n")[0] for scope, text in scopes if scope in ("local", "worktree")]
        if not all(_HARMLESS.fullmatch(name) for name in own):
            return {"commit": commit, "dirty": "unknown"}
        status = _git("status", "--porcelain", "--ignore-submodules=all")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit, "dirty": str(bool(status.strip())).lower()}


def _git(*arguments: str) -> str:
    # Without optional locks, `status` does not write the index, which would run a hook.
    command = ["git", "--no-optional-locks", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"]
    environment = {**os.environ, "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=True, timeout=10, env=environment
    )
    return done.stdout


def environment() -> dict[str, Any]:
    """Return what sweep.json says about the process that runs a sweep: versions, git state, machine, own code."""
    return {"versions": versions(), "git": git_state(), "node": platform.node(), "code": own_code.used().digests}


def keep_code(folder: Path) -> None:
    """Copy the own code that this process has imported to code/ in a sweep's folder."""
    for path, content in own_code.used().files.items():
        target = folder / CODE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return how the environment of a resume differs from that of the sweep, e.g. ["torch 2.9.0 (before: 2.8.0)"]."""
    old, new = before.get("versions", {}), now["versions"]
    found = [
        f"{name} {new.get(name, 'not installed')} (before: {old.get(name, 'not installed')})"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    old, new = before.get("code", {}), now.get("code", {})
    found += [
        f"{path} {'changed' if path in old and path in new else 'added' if path in new else 'not used any more'}"
        for path in {**old, **new}
        if old.get(path) != new.get(path)
    ]
    commits = [str(git.get("commit") or "none")[:12] for git in (before.get("git", {}), now["git"])]
    if commits[0] != commits[1]:
        found.append(f"git commit {commits[1]} (before: {commits[0]})")
    elif before.get("git", {}).get("dirty") != now["git"].get("dirty"):
        found.append(f"git commit {commits[1]} {'with' if now['git'].get('dirty') == 'true' else 'without'} changes")
    return found


# Overrides that leave what trials compute as it is, e.g. where the data set is
_HARMLESS_KEYS = ("name", "output_dir", "keep_checkpoints", *(f"data.{place}" for place in PLACES))
_HARMLESS_SECTIONS = ("compute", "tracking")


def overrides_of(meta: Mapping[str, Any]) -> list[str]:
    """Return the overrides that a sweep was started or resumed with.

    meta: the content of sweep.json; an earlier version recorded only which keys were overridden
    """
    recorded = meta.get("overrides")
    if isinstance(recorded, list):
        return [str(text) for text in recorded]
    composed = meta["composed"]
    given = [path for path, origin in (composed.get("origins") or {}).items() if origin == "override"]
    config = composed["config"]
    return [f"{path}={get_path(config, path)}" for path in given if has_key(config, path)]


def changes_text(meta: Mapping[str, Any]) -> str:
    """Return a sentence that a sweep differs from its recipe, with the overrides that change its trials; else ""."""
    changes = [text for text in overrides_of(meta) if not _is_harmless(text.partition("=")[0].lstrip("+~"))]
    recipe = meta["composed"]["name"]
    if not changes:
        return ""
    return f"This is not {recipe} as its file defines it: it was run with {' '.join(changes)}."


def _is_harmless(key: str) -> bool:
    return key in _HARMLESS_KEYS or key.split(".")[0] in _HARMLESS_SECTIONS
