"""Collect the package versions and the git commit that a sweep runs with."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

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


def git_state() -> dict[str, str]:
    """Return the commit of the current folder's repository and whether its tree is dirty; empty outside one."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        status = subprocess.run(
            ["git", "status", "--porcelain"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit.stdout.strip(), "dirty": str(bool(status.stdout.strip())).lower()}
