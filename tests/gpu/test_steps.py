"""The steps of an epoch: without waiting for the GPU (G1), with a scaled loss (G11), as CUDA graphs (G13)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ferhpo.training import batches as batches_module
from ferhpo.training.batches import Batch, TrainBatches
from tests.gpu.trials import BATCH_SIZE, DRY_RUN, FAMILIES, IMAGE_SIZE, Trained, assert_equal, own_model, train

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
        "attention": [*FAMILIES["vit"], "model.dropout=0.1"],
        "clip": [*FAMILIES["resnet"], "optim=sgd", "lr_schedule=one_cycle", "trainer.gradient_clip_norm=1.0"],
        "frozen_epochs": [*FAMILIES["resnet"], "trainer.frozen_epochs=1"],
        "average": [*FAMILIES["resnet"], "trainer.weight_averaging=ema", "trainer.label_smoothing=0.1"],
        "mixup": [*FAMILIES["cnn"], "augment=strong", f"augment.crop={IMAGE_SIZE - 4}"],
    }.items(),
    ids=lambda case: case[0],
)
@pytest.mark.parametrize("precision", ["32"] if DRY_RUN else ["32", "bf16"])
def test_a_cuda_graph_equals_single_operations_in_bits(
    device: torch.device, tmp_path: Path, case: tuple[str, list[str]], precision: str
) -> None:
    """In a dry run, the stand-in for a graph does."""
    trials: list[Trained] = []
    for value in ("true", "false"):
        more = [f"trainer.precision={precision}", f"trainer.cuda_graph={value}"]
        trials.append(train(tmp_path / value, *case[1], *more))
        assert trials[-1].outcome is not None
        assert trials[-1].outcome.state == "COMPLETE", trials[-1].outcome.reason
    if device.type == "cuda":
        assert [trial.facts["cuda_graph"] for trial in trials] == ["yes", "no: trainer.cuda_graph is false"]
    assert_equal(trials[0].states, trials[1].states)


@pytest.mark.usefixtures("cuda")
def test_a_training_resumed_with_a_cuda_graph_equals_one_without(tmp_path: Path) -> None:
    overrides = [*FAMILIES["cnn"], "trainer.max_epochs=3", "trainer.precision=bf16"]
    whole = train(tmp_path / "whole", *overrides, "trainer.cuda_graph=false")
    train(tmp_path / "cut", *overrides, stop_after=1)
    resumed = train(tmp_path / "cut", *overrides)
    assert resumed.facts["cuda_graph"] == "yes"
    assert_equal(resumed.states[3], whole.states[3])


def test_a_network_that_waits_for_the_gpu_trains_without_a_graph(device: torch.device, tmp_path: Path) -> None:
    """Also when the same network draws random numbers, and in the next trial of the process."""
    overrides = [*own_model(fault="wait"), "trainer.precision=32"]
    waiting = train(tmp_path / "waiting", *overrides)
    single = train(tmp_path / "single", *overrides, "trainer.cuda_graph=false")
    assert_equal(waiting.states, single.states)
    if device.type == "cuda":
        assert waiting.facts["cuda_graph"].startswith("no: CUDA error: operation not permitted"), waiting.facts
        assert train(tmp_path / "next", *FAMILIES["cnn"]).facts["cuda_graph"] == "yes"
