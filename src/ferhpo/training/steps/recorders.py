"""How the operations of a function are recorded and repeated: as a CUDA graph, or by a stand-in on a CPU.

Note: a recording repeats the same operations on the same memory, so a step costs one launch instead of hundreds.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from ferhpo.errors import first_line, is_out_of_memory
from ferhpo.training.hardware.cuda import memory_left

_WARM_UPS = 3  # libraries choose their kernels and allocate their workspaces meanwhile, which a recording must not
GIGABYTE = 1e9

Outputs = tuple[Tensor, ...]


def gradients_of(network: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    """Return the parameters that have gradients, with these."""
    return [(parameter, parameter.grad) for parameter in network.parameters() if parameter.grad is not None]


class NotRecordable(Exception):  # noqa: N818 - a property of the network
    """The operations cannot be recorded; the message is the reason."""


class Recorder(Protocol):
    """Record one function at a time, which sets gradients and returns tensors.

    device: of these tensors
    fact: what is known of a trial that uses it
    """

    device: torch.device
    fact: str

    def warm_up(self, run: Callable[[], Outputs]) -> None:
        """Run the function a few times. Raises what it raises, e.g. torch.OutOfMemoryError."""

    def record(self, run: Callable[[], Outputs]) -> Outputs:
        """Record the function; return the tensors that each replay fills. Raises NotRecordable."""

    def replay(self) -> None:
        """Repeat the function, into the same outputs and the same gradients."""

    def release(self) -> None:
        """Forget what is recorded; its memory is free once nobody holds its outputs and gradients."""


class CudaRecorder:
    """Record a CUDA graph, whose outputs and gradients are in a pool of memory of its own.

    Dropout draws the same numbers as without a graph: a replay takes the seed and the position of torch's generator.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.fact = "yes"
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None

    def warm_up(self, run: Callable[[], Outputs]) -> None:
        main = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(main)
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                run()
        main.wait_stream(self._stream)
        torch.cuda.synchronize(self.device)  # an error of these steps is theirs, not one of the recording

    def record(self, run: Callable[[], Outputs]) -> Outputs:
        # A graph keeps the memory of a step for the whole training, besides what validation and optimizer take.
        needed, left = torch.cuda.max_memory_allocated(self.device), memory_left(self.device)
        if needed > left:
            raise NotRecordable(
                f"it may take {needed / GIGABYTE:.1f} GB more memory; {left / GIGABYTE:.1f} GB are left"
            )
        main = torch.cuda.current_stream(self.device)
        generator = torch.cuda.default_generators[self.device.index or 0]
        unregistered = generator.clone_state()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        try:
            # Other threads of this process may use CUDA meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                outputs = run()
        except Exception as error:
            # Earlier versions of torch leave the stream, and a generator that expects to be recorded.
            torch.cuda.set_stream(main)
            graph.reset()
            generator.graphsafe_set_state(unregistered)
            raise NotRecordable(_reason(error)) from None
        self._graph = graph
        return outputs

    def replay(self) -> None:
        assert self._graph is not None
        self._graph.replay()

    def release(self) -> None:
        if self._graph is not None:
            self._graph.reset()
            self._graph = None


def _reason(error: BaseException) -> str:
    """Return why recording failed. After an error, the end of a recording raises another one."""
    first = error.__context__ or error
    return "out of memory" if is_out_of_memory(first) else first_line(first)


class EagerRecorder:
    """Run the function again at each replay, and copy its results to where a graph would leave them.

    It records what any device can run, so that all of ferhpo but the graph itself is tested on a CPU.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.device = device
        self.fact = "no: the device has no CUDA graphs; recorded steps run again instead"
        self._network = network
        self._run: Callable[[], Outputs] | None = None
        self._outputs: Outputs = ()
        self._gradients: list[tuple[nn.Parameter, Tensor]] = []

    def warm_up(self, run: Callable[[], Outputs]) -> None:
        for _ in range(_WARM_UPS):
            run()

    def record(self, run: Callable[[], Outputs]) -> Outputs:
        self._run, self._outputs, self._gradients = run, run(), gradients_of(self._network)
        return self._outputs

    @torch.no_grad()
    def replay(self) -> None:
        assert self._run is not None
        with torch.enable_grad():
            outputs = self._run()
        for place, value in zip(self._outputs, outputs, strict=True):
            place.copy_(value)
        for (parameter, value), (_, place) in zip(gradients_of(self._network), self._gradients, strict=True):
            parameter.grad = place.copy_(value)

    def release(self) -> None:
        self._run, self._outputs, self._gradients = None, (), []
