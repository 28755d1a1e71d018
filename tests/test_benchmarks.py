"""The programs in benchmarks/: peers train what ferhpo trains, and the README there names each script."""

import os
import re
import subprocess
import sys

import pytest

from tests.processes import ROOT

BENCHMARKS = ROOT / "benchmarks"
# Those that take the least time
SYSTEMS = ("ferhpo", "sequential", "optuna-processes")


def test_readme_has_a_command_for_each_script():
    commands = set(re.findall(r"python benchmarks/(\w+\.py)", (BENCHMARKS / "README.md").read_text()))
    assert commands == {path.name for path in BENCHMARKS.glob("*.py")}


@pytest.mark.full
@pytest.mark.timeout(600)
def test_every_peer_trains_the_whole_workload(tmp_path):
    """peers.py itself checks trials, epochs and networks."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    written = tmp_path / "peers.md"
    options = ["--quick", "--workload", "asha", "--systems", *SYSTEMS]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "peers.py", *options, "--write", written],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.split("|")] for line in written.read_text().splitlines() if line[:2] == "| "]
    assert len(rows) == 1 + len(SYSTEMS)
    assert {row[6] for row in rows[1:]} == {"4"}, rows


@pytest.mark.parametrize("workload", ["reference", "real", "trivial"])
def test_peers_train_the_same_network(workload, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from peer_parts.prepare import SIZES, check_same_network, prepare

    size = SIZES[workload][1]
    prepared, _ = prepare(size, None, "32", 2, 1, tmp_path)
    num_parameters, num_macs = check_same_network(prepared, size.image_size)
    assert num_macs > num_parameters > 1000
