"""Steps that are recorded once and replayed: they train to the same bits as single operations.

On the CPU, the stand-in for a CUDA graph runs the recorded step again, with everything else as on a GPU. The calls of
torch.cuda are tested with a fake of them in test_cuda_recorder.py.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from test_fit_resume import EVERYTHING, FROZEN, Stop, assert_equal, contents, network
from tiny_training import make_data, make_network
from torch import nn

from ferhpo.models.resnet import ResNet
from ferhpo.models.vit import ViT
from ferhpo.scoring.kept import FILE
from ferhpo.training.augment import Augment
from ferhpo.training.settings import TrainerSettings
from ferhpo.training.steps.graph import StepGraph, why_not
from ferhpo.training.steps.recorders import EagerRecorder, NotRecordable

RunFit = Callable[..., Any]
SMALL = {"in_channels": 1, "num_classes": 3, "image_size": 24}


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of replays of each recording, in their order."""
    counts: list[int] = []
    record, replay = EagerRecorder.record, EagerRecorder.replay

    def counted_record(self: EagerRecorder, run: Any) -> Any:
        counts.append(-1)  # the first replay is compared with the step itself
        return record(self, run)

    def counted_replay(self: EagerRecorder) -> None:
        counts[-1] += 1
        replay(self)

    monkeypatch.setattr(EagerRecorder, "record", counted_record)
    monkeypatch.setattr(EagerRecorder, "replay", counted_replay)
    return counts


def both(run_fit: RunFit, tmp_path: Path, make: Callable[[], nn.Module], **config: Any) -> dict[str, str]:
    """Train with and without recordings, compare all that the trainings leave, and return the facts of the former."""
    facts: dict[str, str] = {}
    trainer = config.pop("trainer", {})
    networks = {}
    for name, setting in (("recorded", True), ("single", False)):
        folder = tmp_path / name
        folder.mkdir()
        networks[name] = seeded(make)
        settings = {"keep_epochs": [1, 2], **trainer, "cuda_graph": setting}
        tell = facts.update if setting else lambda facts: None
        run_fit(network=networks[name], folder=folder, trainer=settings, tell=tell, **config)
    files = sorted(path.name for path in (tmp_path / "single").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "recorded").iterdir())
    for name in files:
        if name == FILE:  # of the same bits, as the networks are
            assert (tmp_path / "recorded" / name).read_bytes() == (tmp_path / "single" / name).read_bytes()
            continue
        assert_equal(contents(tmp_path / "recorded" / name), contents(tmp_path / "single" / name), name)
    assert_equal(networks["recorded"].state_dict(), networks["single"].state_dict())
    assert all(parameter.grad is None for parameter in networks["recorded"].parameters()), "their memory is released"
    return facts


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


@pytest.mark.parametrize("what", ["gradient", "loss"])
def test_a_recording_that_gives_another_result_is_not_used(
    run_fit: RunFit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    replay = EagerRecorder.replay

    def wrong(self: EagerRecorder) -> None:
        replay(self)
        place = self._gradients[0][1] if what == "gradient" else self._outputs[0]
        place.mul_(2)

    monkeypatch.setattr(EagerRecorder, "replay", wrong)
    facts = both(run_fit, tmp_path, make_network)
    assert facts == {"cuda_graph": "no: a repeated step gives another result"}


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (partial(ResNet, **SMALL, width=8, num_stages=2, dropout=0.2), {"trainer": {"gradient_clip_norm": 0.5}}),
        (partial(ViT, **SMALL, num_blocks=1, head_width=4, patch_size=8, dropout=0.2), {"augment": Augment(mixup=0.3)}),
        (network, {**EVERYTHING, "trainer": {**EVERYTHING["trainer"], "max_epochs": 2, "keep_epochs": [1]}}),
        (network, {"trainer": {"precision": "bf16"}, "augment": Augment(crop=20)}),
        (make_network, {"data": make_data(soft=True), "trainer": {"weight_averaging": "swa", "swa_start": 0.1}}),
    ],
    ids=["resnet", "vit", "everything", "bf16", "soft"],
)
def test_recorded_steps_train_to_the_same_bits(
    run_fit: RunFit, tmp_path: Path, recordings: list[int], make: Callable[[], nn.Module], config: dict[str, Any]
) -> None:
    facts = both(run_fit, tmp_path, make, **config)
    assert recordings == [10], "one recording for 2 epochs of 5 steps"
    assert facts["cuda_graph"].startswith("no: the device has no CUDA graphs")


def test_a_step_is_recorded_again_when_the_frozen_epochs_end(
    run_fit: RunFit, tmp_path: Path, recordings: list[int]
) -> None:
    both(run_fit, tmp_path, network, **{**FROZEN, "trainer": {**FROZEN["trainer"], "max_epochs": 3}})
    assert recordings == [5, 10]


def test_a_resumed_training_with_recordings_equals_one_without(run_fit: RunFit, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    trainer = {**EVERYTHING["trainer"], "max_epochs": 3, "keep_epochs": [2]}
    run_fit(network=network(), folder=tmp_path / "whole", **{**EVERYTHING, "trainer": trainer})
    cut = {**EVERYTHING, "trainer": {**trainer, "cuda_graph": True}, "folder": tmp_path / "cut"}
    with pytest.raises(SystemExit):
        run_fit(network=network(), report=Stop(after=2), **cut)
    run_fit(network=network(), **cut)
    for name in ("last.ckpt", "best.ckpt", "epoch_0002.ckpt"):
        assert_equal(contents(tmp_path / "cut" / name), contents(tmp_path / "whole" / name))


class Rising(pl.Callback):
    """Change a setting of the network, and its gradients, between epochs."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        for module in pl_module.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.1 * trainer.current_epoch
        pl_module.zero_grad(set_to_none=True)


def test_what_a_callback_changes_between_epochs_is_recorded(
    run_fit: RunFit, tmp_path: Path, recordings: list[int]
) -> None:
    both(run_fit, tmp_path, partial(make_network, dense_dropout=0.3), own_callbacks={"rising": Rising()})
    assert recordings == [5, 5]


class Clearing(pl.Callback):
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.zero_grad(set_to_none=True)


def test_gradients_that_a_callback_removes_come_back(run_fit: RunFit, tmp_path: Path, recordings: list[int]) -> None:
    both(run_fit, tmp_path, make_network, own_callbacks={"clearing": Clearing()})
    assert recordings == [10]


class Own(nn.Module):
    """A network with Python code that a recording does not repeat."""

    def __init__(self, does: str) -> None:
        super().__init__()
        self.output = nn.Linear(24 * 24, 3)
        self.does, self.num_steps = does, 0
        self.means: list[torch.Tensor] = []
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = images.mean()
        if self.training and self.does == "count":
            self.num_steps += 1
        if self.training and self.does == "append":
            self.means.append(mean)
        if self.training and self.does == "assign":
            self.seen = self.seen + mean
        if self.training and self.does == "add":
            self.seen += mean
        logits: torch.Tensor = self.output(images.flatten(1)) / (1 + self.num_steps + len(self.means)) + self.seen
        return logits


@pytest.mark.parametrize(
    ("does", "fact"),
    [
        ("count", "no: each step changes num_steps of Own"),
        ("assign", "no: each step changes buffers of Own"),
        ("append", "no: each step changes means of Own"),
        ("add", "no: the device has no CUDA graphs; recorded steps run again instead"),
    ],
)
def test_a_network_that_python_changes_is_not_recorded(
    run_fit: RunFit, tmp_path: Path, does: str, fact: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert both(run_fit, tmp_path, partial(Own, does)) == {"cuda_graph": fact}
    said = [record.message for record in caplog.records if "CUDA graph" in record.message]
    reason = fact.removeprefix("no: ")
    warning = f"the steps cannot be a CUDA graph ({reason}); each operation is started on its own"
    assert said == ([] if does == "add" else [warning])


def test_a_recording_that_fails_changes_nothing(
    run_fit: RunFit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: EagerRecorder, run: Any) -> Any:
        run()
        raise NotRecordable("operation not permitted when stream is capturing")

    monkeypatch.setattr(EagerRecorder, "record", fail)
    facts = both(run_fit, tmp_path, network, **{**FROZEN, "trainer": {**FROZEN["trainer"], "max_epochs": 2}})
    assert facts == {"cuda_graph": "no: operation not permitted when stream is capturing"}


def test_too_little_memory_is_an_error_of_the_step(run_fit: RunFit, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: EagerRecorder, run: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(EagerRecorder, "warm_up", fail)
    told: list[Any] = []
    with pytest.raises(torch.OutOfMemoryError):
        run_fit(trainer={"cuda_graph": True}, tell=told.append)
    assert told == []


def step_graph(told: list[str]) -> tuple[StepGraph, nn.Module]:
    layer = nn.Linear(4, 2)
    loss = nn.CrossEntropyLoss()

    def compute(inputs: tuple[torch.Tensor, ...], targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        layer.zero_grad()
        logits = layer(*inputs)
        value = loss(logits, targets)
        value.backward()
        return value.detach(), logits.detach()

    return StepGraph(compute, layer, loss, EagerRecorder(layer, torch.device("cpu")), told.append), layer


def test_batches_of_other_shapes_are_recorded_anew_but_not_for_ever(recordings: list[int]) -> None:
    told: list[str] = []
    graph, layer = step_graph(told)
    for size in (3, 3, 5, 3):
        _, logits = graph((torch.ones(size, 4),), torch.zeros(size, dtype=torch.int64))
        assert logits.shape == (size, 2)
    assert recordings == [2, 1, 1]
    graph.begin_epoch()
    for size in (3, 4, 5, 6, 7, 8):
        graph((torch.ones(size, 4),), torch.zeros(size, dtype=torch.int64))
        gradient = torch.autograd.grad(
            nn.functional.cross_entropy(layer(torch.ones(size, 4)), torch.zeros(size).long()), layer.weight
        )
        assert layer.weight.grad is not None
        assert torch.equal(layer.weight.grad, gradient[0])
    assert recordings == [2, 1, 2, 1, 1, 1]
    assert told[1:] == ["no: the batches of an epoch have different shapes"]


def test_gradients_and_results_stay_where_they_are() -> None:
    graph, layer = step_graph([])
    places = set()
    for step in range(4):
        graph.begin_epoch()
        loss, logits = graph((torch.full((3, 4), float(step)),), torch.zeros(3, dtype=torch.int64))
        assert layer.weight.grad is not None
        places.add((loss.data_ptr(), logits.data_ptr(), layer.weight.grad.data_ptr()))
    assert len(places) == 1


@pytest.mark.parametrize(
    ("settings", "precision", "device", "is_watched", "reason"),
    [
        ({}, "bf16", "cuda", False, ""),
        ({}, "32", "cuda", False, ""),
        ({"cuda_graph": False}, "bf16", "cuda", False, "trainer.cuda_graph is false"),
        ({}, "16", "cuda", False, "trainer.precision is 16"),
        ({"compile": True}, "bf16", "cuda", False, "trainer.compile is true"),
        ({}, "bf16", "cuda", True, "a callback watches each step"),
        ({}, "32", "cpu", False, "the device is a CPU"),
        ({"cuda_graph": True}, "32", "cpu", False, ""),
    ],
)
def test_when_steps_are_recorded(
    settings: dict[str, Any], precision: str, device: str, is_watched: bool, reason: str
) -> None:
    assert why_not(TrainerSettings(**settings), precision, torch.device(device), is_watched) == reason


class Watching(pl.Callback):
    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None: ...


def test_a_callback_within_each_step_needs_single_operations(run_fit: RunFit, recordings: list[int]) -> None:
    told: list[dict[str, str]] = []
    run_fit(trainer={"cuda_graph": True}, own_callbacks={"watching": Watching()}, tell=told.append)
    assert told == [{"cuda_graph": "no: a callback watches each step"}]
    assert recordings == []


def test_the_facts_of_a_trial_say_whether_its_steps_are_a_graph(tmp_path: Path) -> None:
    from ferhpo.config.compose import compose
    from ferhpo.training.settings import Hardware
    from ferhpo.trial.run import run_trial

    facts: dict[str, Any] = {}
    small = ["model.num_blocks=1", "model.block_channels=4", "model.dense_units=4", "trainer.max_epochs=1"]
    for setting, known in (("true", True), ("auto", False)):
        facts.clear()
        config = compose("demo", ["space=null", *small, f"trainer.cuda_graph={setting}"]).config
        outcome = run_trial(
            config, make_data(), tmp_path / setting, 1, lambda *_: None, facts.update, Hardware(1, "32")
        )
        assert outcome.state == "COMPLETE", outcome.reason
        assert ("cuda_graph" in facts) == known
        assert "num_parameters" in facts
