"""Trials of a sweep that share a GPU, break it, stay off it, or are stopped on it (G6 to G9)."""

import json
import re
import shutil
import threading
from pathlib import Path

import pytest
import torch

from tests.gpu.faults import used_mb
from tests.gpu.trials import DRY_RUN, sweep

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]
BALLAST = 0.2 if DRY_RUN else 2.0


def test_a_failed_assertion_on_the_gpu_ends_its_trial_only(device: torch.device, tmp_path: Path) -> None:
    failed, complete = sweep(tmp_path, "assert_once", marks=tmp_path)
    assert failed.state == "FAILED", failed.reason
    line = failed.reason.splitlines()[0]
    if device.type == "cuda":
        assert "CUDA error: device-side assert triggered" in line
        assert line.endswith("; set CUDA_LAUNCH_BLOCKING=1 to see where it happens")
    else:
        assert line.startswith("IndexError: Target 99 is out of bounds.")
    assert complete.state == "COMPLETE", complete.reason
    assert complete.extra["pid"] != failed.extra["pid"]


def test_a_trial_that_exceeds_its_share_is_infeasible(cuda: torch.device, tmp_path: Path) -> None:
    gigabytes = 0.3 * torch.cuda.get_device_properties(cuda).total_memory / 1e9
    for trial in sweep(tmp_path, "train_memory", "compute.gpus_per_trial=0.25", gigabytes=gigabytes):
        assert trial.state == "INFEASIBLE", trial.reason
        assert trial.reason.startswith("out of memory: ")


def test_a_trial_whose_memory_others_hold_is_retried(cuda: torch.device, tmp_path: Path) -> None:
    """A neighbor leaves a tenth of the card, and releases the rest when the trial has run out of memory."""
    free, total = torch.cuda.mem_get_info(cuda)
    held = [torch.empty(int(free - 0.1 * total), dtype=torch.uint8, device=cuda)]

    def release() -> None:
        while not (tmp_path / "crowded").exists() and not over.wait(0.2):
            pass
        held.clear()
        torch.cuda.empty_cache()

    over = threading.Event()
    neighbor = threading.Thread(target=release)
    neighbor.start()
    try:
        compute = ("compute.gpus_per_trial=0.25", "compute.max_retries=3")
        trials = sweep(tmp_path, "crowded_once", *compute, gigabytes=0.15 * total / 1e9, marks=tmp_path)
    finally:
        over.set()
        neighbor.join()
    assert (tmp_path / "crowded").exists()
    assert [trial.state for trial in trials] == ["COMPLETE", "COMPLETE"], [trial.reason for trial in trials]
    study = (tmp_path / "faults" / "study.jsonl").read_text()
    assert set(re.findall(r'constraints:infeasible": ?([\d.]+)', study)) == {"0.0"}


@pytest.mark.usefixtures("cuda")
def test_trials_without_a_gpu_do_not_use_one(tmp_path: Path) -> None:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("needs nvidia-smi")
    before = used_mb()
    trials = sweep(tmp_path, "look", "compute.gpus_per_trial=0", marks=tmp_path)
    for trial in trials:
        assert trial.state == "COMPLETE", trial.reason
        assert trial.extra["device"].startswith("cpu"), trial.extra
    seen = json.loads((tmp_path / "look.json").read_text())
    assert (seen["device"], seen["initialized"]) == ("cpu", False)
    assert seen["used_mb"] - before < 150  # CUDA itself takes 300 to 600 MB


def test_a_stopped_trial_leaves_no_memory_to_the_next(device: torch.device, tmp_path: Path) -> None:
    stop = "+scheduler={_target_: tests.gpu.faults.StopAfterOne, time_attr: epoch}"
    first, second = sweep(tmp_path, "none", "~scheduler", stop, ballast=BALLAST)
    assert (first.state, second.state) == ("PRUNED", "PRUNED"), (first.reason, second.reason)
    assert first.extra["pid"] == second.extra["pid"]  # the same worker
    key = "device_used_mb" if device.type == "cuda" else "device_memory_mb"
    assert second.epochs[0][key] - first.epochs[0][key] < 500 * BALLAST, (first.epochs, second.epochs)
