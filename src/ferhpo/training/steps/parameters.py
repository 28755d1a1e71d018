"""The parameters of a network as an optimizer gets them, and optimizers that update all of them at once."""

import itertools
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


def body_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return all parameters except those of the layer `output`. Raises ValueError if there is no such layer."""
    parameters = dict(network.named_parameters())
    body = {name: parameter for name, parameter in parameters.items() if "output" not in name.split(".")}
    if len(body) == len(parameters):
        raise ValueError(
            f"{type(network).__name__} has no layer named output, which frozen_epochs and body_lr_factor need"
        )
    return body


def parameter_groups(network: nn.Module, decay_norm_and_bias: bool, body_apart: bool = False) -> list[dict[str, Any]]:
    """Return the trainable parameters for an optimizer, in groups that differ in weight decay and learning rate.

    Without decay_norm_and_bias, parameters of one dimension have their own group. With body_apart, the parameters of
    the output layer come first, and all others are in groups marked "is_body".
    Raises ValueError if body_apart is set and the network has no layer named output.
    """
    body = body_parameters(network) if body_apart else {}
    groups = []
    for is_body, decayed in itertools.product((False, True), (True, False)):
        parameters = [
            parameter
            for name, parameter in network.named_parameters()
            if parameter.requires_grad
            and (name in body) == is_body
            and (decay_norm_and_bias or parameter.ndim > 1) == decayed
        ]
        if parameters:
            mark = {"is_body": True} if is_body else {}
            groups.append({"params": parameters, **mark, **({} if decayed else {"weight_decay": 0.0})})
    return groups


def fuse(optimizer: Optimizer) -> None:
    """Let an optimizer of torch update all parameters in one operation, unless its settings say how.

    Otherwise it takes several operations for each parameter; on a CPU too, one is several times faster.
    """
    for group in optimizer.param_groups:
        if "fused" not in group or group["fused"] is not None or group.get("foreach") or group.get("differentiable"):
            continue
        if group.get("momentum"):
            if group["dampening"]:
                continue
            # SGD refuses parameters with and without a momentum in one operation, e.g. when some were frozen before.
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        group["fused"] = True
        optimizer._step_supports_amp_scaling = True  # type: ignore[attr-defined] # as torch sets it for fused=True
