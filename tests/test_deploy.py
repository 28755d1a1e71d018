"""The scripts of deploy/: their syntax, and a Slurm job of two nodes, both on this machine, with stand-ins for Slurm."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

import ferhpo
from ferhpo.config.settings import job_cpus
from ferhpo.errors import FerhpoError
from tests.conftest import TINY
from tests.servers import free_port

DEPLOY = Path(__file__).parents[1] / "deploy"

SRUN = """#!/usr/bin/env bash
# Run the command here, as srun would on a node
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""


@pytest.mark.parametrize("script", sorted(path.name for path in DEPLOY.iterdir() if path.suffix in (".sh", ".sbatch")))
def test_the_syntax_of_scripts(script):
    subprocess.run(["bash", "-n", str(DEPLOY / script)], check=True)


def test_slurm_gets_its_options_before_the_first_command():
    lines = (DEPLOY / "slurm.sbatch").read_text().splitlines()
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert options
    assert all(line.startswith("#") for line in lines[: options[-1] + 1]), "Slurm ignores options after a command"


def test_cores_that_slurm_grants(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "16")
    assert job_cpus(Path("/nowhere")) == 16
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "128")
    assert job_cpus(Path("/nowhere")) == 64
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "many")
    assert job_cpus(Path("/nowhere")) == 64


def test_the_manifest_of_kuberay():
    """What the operator's schema requires, and that names within the file agree."""
    job = yaml.safe_load((DEPLOY / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
    spec = job["spec"]
    known = {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "rayClusterSpec"}
    assert set(spec) <= known
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"name", "image"} <= set(container)
    worker = groups[1]
    assert worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]
    (script,) = re.findall(r"sh -c '(.+)'", spec["entrypoint"])
    subprocess.run(["bash", "-n", "-c", script], check=True)


@pytest.fixture
def slurm(tmp_path):
    """The environment of a job of two nodes, both of which are this machine."""
    tools, home = tmp_path / "bin", tmp_path / "home"
    tools.mkdir()
    home.mkdir()
    (tools / "srun").write_text(SRUN)
    (tools / "scontrol").write_text("#!/usr/bin/env bash\nprintf '127.0.0.1\\n127.0.0.1\\n'\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    shutil.copytree(DEPLOY, checkout / "deploy")
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "HOME": str(home),
        "PYTHON": sys.executable,
        "OUTPUT_DIR": str(tmp_path / "mlruns"),
        "SLURM_SUBMIT_DIR": str(checkout),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_PER_TASK": "1",
        "GPUS": "0",
        "RAY_TMPDIR": "/tmp",
    }
    environment.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", None)  # left by a local sweep in this process
    started = []

    def end():
        """End all processes of a job, as Slurm does."""
        for other in psutil.process_iter(["environ"]):
            if (other.info["environ"] or {}).get("HOME") == str(home):
                other.kill()
        for process in started:
            process.wait()

    def start(*arguments):
        end()
        log = tmp_path / "log.txt"
        with log.open("a") as file:
            process = subprocess.Popen(
                ["bash", str(DEPLOY / "slurm.sbatch"), *arguments],
                env={**environment, "PORT": str(free_port())},
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        started.append(process)
        return process, log

    yield start
    end()


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_slurm_job_ends_at_its_time_limit_and_the_next_one_resumes(slurm, tmp_path):
    options = [*TINY, "scheduler=none", "compute.gpus_per_trial=0", "compute.num_cpus=null", "tracking=none"]
    job, log = slurm("demo", *options, "num_trials=3", "trainer.max_epochs=30")
    folder = tmp_path / "mlruns"
    deadline = time.monotonic() + 200
    while not has_epochs(folder):
        assert job.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)
    said = log.read_text()
    assert "starting 2 trials at a time, each on 1 CPU" in said, f"not a core on each of two nodes:\n{said}"
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 130, log.read_text()
    assert "Resume with" in log.read_text()
    before = {trial.number: len(trial.epochs) for trial in ferhpo.load_sweep("demo", folder).trials()}
    job, log = slurm("demo", "these overrides are for the first job only")
    assert job.wait(200) == 0, log.read_text()
    trials = ferhpo.load_sweep("demo", folder).trials()
    assert [trial.state for trial in trials] == ["COMPLETE"] * 3
    assert all(len(trial.epochs) == 30 for trial in trials)
    assert any(before.values())


def has_epochs(folder):
    try:
        return any(trial.epochs for trial in ferhpo.load_sweep("demo", folder).trials())
    except FerhpoError:
        return False
