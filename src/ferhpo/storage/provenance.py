"""The versions and the git commit that a sweep ran under."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("ferhpo", "torch", "pytorch-lightning", "ray", "optuna", "mlflow-skinny", "hydra-core", "numpy")


def versions() -> dict[str, str]:
    """The versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, str]:
    """Commit of the current folder's repository and whether its tree was dirty; empty outside one."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        status = subprocess.run(
            ["git", "status", "--porcelain"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit.stdout.strip(), "dirty": str(bool(status.stdout.strip())).lower()}
