"""The file of results that a benchmark writes: a title, what the numbers depend on, and the table."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results"


def results_path(name: str, quick: bool) -> Path:
    """Return where a benchmark writes by default. Results of --quick measure nothing, and git ignores them."""
    return RESULTS / "quick" / f"{name}.md" if quick else RESULTS / f"{name}.md"


def write(path: Path, title: str, lines: list[str]) -> None:
    """Print the results and write them."""
    text = "\n".join([f"# {title}", "", *lines])
    print(f"\n{text}\n\nWritten: {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def conditions(hydra_python: str | None, load: float) -> list[str]:
    """Return the list of what the numbers depend on: machine, load, versions and commit."""
    names = ("torch", "pytorch-lightning", "ray", "optuna", "mlflow")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    if hydra_python:
        code = (
            "from importlib.metadata import version as v;"
            "print(*(f'{n} {v(n)}' for n in ('hydra-core', 'hydra-optuna-sweeper', 'optuna')), sep=', ')"
        )
        found = subprocess.run([hydra_python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
        versions += f"; for Hydra's sweeper {found}"
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    git = ["git", "-C", str(RESULTS.parent)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    others = [":/", f":(exclude){RESULTS.name}"]  # results that were just written change no number
    changed = subprocess.run([*git, "status", "--porcelain", "--", *others], capture_output=True, text=True).stdout
    busy = " (busy: compare ratios only)" if load > 0.5 else ""
    return [
        f"- Machine: {os.cpu_count()} cores ({model}, {platform.machine()}), {memory:.0f} GB; load at the start "
        f"{load:.1f}{busy}.",
        f"- Versions: Python {platform.python_version()}, {versions}.",
        f"- Commit: {commit or 'unknown'}{' with changes' if changed else ''}.",
    ]
