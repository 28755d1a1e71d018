"""The steps of an epoch: equal to a loop by hand, to the bit, and the same whoever watches them."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from tiny_training import make_data, make_network
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ferhpo.data.dataset import FaceData
from ferhpo.scoring.device_data import to_device
from ferhpo.scoring.preprocess import preprocess_of
from ferhpo.training import batches as batches_module
from ferhpo.training.augment import Augment
from ferhpo.training.averaging import WeightAverage
from ferhpo.training.batches import NETWORK, TrainBatches, epoch_rng

RunFit = Callable[..., Any]
STRONG = Augment(flip=0.5, shift=0.1, rotation=10.0, brightness=0.2, contrast=0.2, erasing=0.3, mixup=0.2)


def batches_of(data: FaceData, augment: Augment, batch_size: int = 20) -> TrainBatches:
    return TrainBatches(
        data,
        to_device(data, torch.device("cpu")),
        preprocess_of(data, augment.output_size(data.image_size), "dataset"),
        augment,
        batch_size=batch_size,
        sampling="shuffle",
        seed=3,
        memory_format=torch.channels_last,
    )


@pytest.mark.parametrize("clip", [None, 0.5])
def test_equals_a_loop_by_hand(run_fit: RunFit, clip: float | None) -> None:
    data, network = make_data(), make_network(dense_dropout=0.2)
    run_fit(network=network, trainer={"gradient_clip_norm": clip})
    by_hand = make_network(dense_dropout=0.2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.05, momentum=0.9, fused=True)
    batches = batches_of(data, Augment())
    for epoch in (1, 2):
        batches.epoch = epoch
        torch.manual_seed(int(epoch_rng(3, epoch, NETWORK).integers(2**63)))
        by_hand.train()
        for inputs, targets in batches:
            optimizer.zero_grad()
            F.cross_entropy(by_hand(*inputs), targets).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(by_hand.parameters(), clip)
            optimizer.step()
    found, expected = network.state_dict(), by_hand.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class Watcher(pl.Callback):
    """Record the hooks that are called, with Lightning's count of steps."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        inputs, targets = batch
        assert len(inputs[0]) == len(targets) == 20
        self.calls.append(("start", batch_idx))

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.calls.append(("zero_grad", trainer.global_step))

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        assert loss.requires_grad
        self.calls.append(("backward", trainer.global_step))

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        assert any(p.grad is not None for p in pl_module.parameters())
        self.calls.append(("after_backward", trainer.global_step))

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.calls.append(("step", trainer.global_step))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.calls.append(("end", trainer.global_step))


def test_a_callback_that_watches_each_step_is_called_at_each_and_changes_nothing(
    run_fit: RunFit, tmp_path: Path
) -> None:
    unwatched, watched = make_network(), make_network()
    run_fit(network=unwatched, trainer={"weight_averaging": "ema"})
    other = tmp_path / "watched"
    other.mkdir()
    watcher = Watcher()
    run_fit(network=watched, trainer={"weight_averaging": "ema"}, folder=other, own_callbacks={"watcher": watcher})
    num_steps = 2 * 5
    names = [name for name, _ in watcher.calls]
    assert names == ["start", "zero_grad", "backward", "after_backward", "step", "end"] * num_steps
    assert [count for name, count in watcher.calls if name == "step"] == list(range(num_steps))
    assert [count for name, count in watcher.calls if name == "end"] == list(range(1, num_steps + 1))
    expected = unwatched.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in watched.state_dict().items())


def test_a_callback_that_watches_epochs_leaves_the_steps_in_one_batch(run_fit: RunFit) -> None:
    class Epochs(pl.Callback):
        counts: ClassVar[list[tuple[int, int]]] = []

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.counts.append((trainer.global_step, int(trainer.num_training_batches)))

    run_fit(own_callbacks={"epochs": Epochs()})
    assert Epochs.counts == [(5, 1), (10, 1)]


@pytest.mark.parametrize("augment", [Augment(), Augment(flip=0.5, shift=0.1), STRONG], ids=["none", "flip", "strong"])
@pytest.mark.parametrize("soft", [False, True])
def test_augmenting_several_batches_at_once_gives_the_same_batches(
    monkeypatch: pytest.MonkeyPatch, augment: Augment, soft: bool
) -> None:
    """To the last bits of sines, which a vector and a single number may round differently."""
    data = make_data(soft=soft)
    found = {}
    for limit in (1, 10_000_000):
        monkeypatch.setattr(batches_module, "_CPU_IMAGE_BYTES", limit)
        found[limit] = list(batches_of(data, augment))
    assert len(found[1]) == len(found[10_000_000]) == 5
    for (one, one_targets), (several, several_targets) in zip(found[1], found[10_000_000], strict=True):
        assert torch.equal(one_targets, several_targets)
        torch.testing.assert_close(one[0], several[0], atol=1e-4, rtol=0)
        assert several[0].is_contiguous(memory_format=torch.channels_last)


def test_an_augmentation_of_the_users_own_gets_one_batch_at_a_time() -> None:
    sizes = []

    class Own(Augment):
        def __call__(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
            sizes.append(len(images))
            return super().__call__(images, noise)

    list(batches_of(make_data(), Own(flip=0.5)))
    assert sizes == [20] * 5


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.num_operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num_operations += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("augment", "most"), [(Augment(), 8), (Augment(flip=0.5, rotation=10.0), 10), (STRONG, 24)])
def test_a_batch_costs_few_operations(monkeypatch: pytest.MonkeyPatch, augment: Augment, most: int) -> None:
    """On a GPU each operation costs the time of a launch, whatever its size."""
    monkeypatch.setattr(batches_module, "_CPU_IMAGE_BYTES", batches_module._GPU_IMAGE_BYTES)
    batches = batches_of(make_data(1200), augment, batch_size=25)
    with _Count() as count:
        num_batches = sum(1 for _ in batches)
    assert num_batches == 32
    assert count.num_operations / num_batches <= most


class Assigning(nn.Module):
    """A network that replaces its buffer at each step, as own code may."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(2, 2)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = self.seen + 1
        logits: torch.Tensor = self.output(images)
        return logits


def test_an_average_follows_a_buffer_that_is_replaced() -> None:
    network = Assigning()
    average = WeightAverage(network, "ema", ema_decay=0.5, swa_epoch=1)
    for _ in range(30):
        network(torch.zeros(1, 2))
        average.after_step()
    assert 28.5 < float(average.network.seen) < 30  # type: ignore[arg-type]


def test_an_average_costs_few_operations_per_step() -> None:
    network = make_network()
    average = WeightAverage(network, "ema", ema_decay=0.5, swa_epoch=1)
    with _Count() as count:
        average.after_step()
    assert count.num_operations <= 2


class Large(nn.CrossEntropyLoss):
    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return 1000 * super().forward(logits, targets)


def test_the_loss_scale_of_precision_16_skips_a_step_that_overflows() -> None:
    """With torch's scaler on a CPU, in Lightning's place."""
    from ferhpo.training import schedules
    from ferhpo.training.steps.module import Classifier

    data = make_data()
    network = make_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    batches = batches_of(data, Augment())
    module = Classifier(
        network,
        optimizer,
        schedules.constant(optimizer, num_epochs=1, steps_per_epoch=5),
        None,
        batches,
        loss=Large(),
        clip_norm=1.0,
        num_classes=3,
        seed=0,
        first_epoch=1,
        compile=False,
        frozen_epochs=0,
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    total = type("Total", (), {"completed": 0})()
    names = ["manual_optimization", "optim_step_progress", "total"]
    epoch_loop: Any = total
    for name in reversed(names):
        epoch_loop = type("Part", (), {name: epoch_loop})()
    precision = type(
        "Precision", (), {"scaler": scaler, "forward_context": partial(torch.autocast, "cpu", enabled=False)}
    )
    fit_loop = type("Loop", (), {"epoch_loop": epoch_loop})
    module._trainer = type("Trainer", (), {"precision_plugin": precision, "fit_loop": fit_loop, "callbacks": []})()
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    steps = list(batches)
    module.on_train_epoch_start()
    module.training_step(iter(steps[:1]), 0)
    assert scaler.get_scale() < 2.0**127, "the gradients overflowed"
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.named_parameters())
    for _ in range(30):
        module.on_train_epoch_start()
        module.training_step(iter(steps), 0)
    assert total.completed == 151
    assert any(not torch.equal(tensor, before[name]) for name, tensor in network.named_parameters())
    assert all(torch.isfinite(tensor).all() for tensor in network.parameters())


@pytest.mark.parametrize(
    ("make", "is_fused"),
    [
        (torch.optim.SGD, True),
        (torch.optim.Adam, True),
        (torch.optim.AdamW, True),
        (torch.optim.Adagrad, True),
        (torch.optim.RMSprop, False),  # torch has none
        (partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=1e-3), True),
        (partial(torch.optim.SGD, momentum=0.9, dampening=0.1), False),
        (partial(torch.optim.SGD, fused=False), False),
        (partial(torch.optim.Adam, foreach=True), False),
    ],
)
def test_optimizers_update_all_parameters_at_once(run_fit: RunFit, make: Any, is_fused: bool) -> None:
    made = []

    def optimizer(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        made.append(make(groups, lr=0.01))
        return made[0]  # type: ignore[no-any-return]

    network = make_network()
    run_fit(network=network, optimizer=optimizer, trainer={"max_epochs": 1})
    assert all(bool(group.get("fused")) == is_fused for group in made[0].param_groups)
    by_hand = make_network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = make(by_hand.parameters(), lr=0.01)
    batches = batches_of(make_data(), Augment())
    torch.manual_seed(int(epoch_rng(3, 1, NETWORK).integers(2**63)))
    by_hand.train()
    for inputs, targets in batches:
        plain.zero_grad()
        F.cross_entropy(by_hand(*inputs), targets).backward()
        plain.step()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, by_hand.state_dict()[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("width", [2, 4, 7])
def test_a_narrow_resnet_trains_on_a_cpu(tmp_path: Path, width: int) -> None:
    """In a process of its own: channels last would corrupt its memory (torch 2.15, CPUs without AVX-512)."""
    code = (
        "from pathlib import Path; import sys, torch; sys.path.insert(0, sys.argv[2]);"
        "from tiny_training import make_data; from ferhpo.models.resnet import ResNet;"
        "from ferhpo.training.hardware.device import memory_format_of;"
        "from ferhpo.training.settings import TrainerSettings as Settings;"
        f"net = ResNet(in_channels=1, num_classes=3, image_size=24, width={width}, num_stages=2);"
        "found = [memory_format_of(Settings(channels_last=x), torch.device('cpu'), net) for x in ('auto', True)];"
        "assert found == [torch.contiguous_format] * 2; cuda = torch.device('cuda');"
        "assert memory_format_of(Settings(), cuda, net) == torch.channels_last;"
        "net = net.to(memory_format=found[0]); x = torch.randn(32, 1, 24, 24);"
        "[net(x).square().mean().backward() for _ in range(5)]"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)], check=True)
