"""Averages of weights against explicit sums."""

import torch
from torch import nn

from ferhpo.training.averaging import WeightAverage


def network(value: float) -> nn.Module:
    net = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.fill_(value)
    return net


def values(average: WeightAverage) -> set[float]:
    return {round(t.item(), 6) for t in average.network.state_dict().values() if t.is_floating_point()}


def test_ema_follows_at_once_and_settles_to_its_decay() -> None:
    net = network(0.0)
    average = WeightAverage(net, "ema", ema_decay=0.9, swa_epoch=1)
    expected = 0.0
    for step in range(1, 200):
        for tensor in net.state_dict().values():
            tensor.fill_(step)
        average.after_step()
        average.after_epoch(1)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert all(abs(value - expected) < 1e-3 for value in values(average))
    assert average.network[1].num_batches_tracked.item() == 199  # type: ignore[index]


def test_swa_is_the_mean_of_the_epochs_from_its_start() -> None:
    net = network(0.0)
    average = WeightAverage(net, "swa", ema_decay=0.9, swa_epoch=3)
    means = []
    for epoch in range(1, 7):
        for tensor in net.state_dict().values():
            tensor.fill_(10.0**epoch)
        average.after_step()
        average.after_epoch(epoch)
        (mean,) = values(average)
        means.append(mean)
    assert means == [10.0, 100.0, 1000.0, 5500.0, 37000.0, 277750.0]


def test_state_goes_on_and_the_network_stays_untouched() -> None:
    net = network(1.0)
    average = WeightAverage(net, "ema", ema_decay=0.5, swa_epoch=1)
    for tensor in net.state_dict().values():
        tensor.fill_(3)
    average.after_step()
    copy = WeightAverage(net, "ema", ema_decay=0.5, swa_epoch=1)
    copy.load_state_dict(average.state_dict())
    for one in (average, copy):
        one.after_step()
    assert values(average) == values(copy)
    assert net[0].weight.item() == 3  # type: ignore[index, union-attr]
    assert not any(p.requires_grad for p in average.network.parameters())
