"""A resumed training equals an uninterrupted one to the bit."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import make_network

from ferhpo.scoring.kept import FILE
from ferhpo.training import checkpoint, schedules
from ferhpo.training.augment import Augment
from ferhpo.training.checkpoint import epoch_file
from ferhpo.training.hardware.usage import NAMES

MEASURED = ("epoch_seconds", "images_per_second", "device_memory_mb", *NAMES)
RunFit = Callable[..., Any]

EVERYTHING: dict[str, Any] = {
    "optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4),
    "lr_schedule": partial(schedules.cosine, warmup_epochs=1),
    "augment": Augment(flip=0.5, shift=0.1, rotation=10, crop=20, contrast=0.2, erasing=0.3, mixup=0.3),
    "trainer": {
        "max_epochs": 4,
        "weight_averaging": "ema",
        "sampling": "balanced",
        "label_smoothing": 0.1,
        "class_weights": "balanced",
        "gradient_clip_norm": 1.0,
        "keep_epochs": [2, 4],
    },
}
ADAM: dict[str, Any] = {
    "optimizer": partial(torch.optim.Adam, lr=0.01, amsgrad=True),
    "lr_schedule": partial(schedules.one_cycle),
    "augment": Augment(crop=20),
    "trainer": {"max_epochs": 4, "weight_averaging": "swa", "swa_start": 0.25, "precision": "bf16"},
}
PLATEAU: dict[str, Any] = {
    "optimizer": partial(torch.optim.RMSprop, lr=0.01, momentum=0.5),
    "lr_schedule": partial(schedules.plateau, patience=0),
    "augment": Augment(crop=20),
    "trainer": {"max_epochs": 4, "normalise": "image"},
}

FROZEN: dict[str, Any] = {  # the body is trained from the second epoch on, with its own learning rate
    "optimizer": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.01),
    "lr_schedule": partial(schedules.step, every_epochs=2, factor=0.5),
    "augment": Augment(scale=0.1, brightness=0.2, crop=20),
    "trainer": {"max_epochs": 4, "normalise": "none", "frozen_epochs": 1, "body_lr_factor": 0.1},
}


class Stop:
    """A report that stops the training after one epoch, and records every report."""

    def __init__(self, after: int | None) -> None:
        self.after = after
        self.reports: list[tuple[int, dict[str, float]]] = []

    def __call__(self, epoch: int, metrics: dict[str, float]) -> None:
        self.reports.append((epoch, {key: value for key, value in metrics.items() if key not in MEASURED}))
        torch.rand(5)  # a report may use random numbers
        if epoch == self.after:
            self.after = None
            raise SystemExit(0)


def network() -> torch.nn.Module:
    return make_network(size=20, conv_dropout=0.2, dense_dropout=0.2)


def contents(path: Path) -> dict[str, Any]:
    """A checkpoint without measured times and memory."""
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    for metrics in [*loaded.get("history", []), loaded.get("metrics", {})]:
        for key in MEASURED:
            metrics.pop(key, None)
    return loaded


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for i, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_equal(left, right, f"{where}[{i}]")
    else:
        assert one == other, where


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(EVERYTHING, id="everything"),
        pytest.param(ADAM, id="adam", marks=pytest.mark.full),
        pytest.param(PLATEAU, id="plateau", marks=pytest.mark.full),
        pytest.param(FROZEN, id="frozen", marks=pytest.mark.full),
    ],
)
def test_resumed_after_any_epoch_equals_uninterrupted(run_fit: RunFit, tmp_path: Path, config: dict[str, Any]) -> None:
    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    whole_report, whole = Stop(after=None), folder("whole")
    whole_result = run_fit(network=network(), folder=whole, report=whole_report, **config)
    for after in (1, 2, 3, 4):
        report, cut = Stop(after), folder(f"cut{after}")
        with pytest.raises(SystemExit):
            run_fit(network=network(), folder=cut, report=report, **config)
        assert [epoch for epoch, _ in report.reports] == list(range(1, after + 1))
        report.reports.clear()
        result = run_fit(network=network(), folder=cut, report=report, **config)
        assert report.reports == whole_report.reports
        assert_equal(contents(cut / "last.ckpt"), contents(whole / "last.ckpt"))
        assert_equal(contents(cut / "best.ckpt"), contents(whole / "best.ckpt"))
        for epoch in config["trainer"].get("keep_epochs", []):
            assert_equal(contents(epoch_file(cut, epoch)), contents(epoch_file(whole, epoch)))
        assert (result.best_epoch, result.best_value, result.confusion) == (
            whole_result.best_epoch,
            whole_result.best_value,
            whole_result.confusion,
        )


def test_finished_training_only_reports(run_fit: RunFit, tmp_path: Path) -> None:
    result = run_fit()
    before = (tmp_path / "last.ckpt").stat().st_mtime_ns
    report = Stop(after=None)
    assert run_fit(report=report) == result
    assert [epoch for epoch, _ in report.reports] == [1, 2]
    assert (tmp_path / "last.ckpt").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "step",
    ["epoch written", *(pytest.param(step, marks=pytest.mark.full) for step in ("next_best written", "last written"))],
)
def test_kill_between_the_checkpoints(
    run_fit: RunFit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Killed in the second epoch, whose weights are better: best.ckpt and last.ckpt agree again after the resume."""
    objective: dict[str, Any] = {
        "metric": "lr",
        "trainer": {"max_epochs": 2, "keep_epochs": [2]},
    }  # rises, so each epoch is the best
    objective["lr_schedule"] = partial(schedules.constant, warmup_epochs=1.5)
    whole = tmp_path / "whole"
    whole.mkdir()
    run_fit(folder=whole, **objective)

    written: list[str] = []
    write = checkpoint._write
    kill_at = 3 + ["epoch written", "next_best written", "last written"].index(step)  # the first epoch writes two

    def write_and_die(path: Path, content: dict[str, Any]) -> None:
        write(path, content)
        written.append(path.name)
        if len(written) == kill_at:
            raise SystemExit(9)

    monkeypatch.setattr(checkpoint, "_write", write_and_die)
    cut = tmp_path / "cut"
    cut.mkdir()
    with pytest.raises(SystemExit):
        run_fit(folder=cut, **objective)
    monkeypatch.undo()
    assert contents(cut / "best.ckpt")["epoch"] == 1
    result = run_fit(folder=cut, **objective)
    assert result.best_epoch == contents(cut / "best.ckpt")["epoch"] == 2
    for name in ("best.ckpt", "epoch_0002.ckpt"):
        assert_equal(contents(cut / name), contents(whole / name))
    assert sorted(path.name for path in cut.iterdir()) == ["best.ckpt", "epoch_0002.ckpt", "last.ckpt", FILE]
