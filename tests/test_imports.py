"""Who may import what, how long `--help` takes, and that no file names a package registry."""

import ast
import re
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ferhpo"
HEAVY = ("torch", "ray", "mlflow", "optuna")
# What each package may be imported by: files, or folders with a slash at the end.
ALLOWED = {
    "ray": ("cluster.py", "driver.py"),
    "mlflow": ("tracking/", "registry.py", "inference/served_model.py"),
    "optuna": ("study.py", "journal.py", "space.py", "reports/"),
    "hydra": ("composing.py",),
    "omegaconf": ("composing.py",),
}


@cache
def imports(path, at_run_time=False):
    """The top-level packages that a file imports; `at_run_time` leaves out `if TYPE_CHECKING:`."""
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if at_run_time and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped |= {id(inner) for child in node.body for inner in ast.walk(child)}
    names = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def modules():
    return {path.relative_to(SOURCE).as_posix(): path for path in sorted(SOURCE.rglob("*.py"))}


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_is_imported_in_its_own_place_only(package):
    found = {name for name, path in modules().items() if package in imports(path)}
    assert found, f"nothing imports {package}: is the name right?"
    assert {name for name in found if not name.startswith(ALLOWED[package])} == set()


def test_space_needs_optuna_for_its_types_only():
    assert "optuna" not in imports(SOURCE / "space.py", at_run_time=True)


def test_what_computes_knows_neither_configuration_nor_orchestration():
    """Every line of models/, data/, training/ and inference/, also those within functions."""
    for name, path in modules().items():
        if name.startswith(("models/", "data/", "training/", "inference/")):
            assert not imports(path) & {"hydra", "omegaconf", "ray", "optuna"}, name


@pytest.mark.parametrize(
    "program",
    [
        "import ferhpo",
        "import ferhpo.cli",
        "import ferhpo.cli\ntry: ferhpo.cli.main(['--help'])\nexcept SystemExit: pass",
        "import ferhpo.cli\ntry: ferhpo.cli.main(['sweep', '--help'])\nexcept SystemExit: pass",
        "import ferhpo.cli\nferhpo.cli.main(['list'])",
    ],
    ids=["ferhpo", "cli", "help", "help of a verb", "list"],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(program):
    program += f"\nimport sys\nassert not set(sys.modules) & set({HEAVY}), set(sys.modules) & set({HEAVY})"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, capture_output=True, timeout=60)


def test_help_answers_within_half_a_second():
    command = [str(Path(sys.executable).with_name("ferhpo")), "--help"]
    taken_seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        taken_seconds.append(time.perf_counter() - begin)
    assert min(taken_seconds) < 0.5


def test_no_file_names_a_package_registry():
    """Where packages come from is the business of whoever installs."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = set(listed.split("\0")) - {"", "tests/test_imports.py"}
    assert "requirements.lock" in names
    hosts = ("py" + "pi", "python" + "hosted", "download.py" + "torch", "ana" + "conda", "npm" + "js")  # named nowhere
    registry = re.compile(
        "|".join([*(rf"{re.escape(host)}\.(org|com)" for host in hosts), "index-" + "url"]), re.IGNORECASE
    )
    found = []
    for name in sorted(names):
        data = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in data:
            found += [f"{name}: {match.group()}" for match in registry.finditer(data.decode(errors="replace"))]
    assert found == []


def test_every_public_name_is_there():
    import ferhpo

    assert all(callable(getattr(ferhpo, name)) for name in ferhpo.__all__)
