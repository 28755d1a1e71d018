"""The same seed gives the same bits (G3), also after a resume (G4)."""

from pathlib import Path

import pytest
import torch

from tests.gpu.trials import DRY_RUN, FAMILIES, assert_equal, train

pytestmark = pytest.mark.gpu
HALF = "32" if DRY_RUN else "16"  # a CPU has no precision 16
PRECISIONS = ["32", "16"] if DRY_RUN else ["32", "bf16", "16"]
NUM_EPOCHS = 2 if DRY_RUN else 4
RICH = [
    "augment=standard",
    "optim=sgd",
    "lr_schedule=one_cycle",
    "trainer.weight_averaging=ema",
    "trainer.label_smoothing=0.1",
    "trainer.gradient_clip_norm=1.0",
]
RESUMED = {
    "scaler_ema_one_cycle": [*FAMILIES["resnet"], *RICH, f"trainer.precision={HALF}"],
    "swa_plateau_dropout": [
        *FAMILIES["cnn"],
        "augment=strong",
        "augment.crop=20",
        "optim=adam",
        "lr_schedule=plateau",
        "lr_schedule.patience=0",
        "trainer.weight_averaging=swa",
        "trainer.swa_start=0.25",
        "trainer.precision=bf16",
    ],
    "frozen_epochs": [
        *FAMILIES["attention"],
        "optim=adamw",
        "lr_schedule=step",
        "lr_schedule.every_epochs=2",
        "trainer.frozen_epochs=1",
        "trainer.body_lr_factor=0.1",
        f"trainer.precision={HALF}",
    ],
    "attention_of_tokens": [*FAMILIES["vit"], "augment=flip", "optim=rmsprop", "trainer.precision=bf16"],
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", ["cnn", "attention", "vit", "resnet18", "efficientnet_b0"])
def test_two_runs_are_equal_in_bits(device: torch.device, tmp_path: Path, family: str, precision: str) -> None:
    if precision == "16" and device.type != "cuda":
        pytest.skip("precision 16 needs a CUDA device, and this is a dry run")
    num_epochs = 1 if DRY_RUN else 2
    overrides = [*FAMILIES[family], *RICH, f"trainer.precision={precision}", f"trainer.max_epochs={num_epochs}"]
    first, second = train(tmp_path / "first", *overrides), train(tmp_path / "second", *overrides)
    assert first.outcome is not None
    assert first.outcome.state == "COMPLETE", first.outcome.reason
    assert list(first.states) == list(range(1, num_epochs + 1))
    assert_equal(first.states, second.states)


@pytest.mark.parametrize("case", RESUMED)
def test_a_resume_after_any_epoch_equals_an_uninterrupted_run(tmp_path: Path, case: str) -> None:
    overrides = [*RESUMED[case], f"trainer.max_epochs={NUM_EPOCHS}"]
    whole = train(tmp_path / "whole", *overrides)
    assert list(whole.states) == list(range(1, NUM_EPOCHS + 1))
    for after in range(1, NUM_EPOCHS):
        folder = tmp_path / f"cut{after}"
        assert train(folder, *overrides, stop_after=after).outcome is None
        resumed = train(folder, *overrides)
        assert_equal(resumed.states, {epoch: state for epoch, state in whole.states.items() if epoch >= after})
