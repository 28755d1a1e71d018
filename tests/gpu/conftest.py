"""The device of the tests marked gpu, and its state after each of them."""

import gc
from collections.abc import Iterator

import pytest
import torch

from ferhpo.training.settings import PRETEND_GPU
from tests.gpu.trials import DRY_RUN


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The first GPU, or the CPU in a dry run."""
    if DRY_RUN:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda", 0)


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """The first GPU; a test that uses it is skipped in a dry run."""
    if device.type != "cuda":
        pytest.skip("needs a CUDA device, and this is a dry run")
    return device


@pytest.fixture(autouse=True)
def card(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let trials train on the CPU in a dry run; on a GPU, undo their memory limit and release their memory."""
    if device.type == "cpu":
        monkeypatch.setenv(PRETEND_GPU, "1")
    yield
    if device.type == "cuda":
        gc.collect()
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()
