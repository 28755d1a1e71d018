"""What `make gpu` runs on a GPU: without one, on the CPU at a small size, so that it is known to work."""

import json
import os
import re
import subprocess
import sys

import pytest

from benchmarks.gpu import LIMITS
from tests.processes import ROOT

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]
NEEDS_CUDA = re.compile(r"needs a CUDA device, and this is a dry run")


def start(arguments, log, environment):
    command = [sys.executable, *map(str, arguments)]
    with log.open("w") as file:
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=file, stderr=file)


def test_everything_that_needs_no_gpu_runs_on_the_cpu(interpreter, tmp_path):
    """Tests and benchmarks run at the same time."""
    environment = {**interpreter.environment, "FERHPO_GPU_DRY_RUN": "1"}
    logs = {name: tmp_path / f"{name}.txt" for name in ("tests", "benchmarks")}
    pytest_arguments = ["-m", "pytest", "-m", "gpu", "tests/gpu", "--durations=12", f"--basetemp={tmp_path / 'tests'}"]
    benchmark = [ROOT / "benchmarks" / "gpu.py", "--small", "--seconds", "200", "--out", tmp_path / "rows"]
    processes = {
        "tests": start(pytest_arguments, logs["tests"], environment),
        "benchmarks": start(benchmark, logs["benchmarks"], environment),
    }
    try:
        statuses = {name: process.wait(550) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    assert statuses == {"tests": 0, "benchmarks": 0}, "".join(log.read_text() for log in logs.values())
    skipped = re.findall(r"^SKIPPED .*", logs["tests"].read_text(), re.MULTILINE)
    assert [line for line in skipped if not NEEDS_CUDA.search(line)] == []
    for part in LIMITS:
        rows = [json.loads(line) for line in (tmp_path / "rows" / f"{part}.jsonl").read_text().splitlines()]
        assert any("skipped" not in row for row in rows), part
        assert [row for row in rows if "failed" in row] == [], part
