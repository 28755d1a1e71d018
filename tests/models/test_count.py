"""Counting, against a real forward pass."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ferhpo.models.cnn import CNN
from ferhpo.models.count import count_macs, count_parameters, layer_table, training_memory_bytes
from ferhpo.models.resnet import ResNet

DATA = {"in_channels": 1, "num_classes": 7, "image_size": 48}


def networks() -> list[nn.Module]:
    return [
        CNN(**DATA, stem_channels=8, num_blocks=2, block_channels=[16, 24], dense_units=32),
        ResNet(**DATA, width=8, num_stages=2, blocks_per_stage=1, stem_stride=2),
    ]


@pytest.mark.parametrize("network", networks(), ids=["cnn", "resnet"])
def test_macs_are_half_of_what_torch_counts_as_operations(network: nn.Module) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.rand(1, 1, 48, 48))
    assert 2 * count_macs(network, (1, 48, 48)) == counter.get_total_flops()


def test_network_is_left_as_it_is() -> None:
    network = networks()[0].train()
    layer_table(network, (1, 48, 48))
    assert network.training
    assert next(network.parameters()).device.type == "cpu"
    assert not any(module._forward_hooks for module in network.modules())


def test_table_names_every_layer_in_order() -> None:
    rows = layer_table(networks()[0], (1, 48, 48))
    assert [(row.name, row.type, row.output_shape) for row in rows[:3]] == [
        ("features.stem.conv", "Conv2d", (8, 48, 48)),
        ("features.stem.act", "ReLU", (8, 48, 48)),
        ("features.block1.conv", "Conv2d", (16, 48, 48)),
    ]
    assert sum(row.num_parameters for row in rows) == count_parameters(networks()[0])


@pytest.mark.parametrize("network", networks(), ids=["cnn", "resnet"])
def test_memory_is_what_a_real_training_step_keeps(network: nn.Module) -> None:
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = [p.data_ptr() for p in network.parameters()]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network.train()(torch.rand(16, 1, 48, 48)).sum()
    assert loss.requires_grad  # it keeps the saved tensors alive, so no address is used twice
    activations = [size for address, size in kept.items() if address not in weights]
    expected = 4 * 3 * count_parameters(network) + sum(activations) + 2 * max(activations)
    assert training_memory_bytes(network, (1, 48, 48), 16, optimizer_states=1) == pytest.approx(expected, rel=0.02)


def test_memory_of_an_optimizer_state_is_that_of_the_parameters() -> None:
    network = networks()[0]
    sgd, adam = (training_memory_bytes(network, (1, 48, 48), 8, optimizer_states=states) for states in (0, 2))
    assert adam - sgd == 2 * 4 * count_parameters(network)
