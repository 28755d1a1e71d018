"""The memory of trials in one process (G5)."""

import gc
from pathlib import Path

import pytest
import torch

from ferhpo.training.hardware.cuda import CONTEXT_BYTES
from tests.gpu.trials import DRY_RUN, FAMILIES, NUM_VAL, own_model, train

pytestmark = pytest.mark.gpu
NUM_TRIALS = 5 if DRY_RUN else 20
GIGABYTE = 1e9


def share_of(device: torch.device, gigabytes: float) -> float:
    """Return the share of the card with which a trial may use this much memory."""
    total = torch.cuda.get_device_properties(device).total_memory
    return float((gigabytes * GIGABYTE + CONTEXT_BYTES) / total)


@pytest.mark.parametrize("when", ["train", "val"])
def test_a_trial_without_enough_memory_is_infeasible(cuda: torch.device, tmp_path: Path, when: str) -> None:
    share = share_of(cuda, 1.0)
    model = own_model(fault=f"{when}_memory", gigabytes=2.0)
    outcome = train(tmp_path / "large", *model, share=share).outcome
    assert outcome is not None
    assert outcome.state == "INFEASIBLE", outcome.reason
    assert outcome.reason.startswith("out of memory: CUDA out of memory. ")
    after = train(tmp_path / "small", *FAMILIES["cnn"], share=share).outcome
    assert after is not None
    assert after.state == "COMPLETE", after.reason


def test_a_large_network_is_infeasible(cuda: torch.device, tmp_path: Path) -> None:
    """Here memory runs out inside cuDNN or cuBLAS, in the optimizer or in a copy, and not in a network that asks."""
    for gigabytes in (0.3, 0.6, 1.2):
        overrides = ["model=resnet", "model.width=128", "trainer.precision=32"]
        outcome = train(tmp_path / str(gigabytes), *overrides, share=share_of(cuda, gigabytes)).outcome
        assert outcome is not None
        assert outcome.state == "INFEASIBLE", outcome.reason


def test_batches_of_validation_are_halved_until_they_fit(cuda: torch.device, tmp_path: Path) -> None:
    model = own_model(fault="val_batch_memory", gigabytes=3.0 / NUM_VAL)
    outcome = train(tmp_path / "trial", *model, share=share_of(cuda, 1.0)).outcome
    assert outcome is not None
    assert outcome.state == "COMPLETE", outcome.reason


def test_ended_trials_leave_no_memory(device: torch.device, tmp_path: Path) -> None:
    left = []
    for number in range(NUM_TRIALS):
        family = ("cnn", "resnet", "vit", "attention")[number % 4]
        train(tmp_path / str(number), *FAMILIES[family], "trainer.max_epochs=1", "trainer.weight_averaging=ema")
        gc.collect()
        tensors = sum(type(thing) in (torch.Tensor, torch.nn.Parameter) for thing in gc.get_objects())
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            left.append((tensors, torch.cuda.memory_allocated(), torch.cuda.memory_reserved(), total - free))
        else:
            left.append((tensors, 0, 0, 0))
    first, last = left[-5], left[-1]  # of the same family, and the first trials also load libraries
    assert last[0] == first[0], left
    assert last[1] <= first[1] < 50e6, left
    assert last[2] <= first[2], left
    assert last[3] - first[3] < 50e6, left
