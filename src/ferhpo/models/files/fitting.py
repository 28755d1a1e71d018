"""Build a network whose weights are in a file: nothing is allocated before it is known that they belong together."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from ferhpo.models.meta import without_weights

EXTRA_STATE = "_extra_state"  # of torch: what a module stores besides tensors


def build_fitting(make: Callable[[], nn.Module], shapes: Mapping[str, Sequence[int]], is_own: bool) -> nn.Module:
    """Return the network that `make` builds, after a comparison of its names and shapes with those of its weights.

    shapes: of the tensors in the file
    is_own: whether the network is the user's own code, which may need numbers when it is built; it is not compared then
    Raises RuntimeError, as torch does, if they do not fit, and what `make` raises.
    """
    try:
        with without_weights(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights that are not copied to this device
            planned = make()
            has_own_way = any(map(_loads_in_its_own_way, planned.modules()))
            wanted = {} if has_own_way else {key: tuple(value.shape) for key, value in _tensors_of(planned).items()}
    except Exception:
        if not is_own:
            raise
        return make()
    given = {key: tuple(shape) for key, shape in shapes.items() if not key.endswith(EXTRA_STATE)}
    if not has_own_way and (different := sorted(key for key in {*wanted, *given} if wanted.get(key) != given.get(key))):
        key = different[0]
        raise RuntimeError(f"{key} has the shape {_shown(given.get(key))}; the network has {_shown(wanted.get(key))}")
    return make()


def _tensors_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value for key, value in network.state_dict().items() if not key.endswith(EXTRA_STATE)}


def _loads_in_its_own_way(module: nn.Module) -> bool:
    """Return whether a module may accept weights of other names or shapes than it has."""
    own = type(module)._load_from_state_dict is not nn.Module._load_from_state_dict
    is_of_torch = type(module).__module__.startswith("torch.nn.")
    return (own and not is_of_torch) or bool(module._load_state_dict_pre_hooks)


def _shown(shape: tuple[int, ...] | None) -> str:
    return "no such tensor" if shape is None else str(list(shape))
