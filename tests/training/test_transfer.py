"""Training with frozen epochs, and with a smaller learning rate of the body."""

import math
import re

import pytest
import torch
from tiny_training import make_network

from ferhpo.training.settings import TrainerSettings
from ferhpo.training.steps.parameters import parameter_groups


def moved(before, after):
    """Return the layers and the running statistics that differ."""
    return {name.rpartition(".")[0] for name in before if not torch.equal(before[name].cpu(), after[name].cpu())}


def test_frozen_epochs_move_the_output_layer_alone_then_everything(run_fit, tmp_path):
    network = make_network(conv_dropout=0.2)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    run_fit(network=network, trainer={"max_epochs": 2, "frozen_epochs": 2})
    assert moved(start, network.state_dict()) == {"classifier.output"}
    other = tmp_path / "other"
    other.mkdir()
    network = make_network(conv_dropout=0.2)
    run_fit(network=network, folder=other, trainer={"max_epochs": 3, "frozen_epochs": 2})
    assert moved(start, network.state_dict()) == {name.rpartition(".")[0] for name in start}


@pytest.mark.full
def test_a_resume_in_a_frozen_epoch_goes_on_exactly(run_fit, tmp_path):
    class StopError(Exception):
        pass

    def stop(epoch, metrics):
        if epoch == 1:
            raise StopError

    trainer = {"max_epochs": 4, "frozen_epochs": 2, "body_lr_factor": 0.1}
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    whole.mkdir()
    halved.mkdir()
    uninterrupted, resumed = make_network(), make_network()
    run_fit(folder=whole, network=uninterrupted, trainer=trainer)
    with pytest.raises(StopError):
        run_fit(folder=halved, network=make_network(), trainer=trainer, report=stop)
    run_fit(folder=halved, network=resumed, trainer=trainer)
    for name, value in uninterrupted.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_body_lr_factor_slows_all_but_the_output_layer(run_fit, tmp_path):
    network = make_network()
    start = {name: value.clone() for name, value in network.state_dict().items()}
    run_fit(network=network, trainer={"max_epochs": 1, "body_lr_factor": 1e-12}, optimizer=torch.optim.SGD)
    after = network.state_dict()
    for name in dict(network.named_parameters()):
        change = (after[name].cpu() - start[name]).abs().max().item()
        assert (change > 1e-5) == ("output" in name), name


@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
def test_groups_hold_every_parameter_once_and_the_output_layer_first(decay_norm_and_bias):
    network = make_network()
    groups = parameter_groups(network, decay_norm_and_bias, body_apart=True)
    held = [parameter for group in groups for parameter in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in network.parameters()}
    assert len(held) == len(list(network.parameters()))
    assert network.classifier.output.weight is groups[0]["params"][0]
    assert (
        [bool(group.get("is_body")) for group in groups] == [False, True]
        if decay_norm_and_bias
        else [False, False, True, True]
    )


def test_a_network_without_output_layer_is_named():
    with pytest.raises(
        ValueError, match=r"^Linear has no layer named output, which frozen_epochs and body_lr_factor need$"
    ):
        parameter_groups(torch.nn.Linear(2, 2), True, body_apart=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frozen_epochs": 21}, "frozen_epochs is 21; it must be from 0 to max_epochs, 20"),
        ({"frozen_epochs": 0.5}, "frozen_epochs is 0.5; it must be from 0 to max_epochs, 20"),
        ({"body_lr_factor": 0}, "body_lr_factor is 0; it must be above 0"),
        ({"body_lr_factor": math.inf}, "body_lr_factor is inf; it must be above 0"),
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_named(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TrainerSettings(**settings)
