"""The wheel alone, installed into an empty environment elsewhere, runs a sweep: what a user gets who has no checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.conftest import TINY

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True)
    (path,) = out.glob("ferhpo-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment with the wheel and, behind it, the packages that it needs: those of this environment.

    Of this environment's site-packages only the path is added, so its .pth files, and with them the editable ferhpo,
    are not read.
    """
    root = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(root)], check=True)
    python = root / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    (site,) = root.glob("lib/python*/site-packages")
    (site / "zz_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return root


def run(installed, folder, *arguments):
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "FERHPO_CONFIG_DIR")}
    command = [str(part) for part in (installed / "bin" / arguments[0], *arguments[1:])]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_configurations_travel_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("conf", "sweeps"):
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.yaml")}
        assert files, folder
        assert names >= {f"ferhpo/{file}" for file in files}
    assert "ferhpo/inference/served_model.py" in names
    assert not [name for name in names if name.endswith((".jpg", ".png", ".csv", ".ckpt", ".db")) or "test" in name]


def test_its_metadata_names_the_program_and_the_pythons(wheel):
    archive = zipfile.ZipFile(wheel)
    (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    assert "ferhpo = ferhpo.cli:command" in archive.read(f"{info}/entry_points.txt").decode()
    metadata = archive.read(f"{info}/METADATA").decode()
    assert "Requires-Python: <3.14,>=3.11" in metadata
    assert "License-Expression: MIT" in metadata


def test_ferhpo_comes_from_the_wheel(installed, tmp_path):
    where = run(installed, tmp_path, "python", "-c", "import ferhpo; print(ferhpo.__file__)")
    assert Path(where.strip()).is_relative_to(installed)


def test_it_lists_its_sweeps_in_an_empty_folder(installed, tmp_path):
    listed = json.loads(run(installed, tmp_path, "ferhpo", "list", "sweeps", "--json"))
    assert "demo" in listed["sweeps"]
    assert set(listed["sweeps"]) == {path.stem for path in (ROOT / "sweeps").glob("*.yaml")}


def test_it_runs_a_sweep_in_an_empty_folder(installed, tmp_path):
    options = [*TINY, "trainer.max_epochs=1", "num_trials=2", "compute.num_cpus=2", "compute.gpus_per_trial=0"]
    result = json.loads(run(installed, tmp_path, "ferhpo", "sweep", "demo", *options, "--json"))
    assert result["counts"] == {"COMPLETE": 2}
    assert result["registered"] == ["ferhpo-demo", 1]
    assert Path(result["folder"]) == tmp_path / "mlruns" / "demo"
    assert {path.name for path in tmp_path.iterdir()} == {"mlruns"}
    (row,) = json.loads(run(installed, tmp_path, "ferhpo", "runs", "--json"))
    assert (row["name"], row["num_trials"]) == ("demo", 2)
