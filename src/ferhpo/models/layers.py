"""The parts that the model families share: checks of settings, activations, normalization, widths.

Note: the file of a family and this one are copied into registered models, so both import only torch, the standard
library and ferhpo.errors. Every check raises ValueError with key, value and rule.
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
MAX_LAYERS = 1000  # blocks or dense layers of a network; a million of them would take hours to build
NORMS = ("batch", "layer", "none")


def check_int(key: str, value: object, at_least: int = 1, at_most: int = 10**9) -> None:
    """Raise ValueError unless value is an integer from `at_least` to `at_most`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{key} is {value!r:.60}; it must be an integer of at least {at_least}")
    if value > at_most:
        raise ValueError(f"{key} is {value!r:.40}; it must be at most {at_most:,}")


def check_dropout(key: str, value: object) -> None:
    """Raise ValueError unless value is a probability below 1; dropout of 1 would drop every value."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{key} is {value!r}; it must be in [0, 1)")


def check_choice(key: str, value: object, choices: Sequence[object]) -> None:
    """Raise ValueError unless value is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{key} is {value!r}; it must be one of {', '.join(map(str, choices))}")


def one_each(key: str, value: Number | Sequence[Number], num: int, num_key: str) -> list[Number]:
    """Return one value for each of `num` layers: a single value is repeated, a longer list is truncated.

    Raises ValueError for a list that is too short.
    """
    if isinstance(value, int | float):
        return [value] * num
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{key} is {value!r}; it must be a number or a list with one number per layer")
    if len(value) < num:
        raise ValueError(
            f"{key} has {len(value)} values; it must have at least {num}, the value of {num_key}, or be one number"
        )
    return list(value[:num])


def num_image_features(network: nn.Module) -> int:
    """Return the number of features per image that a network takes besides its pixels (`network(images, features)`)."""
    return int(getattr(network, "num_image_features", 0))


def check_multiplier(value: object) -> None:
    """Raise ValueError unless value is a positive, finite width_multiplier."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"width_multiplier is {value!r}; it must be above 0")


def scaled(width: int, width_multiplier: float) -> int:
    """Return width times width_multiplier, rounded half up to an integer of at least 1.

    It is not rounded to a multiple of 8, which hardware prefers, so that different widths of a space stay different.
    """
    return max(1, math.floor(width * width_multiplier + 0.5))


def make_activation(name: str) -> nn.Module:
    """Return a new activation module. Raises ValueError for an unknown name."""
    check_choice("activation", name, tuple(ACTIVATIONS))
    return ACTIVATIONS[name]()


def make_norm(name: str, channels: int, *, spatial: bool) -> nn.Module | None:
    """Return a normalization of [N, channels, H, W] (spatial) or [N, channels], or None if name is "none".

    "layer" is group norm with one group, which normalizes each image over channels and pixels.
    """
    check_choice("norm", name, NORMS)
    if name == "none":
        return None
    if name == "layer":
        return nn.GroupNorm(1, channels)
    return nn.BatchNorm2d(channels) if spatial else nn.BatchNorm1d(channels)


def initialize(network: nn.Module) -> None:
    """Initialize convolution and linear weights by He's rule (He et al. 2015, eq. 10, fan in) and biases with zeros."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
