"""The settings of conf/trainer, for the training of a network apart from optimizer, schedule and augmentation.

Note: this module imports neither torch nor Lightning, so that configurations are checked fast. "auto" is resolved in
hardware/device.py, when the device is known.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

PRETEND_GPU = "FERHPO_PRETEND_GPU"  # "1": trials that get a GPU train on the CPU; for tests without GPUs
CHOICES: dict[str, tuple[object, ...]] = {
    "precision": ("auto", "32", "bf16", "16"),
    "channels_last": ("auto", True, False),
    "cuda_graph": ("auto", True, False),
    "weight_averaging": (None, "ema", "swa"),
    "class_weights": ("none", "balanced"),
    "sampling": ("shuffle", "balanced"),
    "normalise": ("dataset", "image", "none"),
    "compile": (True, False),
    "deterministic": (True, False),
    "decay_norm_and_bias": (True, False),
}


@dataclass(frozen=True)
class Hardware:
    """What a trial may use.

    cpu_precision: of `precision: auto` on a CPU; None if it is measured where the trial runs
    num_gpus: GPUs, or the share of one, that were assigned to the trial; None: one if there is one
    """

    num_threads: int
    cpu_precision: str | None = None
    num_gpus: float | None = None


@dataclass(frozen=True)
class TrainerSettings:
    """The settings of conf/trainer/default.yaml, which explains them. Raises ValueError for a setting out of range."""

    max_epochs: int = 20
    batch_size: int = 128
    eval_batch_size: int = 512
    label_smoothing: float = 0.0
    class_weights: str = "none"
    sampling: str = "shuffle"
    normalise: str = "dataset"
    precision: str = "auto"
    channels_last: str | bool = "auto"
    compile: bool = False
    cuda_graph: str | bool = "auto"
    gradient_clip_norm: float | None = None
    decay_norm_and_bias: bool = True
    weight_averaging: str | None = None
    ema_decay: float = 0.999
    swa_start: float = 0.75
    keep_epochs: Sequence[int] = ()
    early_stopping_patience: int | None = None
    frozen_epochs: int = 0
    body_lr_factor: float = 1.0
    deterministic: bool = True
    num_threads: int | None = None

    def __post_init__(self) -> None:
        # YAML parses 32 and 16 as numbers.
        object.__setattr__(self, "precision", str(self.precision))
        for key, choices in CHOICES.items():
            value = getattr(self, key)
            if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in choices):
                names = ", ".join("null" if c is None else str(c).lower() for c in choices)
                raise ValueError(f"{key} is {value!r}; it must be one of {names}")
        if self.cuda_graph is True and (self.compile or self.precision == "16"):
            other = "compile is true" if self.compile else "precision is 16"
            raise ValueError(f"cuda_graph is true, but {other}; it must be auto or false then")
        for key in ("max_epochs", "batch_size", "eval_batch_size", "early_stopping_patience", "num_threads"):
            value = getattr(self, key)
            if value is None and key in ("early_stopping_patience", "num_threads"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{key} is {value!r}; it must be an integer of at least 1")
        self._check_keep_epochs()
        frozen = self.frozen_epochs
        if isinstance(frozen, bool) or not isinstance(frozen, int) or not 0 <= frozen <= self.max_epochs:
            raise ValueError(f"frozen_epochs is {frozen!r}; it must be from 0 to max_epochs, {self.max_epochs}")
        if not _is_number(self.body_lr_factor) or not 0 < self.body_lr_factor < math.inf:
            raise ValueError(f"body_lr_factor is {self.body_lr_factor!r}; it must be above 0")
        for key in ("label_smoothing", "ema_decay", "swa_start"):
            value = getattr(self, key)
            if not _is_number(value) or not 0 <= value < 1:
                raise ValueError(f"{key} is {value!r}; it must be in [0, 1)")
        clip = self.gradient_clip_norm
        if clip is not None and (not _is_number(clip) or not 0 < clip < math.inf):
            raise ValueError(f"gradient_clip_norm is {clip!r}; it must be above 0, or null for no clipping")

    def _check_keep_epochs(self) -> None:
        kept = self.keep_epochs
        if isinstance(kept, str) or not isinstance(kept, Sequence):
            raise ValueError(f"keep_epochs is {kept!r}; it must be a list of epochs, e.g. [1, 5, 20]")
        wrong = [
            epoch
            for epoch in kept
            if isinstance(epoch, bool) or not isinstance(epoch, int) or not 1 <= epoch <= self.max_epochs
        ]
        if wrong:
            raise ValueError(
                f"keep_epochs has {', '.join(map(repr, wrong))}; each must be an integer from 1 to max_epochs, "
                f"{self.max_epochs}"
            )
        object.__setattr__(self, "keep_epochs", tuple(kept))  # YAML has lists only


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def make_loss(
    loss: Callable[..., "nn.Module"], settings: TrainerSettings, class_weights: "Tensor | None"
) -> "nn.Module":
    """Return the loss, with trainer.label_smoothing and the class weights if it takes them.

    loss: a class of losses, or a functools.partial of one; its argument `weight` gets the class weights, float [C], and
        `label_smoothing` the setting, unless the partial has them
    Raises ValueError if a setting is in use that the loss does not take, and for a loss with parameters, which no
    optimizer would train.
    """
    from ferhpo.models.meta import without_weights

    takes = set(inspect.signature(loss).parameters) - set(getattr(loss, "keywords", {}))
    name = getattr(getattr(loss, "func", loss), "__name__", str(loss))
    offered = {
        "weight": ("class_weights", settings.class_weights, "none", class_weights),
        "label_smoothing": ("label_smoothing", settings.label_smoothing, 0, settings.label_smoothing),
    }
    for argument, (key, value, off, _) in offered.items():
        if value != off and argument not in takes:
            raise ValueError(f"{name} takes no {argument}, but trainer.{key} is {value}; set it to {off}")
    make = partial(loss, **{argument: given for argument, (_, _, _, given) in offered.items() if argument in takes})
    # A loss of torch is built without numbers first: one with parameters may be of any size.
    is_of_torch = getattr(loss, "func", loss).__module__.startswith("torch.")
    with without_weights() if is_of_torch else nullcontext():
        made = make()
    if any(True for _ in made.parameters()):
        raise ValueError(f"{name} has parameters, which ferhpo does not train; make them arguments")
    return make() if is_of_torch else made
