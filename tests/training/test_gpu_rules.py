"""What is decided about GPUs, without one: torch's CUDA functions are replaced, or asked for the text of their errors."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import make_data, make_network
from torch import nn

from ferhpo.errors import FerhpoError, GpuCrowded, is_out_of_memory, is_unusable_gpu
from ferhpo.scoring.device_data import device_for, release_gpu_memory
from ferhpo.scoring.exact import exact_float32
from ferhpo.scoring.predict import evaluate
from ferhpo.scoring.preprocess import preprocess_of
from ferhpo.training.hardware import cuda
from ferhpo.training.hardware.device import memory_format_of, torch_switches
from ferhpo.training.settings import Hardware, TrainerSettings

GB = 1e9
CUDA = torch.device("cuda", 0)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def flags() -> dict[str, Any]:
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fills": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "tf32": torch.backends.cudnn.allow_tf32,
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "products": torch.get_float32_matmul_precision(),
    }


def test_switches_for_a_deterministic_training_on_a_gpu() -> None:
    before = flags()
    with torch_switches(TrainerSettings(), CUDA):
        assert flags() == {
            "deterministic": True,
            "warn_only": False,
            "fills": False,
            "tf32": False,
            "cudnn": (True, False),
            "products": "highest",
        }
    assert flags() == before
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_workers_get_the_workspace_of_cublas_before_their_first_product() -> None:
    from ferhpo.driver.ray_cluster import worker_environment

    assert worker_environment()["CUBLAS_WORKSPACE_CONFIG"]


def test_deterministic_false_asks_for_nothing() -> None:
    with torch_switches(TrainerSettings(deterministic=False), CUDA):
        assert not flags()["deterministic"]
        assert flags()["cudnn"] == (False, False)


def test_what_the_user_set_comes_back_after_exact_float32() -> None:
    before = flags()
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    try:
        during = flags()
        with exact_float32():
            assert (flags()["tf32"], flags()["products"]) == (False, "highest")
        assert flags() == during
    finally:
        torch.set_float32_matmul_precision(before["products"])
        torch.backends.cudnn.allow_tf32 = before["tf32"]


def test_validation_is_exact_float32() -> None:
    data, seen = make_data(), []
    network = make_network()
    network.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    torch.backends.cudnn.allow_tf32 = True
    evaluate(network, data, "val", preprocess_of(data, data.image_size, "dataset"))
    assert set(seen) == {False}
    assert torch.backends.cudnn.allow_tf32 is True


class Small(nn.Module):
    """A network that runs out of memory for more than `limit` images in evaluation."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.network, self.limit = make_network(), limit
        self.sizes: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            self.sizes.append(len(images))
            if len(images) > self.limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        logits: torch.Tensor = self.network(images)
        return logits


def test_validation_halves_its_batches_when_memory_runs_out(run_fit: Callable[..., Any], tmp_path: Path) -> None:
    small = Small(limit=7)
    result = run_fit(network=small, trainer={"eval_batch_size": 20})
    assert result.epochs_done == 2
    assert small.sizes[:4] == [20, 10, 5, 20], "the probe, then the first epoch"
    with pytest.raises(torch.OutOfMemoryError):
        run_fit(network=Small(limit=0), folder=made(tmp_path / "other"))


@pytest.mark.parametrize(
    ("text", "free_gb", "is_memory"),
    [
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", 70, True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", 70, True),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", 1, True),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", 70, False),
        ("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", 1, True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", 1, True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", 70, False),
        ("Unable to find an engine to execute this computation", 1, True),
        ("unable to find an engine to execute this computation", 70, False),
        ("CUDA error: device-side assert triggered", 1, False),
    ],
)
def test_what_libraries_say_when_memory_is_short(
    monkeypatch: pytest.MonkeyPatch, text: str, free_gb: int, is_memory: bool
) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda *_: (free_gb * GB, 80 * GB))
    assert is_out_of_memory(RuntimeError(text)) == is_memory
    assert is_unusable_gpu(RuntimeError(text)) == (not is_memory and text.startswith("CUDA error:"))


def test_without_a_gpu_a_doubtful_text_is_no_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let torch report one GPU of 80 GB; record what is called. `free` is a list of what is free, one per question."""
    state: dict[str, Any] = {"calls": [], "free": [80 * GB], "reserved": 0.0, "peak": 0.0, "now": 0.0}

    def mem_get_info(*_: Any) -> tuple[float, float]:
        state["calls"].append("ask")
        free = state["free"].pop(0) if len(state["free"]) > 1 else state["free"][0]
        return free, 80 * GB

    def sleep(seconds: float) -> None:
        state["now"] += seconds

    properties = type("Properties", (), {"total_memory": 80 * GB})
    for name, function in {
        "is_available": lambda: True,
        "get_device_properties": lambda *_: properties,
        "set_per_process_memory_fraction": lambda share, *_: state["calls"].append(("fraction", round(share, 3))),
        "mem_get_info": mem_get_info,
        "memory_reserved": lambda *_: state["reserved"],
        "max_memory_reserved": lambda *_: state["peak"],
        "reset_peak_memory_stats": lambda *_: state["calls"].append("reset"),
    }.items():
        monkeypatch.setattr(f"torch.cuda.{name}", function)
    monkeypatch.setattr("ferhpo.training.hardware.cuda.time.sleep", sleep)
    monkeypatch.setattr("ferhpo.training.hardware.cuda.time.monotonic", lambda: state["now"])
    return state


def test_a_trial_limits_itself_then_waits_then_begins(card: dict[str, Any]) -> None:
    card["free"] = [2 * GB, 9 * GB, 16 * GB, 25 * GB]
    cuda.claim(CUDA, 0.25)
    assert card["calls"] == [("fraction", 0.242), "ask", "ask", "ask", "ask", "reset"]


def test_waiting_ends_if_nothing_becomes_free(card: dict[str, Any]) -> None:
    card["free"] = [30 * GB]
    cuda.claim(CUDA, 1)
    assert card["calls"][0] == ("fraction", 1.0)
    assert cuda.STEADY_SECONDS < card["now"] < cuda.STEADY_SECONDS + 2


def test_waiting_ends_after_a_minute(card: dict[str, Any]) -> None:
    card["free"] = [step * GB / 100 for step in range(1000)]
    cuda.claim(CUDA, 1)
    assert cuda.WAIT_SECONDS < card["now"] < cuda.WAIT_SECONDS + 2


@pytest.mark.parametrize(
    ("share", "peak_gb", "wanted", "others"),
    [
        (0.25, 4, "2.00 GiB", True),  # 6 of 20 GB: a neighbor holds the rest
        (0.25, 15, "6.00 GiB", False),
        (1, 10, "20.00 GiB", True),
        (1, 60, "20.00 GiB", False),
        (1, 79, "512.00 MiB", False),
        (1, 79, "", False),
        (0.25, 15, "", False),
        (0.25, 2, "", True),
    ],
)
def test_whose_fault_a_lack_of_memory_is(
    card: dict[str, Any], share: float, peak_gb: float, wanted: str, others: bool
) -> None:
    owned = cuda.claim(CUDA, share)
    card["peak"] = card["reserved"] = peak_gb * GB
    card["free"] = [0.1 * GB if others or share == 1 else (1 - share) * 0.2 * GB + 45 * GB]
    text = f"CUDA out of memory. Tried to allocate {wanted}." if wanted else "CUDNN_STATUS_ALLOC_FAILED"
    assert owned.others_took(RuntimeError(text)) == others


def test_a_trial_whose_memory_others_hold_is_not_infeasible(
    card: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ferhpo.config.compose import compose
    from ferhpo.trial import run

    def out_of_memory(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB. Process 123 has 70 GiB in use.")

    monkeypatch.setattr("ferhpo.training.fit.fit", out_of_memory)
    monkeypatch.setattr("ferhpo.trial.run.facts", lambda *_: {})
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (9, 0))
    config = compose("demo", []).config
    arguments = (config, make_data(), tmp_path / "trial", 1, lambda *_: None)
    with pytest.raises(GpuCrowded, match=r"other processes hold the GPU memory of this trial: CUDA out of memory\."):
        run.run_trial(*arguments, hardware=Hardware(1, num_gpus=0.5))
    card["peak"] = 39.5 * GB
    assert run.run_trial(*arguments, hardware=Hardware(1, num_gpus=0.5)).state == "INFEASIBLE"


def test_a_trial_without_a_gpu_uses_none_and_its_worker_hides_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ferhpo.components.own_code import OwnCode
    from ferhpo.driver.ray_worker import worker_trial

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert cuda.device_of(0) == torch.device("cpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1", "this process may train on one later"
    config = {"folder": str(tmp_path)}  # of no trial: it fails at once, after the start of the worker
    for num_gpus, visible in ((1.0, "0,1"), (0.0, "")):
        with pytest.raises(KeyError):
            worker_trial(config, make_data(), Hardware(1, num_gpus=num_gpus), None, OwnCode((), {}))
        assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


def test_an_assigned_gpu_that_torch_cannot_use_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.delenv("FERHPO_PRETEND_GPU", raising=False)
    with pytest.raises(FerhpoError, match=r"^GPU 3 was assigned, but torch cannot use it: torch .* is built .*driver"):
        cuda.device_of(0.5)
    monkeypatch.setenv("FERHPO_PRETEND_GPU", "1")
    assert cuda.device_of(0.5) == torch.device("cpu")


def test_the_driver_is_named(tmp_path: Path) -> None:
    version = tmp_path / "version"
    assert cuda.driver_version(version) == ""
    version.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder@U22)\n"
    )
    assert cuda.driver_version(version) == "580.65.06"


def test_scoring_follows_what_the_sweep_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert device_for({"compute": {"gpus_per_trial": 0, "num_gpus": None}}).type == "cpu"
    assert device_for({"compute": {"gpus_per_trial": None, "num_gpus": 0}}).type == "cpu"
    assert device_for({"compute": {"gpus_per_trial": 0.5, "num_gpus": None}}).type == "cuda"
    assert device_for({}).type == "cuda"


def test_the_first_error_counts_although_a_broken_gpu_fails_the_cleanup(
    monkeypatch: pytest.MonkeyPatch, run_fit: Callable[..., Any]
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output = nn.Linear(24 * 24, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
            monkeypatch.setattr("torch.cuda.empty_cache", broken)
            monkeypatch.setattr("pytorch_lightning.Trainer._teardown", broken)
            raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        run_fit(network=Mine())
    release_gpu_memory()


def test_reasons_say_what_to_do() -> None:
    from ferhpo.trial.run import failure

    error = RuntimeError("CUDA error: device-side assert triggered")
    assert failure(error).splitlines()[0].endswith("; set CUDA_LAUNCH_BLOCKING=1 to see where it happens")
    error = RuntimeError("histc_cuda does not have a deterministic implementation, but you set ...")
    assert failure(error).splitlines()[0].endswith("; set trainer.deterministic=false")


def test_compiling_begins_anew_with_each_training(
    monkeypatch: pytest.MonkeyPatch, run_fit: Callable[..., Any], tmp_path: Path
) -> None:
    """torch compiles at most eight networks per line of source; the ninth trial of a worker would not be compiled."""
    from torch._dynamo.testing import CompileCounter

    counts = []
    compile_ = torch.compile
    for width in range(1, 11):
        counter = CompileCounter()
        monkeypatch.setattr("torch.compile", lambda network, counter=counter: compile_(network, backend=counter))
        run_fit(
            network=make_network(block_channels=width, dense_units=width),
            trainer={"compile": True, "max_epochs": 1},
            folder=made(tmp_path / str(width)),
        )
        counts.append(counter.frame_count)
    assert len(set(counts)) == 1, counts
    assert counts[0] >= 1


def test_group_norm_stays_contiguous_on_a_gpu() -> None:
    plain, grouped = nn.Sequential(nn.BatchNorm2d(4)), nn.Sequential(nn.GroupNorm(1, 4))
    auto = TrainerSettings()
    assert memory_format_of(auto, CUDA, plain) == torch.channels_last
    assert memory_format_of(auto, CUDA, grouped) == torch.contiguous_format
    assert memory_format_of(auto, torch.device("cpu"), grouped) == torch.channels_last
    assert memory_format_of(TrainerSettings(channels_last=True), CUDA, grouped) == torch.channels_last
