"""The steps of an epoch: without waiting for the GPU (G1), with a scaled loss (G11), as CUDA graphs (G13)."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from ferhpo.training import batches as batches_module
from ferhpo.training.batches import Batch, TrainBatches
from ferhpo.training.settings import TrainerSettings
from tests.gpu.trials import BATCH_SIZE, DRY_RUN, FAMILIES, IMAGE_SIZE, assert_equal, own_model, train

pytestmark = pytest.mark.gpu
PRECISIONS = ["32"] if DRY_RUN else ["32", "bf16", "16"]
AUGMENTS = {
    "none": [],
    "standard": ["augment=standard"],
    "strong": ["augment=strong", f"augment.crop={IMAGE_SIZE - 4}"],
}


@pytest.fixture
def strict(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a step that waits for the GPU raise, from the second batch to the last; return the number of batches."""
    counts: list[int] = []
    iterate = TrainBatches.__iter__

    def mode(name: str) -> None:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode(name)

    def batches(self: TrainBatches) -> Iterator[Batch]:
        count = 0
        try:
            for count, batch in enumerate(iterate(self), 1):
                if count == 2:
                    mode("error")
                yield batch
        finally:
            mode("default")
            counts.append(count)

    monkeypatch.setattr(TrainBatches, "__iter__", batches)
    # Two batches are augmented at a time, so that augmentation too runs after the second batch.
    for name in ("_GPU_IMAGE_BYTES", "_CPU_IMAGE_BYTES"):
        monkeypatch.setattr(batches_module, name, 2 * 4 * BATCH_SIZE * IMAGE_SIZE**2)
    return counts


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("augment", ["strong"] if DRY_RUN else AUGMENTS)
@pytest.mark.parametrize("family", ["cnn", "resnet", "vit"])
def test_no_step_waits_for_the_gpu(
    strict: list[int], tmp_path: Path, family: str, augment: str, precision: str
) -> None:
    more = ["trainer.max_epochs=1", "trainer.weight_averaging=ema", "trainer.gradient_clip_norm=1.0"]
    more += ["optim=sgd", "lr_schedule=cosine"] if family == "resnet" else []
    overrides = [*FAMILIES[family], *AUGMENTS[augment], *more, f"trainer.precision={precision}"]
    outcome = train(tmp_path / "trial", *overrides).outcome
    assert outcome is not None
    assert outcome.state == "COMPLETE", outcome.reason
    assert max(strict) > 2, strict


@pytest.mark.usefixtures("cuda")
def test_an_overflow_skips_a_step_and_the_scale_survives_a_resume(tmp_path: Path) -> None:
    overrides = [*own_model(fault="spike"), "optim=sgd", "optim.lr=0.001", "trainer.precision=16"]
    overrides += ["trainer.max_epochs=3"]
    whole = train(tmp_path / "whole", *overrides)
    assert whole.outcome is not None
    assert whole.outcome.state == "COMPLETE", whole.outcome.reason
    first = whole.states[1]["last"]
    assert first["precision"]["scale"] < 2.0**16  # where torch starts
    assert all(torch.isfinite(value).all() for value in first["network"].values())
    train(tmp_path / "cut", *overrides, stop_after=1)
    resumed = train(tmp_path / "cut", *overrides)
    assert_equal(resumed.states, whole.states)


@pytest.mark.parametrize(
    "case",
    {
        "dropout": [*FAMILIES["cnn"]],
        "clip": [*FAMILIES["resnet"], "optim=sgd", "lr_schedule=one_cycle", "trainer.gradient_clip_norm=1.0"],
        "frozen_epochs": [*FAMILIES["resnet"], "trainer.frozen_epochs=1"],
        "mixup": [*FAMILIES["cnn"], "augment=strong", f"augment.crop={IMAGE_SIZE - 4}"],
    }.items(),
    ids=lambda case: case[0],
)
def test_a_cuda_graph_equals_single_operations_in_bits(
    cuda: torch.device, tmp_path: Path, case: tuple[str, list[str]]
) -> None:
    pytest.importorskip("ferhpo.training.graph", reason="no CUDA graphs yet")
    names = {field.name for field in fields(TrainerSettings)} & {"cuda_graph", "cuda_graphs", "graph"}
    if not names:
        pytest.skip("no trainer setting selects CUDA graphs")
    states: list[Any] = []
    for value in ("true", "false"):
        setting = f"trainer.{min(names)}={value}"
        trained = train(tmp_path / value, *case[1], "trainer.precision=bf16", setting)
        assert trained.outcome is not None
        assert trained.outcome.state == "COMPLETE", trained.outcome.reason
        states.append(trained.states)
    assert_equal(*states)
