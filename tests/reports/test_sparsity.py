"""The share of zeros, for layers of which it is known."""

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from ferhpo.reports.network import sparsity
from ferhpo.training.checkpoint import FORMAT, epoch_file
from tests.reports.made_sweeps import BARE_CHECKPOINT
from tests.reports.tiny_subject import build, make_subject

IMAGES = list(range(40, 60))


class Known(nn.Module):
    """`num_dead` of six channels are negative everywhere, so that a ReLU outputs zeros."""

    def __init__(self, num_dead: int, act: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 1)
        nn.init.zeros_(self.conv.weight)
        self.conv.bias.data = torch.ones(6)
        self.conv.bias.data[:num_dead] = -1
        self.act = act
        self.output = nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.act(self.conv(images)).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("num_dead", "act", "share"),
    [(2, nn.ReLU(), 2 / 6), (6, nn.ReLU(inplace=True), 1.0), (0, nn.ReLU(), 0.0), (3, nn.GELU(), 0.0)],
)
def test_share_of_zeros_is_that_of_the_dead_channels(
    tmp_path: Path, num_dead: int, act: nn.Module, share: float
) -> None:
    found = sparsity.sparsity(make_subject(Known(num_dead, act), tmp_path), IMAGES)
    assert found == {"act": pytest.approx(share)}


def test_nearly_zero_counts_as_zero(tmp_path: Path) -> None:
    network = Known(0, nn.LeakyReLU(0.001))
    network.conv.bias.data = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, 1.0])
    assert sparsity.sparsity(make_subject(network, tmp_path), IMAGES) == {"act": pytest.approx(2 / 6)}


def test_epochs_that_were_kept_are_compared(tmp_path: Path) -> None:
    subject = make_subject(Known(3, nn.ReLU()), tmp_path, best_epoch=5)
    trial = tmp_path / "trials" / "0000"
    trial.mkdir(parents=True)
    for epoch, num_dead in ((1, 1), (5, 3)):
        weights = Known(num_dead, nn.ReLU()).state_dict()
        content = {**BARE_CHECKPOINT, "format": FORMAT, "epoch": epoch, "network": weights}
        torch.save(content, epoch_file(trial, epoch))
    panel = sparsity.panel(subject, tmp_path, num_images=8)
    assert panel is not None
    assert "on 8 validation images" in panel.text
    assert panel.text.endswith("The mean over layers changed from 17% at epoch 1 to 50%.")
    with panel.tables[0].open() as file:
        assert list(csv.reader(file)) == [["layer", "epoch 1", "epoch 5"], ["act", "0.1667", "0.5000"]]
    assert "epoch 1" in panel.images[0].read_text()


def test_layers_come_in_the_order_of_the_forward_pass(tmp_path: Path) -> None:
    found = sparsity.sparsity(make_subject(build("cnn"), tmp_path), IMAGES)
    assert list(found) == ["stem.act", "block1.act", "block2.act", "block3.act", "dense1.act"]
    assert all(0 <= share <= 1 for share in found.values())


def test_network_without_activations_has_nothing_to_show(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 4))
    assert sparsity.panel(make_subject(network, tmp_path), tmp_path) is None
