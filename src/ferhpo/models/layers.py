"""The small parts that the model families share: checks of their settings, activations, normalisation, widths.

A family's file and this one are copied into a registered model, so both import torch and the standard library alone
(and ferhpo.errors). Every check raises ValueError with the key, the value and the rule.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

from torch import nn

Number = TypeVar("Number", int, float)

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
}
NORMS = ("batch", "layer", "none")


def check_int(key: str, value: object, at_least: int = 1) -> None:
    """Raise ValueError unless value is a whole number from at_least on, and no larger than any network could have."""
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{key} is {value!r}; it must be a whole number of {at_least} or more")
    if value > 10**9:
        raise ValueError(f"{key} is {value!r:.40}; it must be at most {10**9:,}")


def check_dropout(key: str, value: object) -> None:
    """Raise ValueError unless value is a probability below 1 (at 1 nothing would be left to learn from)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{key} is {value!r}; it must be in [0, 1)")


def check_choice(key: str, value: object, choices: Sequence[object]) -> None:
    """Raise ValueError unless value is one of choices."""
    if value not in choices:
        raise ValueError(f"{key} is {value!r}; it must be one of {', '.join(map(str, choices))}")


def one_each(key: str, value: Number | Sequence[Number], num: int, num_key: str) -> list[Number]:
    """Return one value for each of num layers: a single value is repeated, a list longer than num is cut.

    Raises ValueError for a list that is too short.
    """
    if isinstance(value, int | float):
        return [value] * num
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{key} is {value!r}; it must be a number, or a list with one number for each layer")
    if len(value) < num:
        raise ValueError(
            f"{key} has {len(value)} values; {num_key} is {num}, so it must have {num} or more, or be one number"
        )
    return list(value[:num])


def num_image_features(network: nn.Module) -> int:
    """Return how many features of each image a network takes beside its pixels (`network(images, features)`)."""
    return int(getattr(network, "num_image_features", 0))


def check_multiplier(value: object) -> None:
    """Raise ValueError unless value is a positive, finite width_multiplier."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"width_multiplier is {value!r}; it must be above 0")


def scaled(width: int, width_multiplier: float) -> int:
    """Return width times width_multiplier, rounded half up to a whole number, at least 1.

    Not rounded to a multiple of 8 as hardware likes it: widths that a space tells apart stay apart.
    """
    return max(1, math.floor(width * width_multiplier + 0.5))


def make_activation(name: str) -> nn.Module:
    """Return a new activation module. Raises ValueError for an unknown name."""
    check_choice("activation", name, tuple(ACTIVATIONS))
    return ACTIVATIONS[name]()


def make_norm(name: str, channels: int, *, spatial: bool) -> nn.Module | None:
    """Return a normalisation of [N, channels, H, W] (spatial) or [N, channels]; None where name is "none".

    "layer" is group norm with one group, which normalises each image over channels and pixels.
    """
    check_choice("norm", name, NORMS)
    if name == "none":
        return None
    if name == "layer":
        return nn.GroupNorm(1, channels)
    return nn.BatchNorm2d(channels) if spatial else nn.BatchNorm1d(channels)


def initialise(network: nn.Module) -> None:
    """Draw convolution and linear weights by He's rule (He et al. 2015, eq. 10, fan in); biases start at zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
