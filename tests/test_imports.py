"""Who may import what, how long `--help` takes, and that no file names a package registry."""

import ast
import graphlib
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ferhpo"
HEAVY = ("torch", "ray", "mlflow", "optuna")
# What each package may be imported by: files, or folders with a slash at the end.
ALLOWED = {
    "ray": ("driver/ray_cluster.py", "driver/ray_hooks.py", "driver/ray_tune.py", "driver/ray_worker.py", "starters/"),
    "mlflow": ("tracking/", "inference/served_model.py"),
    "optuna": ("storage/", "space/", "reports/", "starters/"),
    "hydra": ("config/compose.py", "config/input/reader.py"),
    "model_signing": ("signing/folders.py",),
    "omegaconf": ("config/compose.py", "config/input/reader.py"),
}
# The folders of src/ferhpo, top first. A module may import from its own folder and from layers below its own, never from a
# layer above and never from another folder of its own layer.
LAYERS = (
    ("cli", "starters"),
    ("confirmation", "promotion"),
    ("tuning",),
    ("driver", "reports"),
    ("publish", "evaluation"),
    ("storage", "trial", "inference"),
    ("config",),
    ("training",),
    ("scoring", "tracking"),
    ("components",),
    ("models", "data", "space"),
    ("addresses", "signing"),
    ("optional",),  # a file, like those below
    ("clock", "current_folder", "errors", "keys", "disk", "parse", "seeds", "states", "text"),
)
MAX_FILES, MAX_LINES, MAX_MEDIAN_LINES = 12, 300, 120


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
    for path in (SOURCE / "space").glob("*.py"):
        assert "optuna" not in imports(path, at_run_time=True), path.name


def test_what_computes_knows_neither_configuration_nor_orchestration():
    """Every line of these folders, including imports inside functions."""
    for name, path in modules().items():
        if name.startswith(("models/", "data/", "scoring/", "training/", "inference/")):
            assert not imports(path) & {"hydra", "omegaconf", "ray", "optuna"}, name
            assert not {target for target in imported_modules(path) if target.startswith("ferhpo.config")}, name


def imported_modules(path):
    """The modules of ferhpo that a file imports, with their full names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "ferhpo"}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "ferhpo":
            for alias in node.names:
                full = SOURCE.parent / (node.module + "." + alias.name).replace(".", "/")
                is_module = full.with_suffix(".py").exists() or full.is_dir()
                found.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return found


def place(module):
    """The folder (or root file) that a module of ferhpo belongs to."""
    return module.removeprefix("ferhpo").lstrip(".").split(".")[0]


def layer(name):
    return next(number for number, names in enumerate(LAYERS) if name in names)


def test_every_folder_has_a_layer():
    names = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    names |= {path.stem for path in SOURCE.glob("*.py") if not path.stem.startswith("__")}
    assert names == {name for names in LAYERS for name in names}


def test_imports_point_down():
    """Every import of the package, also those inside functions and for type checks."""
    upward = []
    for name, path in modules().items():
        own = name.removesuffix(".py").split("/")[0]
        if own.startswith("__"):
            continue
        for target in imported_modules(path):
            other = place(target)
            is_root_file = own == other or (own in ("disk", "text") and other == "errors") or not other
            if not is_root_file and layer(other) <= layer(own):
                upward.append(f"{name} imports {target}")
    assert upward == []


def test_no_circle_of_imports():
    graph = {
        f"ferhpo.{n.removesuffix('.py').replace('/', '.').removesuffix('.__init__')}": p for n, p in modules().items()
    }
    graph = {name: {target for target in imported_modules(path) if target in graph} for name, path in graph.items()}
    order = graphlib.TopologicalSorter({name: targets - {name} for name, targets in graph.items()})
    order.prepare()  # raises CycleError, which names the circle


def test_folders_and_files_stay_small():
    files = {path: len(path.read_text().splitlines()) for path in modules().values()}
    per_folder = Counter(path.parent for path in files)
    assert {folder.name: count for folder, count in per_folder.items() if count > MAX_FILES} == {}
    assert {path.name: lines for path, lines in files.items() if lines > MAX_LINES} == {}
    assert statistics.median(files.values()) <= MAX_MEDIAN_LINES


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
