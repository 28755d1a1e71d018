"""The gradients of a step from a recording: forward, loss and backward once as Python code, then replayed.

The optimizer is not recorded, because its learning rate is a number in Python that changes at each step.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from ferhpo.training.settings import TrainerSettings
from ferhpo.training.steps.recorders import (
    CudaRecorder,
    EagerRecorder,
    NotRecordable,
    Outputs,
    Recorder,
    gradients_of,
)
from ferhpo.training.steps.snapshot import Snapshot, fingerprint

log = logging.getLogger("ferhpo.sweep")

# Sets the gradients of the network for a batch, inputs and targets; returns the loss and the logits.
Compute = Callable[[tuple[Tensor, ...], Tensor], tuple[Tensor, Tensor]]
_TOLERANCE = 0.01  # of the largest value of a result
_MOST_RECORDINGS = 3  # in an epoch; each takes about as long as a hundred steps


def why_not(settings: TrainerSettings, precision: str, device: torch.device, is_watched: bool) -> str:
    """Return why the steps of a training are not replayed; "" if they are.

    is_watched: whether a callback is called within each step
    """
    if settings.cuda_graph is False:
        return "trainer.cuda_graph is false"
    if device.type != "cuda" and settings.cuda_graph == "auto":
        return "the device is a CPU"
    if settings.compile:
        return "trainer.compile is true"
    if precision == "16":
        return "trainer.precision is 16"
    return "a callback watches each step" if is_watched else ""


def recorder_for(network: nn.Module, device: torch.device) -> Recorder:
    """Return what records the steps of a network on its device: a CUDA graph, or the stand-in on a CPU."""
    return CudaRecorder(device) if device.type == "cuda" else EagerRecorder(network, device)


class StepGraph:
    """Compute the gradients of steps by replaying a recording of one.

    It is recorded at the first step, and again when something has changed that it depends on: the layout of the batch
    at any step; at the start of an epoch the network (e.g. which parameters are trained) and the loss. A recording has
    no effect on the training. If it is impossible, or if a replay gives another result than the step itself, every step
    is computed one operation after the other.

    tell: called with "yes", or "no: " and the reason, whenever this changes
    Note: the same tensors hold the results and the gradients of every step; copy what is needed for longer.
    """

    def __init__(
        self, compute: Compute, network: nn.Module, loss: nn.Module, recorder: Recorder, tell: Callable[[str], None]
    ) -> None:
        self._compute = compute
        self._network = network
        self._modules: Sequence[nn.Module] = (network, loss)
        self._recorder = recorder
        self._tell = tell
        self._told = ""
        self._is_refused = False
        self._is_checked = False
        self._num_recordings = 0  # in this epoch
        self._batch: list[Tensor] = []
        self._layouts: list[object] = []
        self._outputs: Outputs = ()
        self._gradients: list[tuple[nn.Parameter, Tensor]] = []
        self._fingerprint: dict[str, object] = {}

    def begin_epoch(self) -> None:
        self._is_checked = False
        self._num_recordings = 0

    def __call__(self, inputs: tuple[Tensor, ...], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Set the gradients for a batch; return its loss and its logits. Raises e.g. torch.OutOfMemoryError."""
        batch = (*inputs, targets)
        if not self._is_refused and not self._is_valid_for(batch):
            self._record(batch)
        if self._is_refused:
            return self._compute(inputs, targets)
        for place, values in zip(self._batch, batch, strict=True):
            place.copy_(values)
        self._recorder.replay()
        loss, logits = self._outputs
        return loss, logits

    def release(self) -> None:
        """Free the memory of the recording. The network has no gradients afterwards."""
        self._batch, self._layouts, self._outputs, self._gradients = [], [], (), []
        self._network.zero_grad(set_to_none=True)
        with suppress(RuntimeError):  # a GPU that an error has made unusable; that error counts
            self._recorder.release()

    def _is_valid_for(self, batch: tuple[Tensor, ...]) -> bool:
        if [_layout(values) for values in batch] != self._layouts:
            return False
        if not self._is_checked:
            self._is_checked = True
            for parameter, gradient in self._gradients:
                parameter.grad = gradient
            return fingerprint(self._modules) == self._fingerprint
        return True

    def _record(self, batch: tuple[Tensor, ...]) -> None:
        self.release()
        self._num_recordings += 1
        try:
            if self._num_recordings > _MOST_RECORDINGS:
                raise NotRecordable("the batches of an epoch have different shapes")
            self._batch = [values.clone() for values in batch]
            before = Snapshot(self._modules, self._recorder.device)
            try:
                self._recorder.warm_up(self._run)
                if changed := before.changed_by_python():
                    raise NotRecordable(changed)
                before.restore()
                expected = [values.clone() for values in self._results(self._run())]
                self._network.zero_grad(set_to_none=True)
                before.restore()
                self._outputs = self._recorder.record(self._run)
                before.restore()
                self._recorder.replay()
                if not _agree(self._results(self._outputs), expected):
                    raise NotRecordable("a repeated step gives another result")
            finally:
                before.restore()
        except NotRecordable as error:
            self.release()
            self._is_refused = True
            log.warning("the steps cannot be a CUDA graph (%s); each operation is started on its own", error)
            self._say(f"no: {error}")
            return
        self._gradients = gradients_of(self._network)
        self._layouts = [_layout(values) for values in batch]
        self._fingerprint, self._is_checked = before.fingerprint, True
        self._say(self._recorder.fact)

    def _run(self) -> Outputs:
        return self._compute(tuple(self._batch[:-1]), self._batch[-1])

    def _results(self, outputs: Outputs) -> list[Tensor]:
        return [*outputs, *(gradient for _, gradient in gradients_of(self._network))]

    def _say(self, fact: str) -> None:
        if fact != self._told:
            self._told = fact
            self._tell(fact)


def _agree(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Return whether results are equal but for the order in which an operation adds up."""
    return len(found) == len(expected) and all(
        torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE * float(other.abs().max()), equal_nan=True)
        for one, other in zip(found, expected, strict=True)
    )


def _layout(values: Tensor) -> object:
    return values.shape, values.stride(), values.dtype
