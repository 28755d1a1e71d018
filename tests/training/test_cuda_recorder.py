"""The calls that record a CUDA graph, with a fake of torch.cuda that runs what is recorded on the CPU."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from test_fit_resume import assert_equal
from test_step_graph import seeded
from tiny_training import make_network
from torch import nn

from ferhpo.training.steps.recorders import CudaRecorder, EagerRecorder

RunFit = Callable[..., Any]
CUDA, GB = torch.device("cuda", 0), 1e9
SYNCS = "CUDA error: operation not permitted when stream is capturing\nCompile with TORCH_USE_CUDA_DSA ..."


class FakeCuda:
    """What is called, in order, and what the next recording meets: an error within, and one when it ends."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.eager: EagerRecorder | None = None
        self.error: Exception | None = None
        self.error_at_end: Exception | None = None
        self.peak, self.free, self.fraction = 2 * GB, 70 * GB, 1.0

    def called(self, name: str, *_: Any, **__: Any) -> None:
        self.calls.append(name)

    def stream(self, *_: Any) -> Any:
        fake = self

        class Stream:
            def wait_stream(self, other: Any) -> None:
                fake.calls.append("wait")

        return Stream()

    @contextlib.contextmanager
    def within(self, name: str, *_: Any, **__: Any) -> Iterator[None]:
        self.calls.append(name)
        try:
            yield
        finally:
            if name == "record" and self.error_at_end is not None:
                raise self.error_at_end

    def graph(self) -> Any:
        fake = self

        class Graph:
            def register_generator_state(self, generator: Any) -> None:
                fake.calls.append("register")

            def replay(self) -> None:
                assert fake.eager is not None
                fake.calls.append("replay")
                fake.eager.replay()

            def reset(self) -> None:
                fake.calls.append("reset")

        return Graph()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """Let fit on the CPU record its steps by CudaRecorder."""
    fake = FakeCuda()
    generator = type(
        "Generator",
        (),
        {"clone_state": lambda self: "cloned", "graphsafe_set_state": lambda self, state: fake.called(f"set {state}")},
    )
    for name, function in {
        "Stream": fake.stream,
        "current_stream": fake.stream,
        "stream": partial(fake.within, "warm up"),
        "graph": partial(fake.within, "record"),
        "CUDAGraph": fake.graph,
        "default_generators": (generator(),),
        "synchronize": partial(fake.called, "synchronize"),
        "set_stream": partial(fake.called, "set stream"),
        "get_rng_state": lambda device: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device: fake.called("random state"),
        "max_memory_allocated": lambda device: fake.peak,
        "memory_allocated": lambda device: GB,
        "memory_reserved": lambda device: 3 * GB,
        "mem_get_info": lambda device: (fake.free, 80 * GB),
        "get_per_process_memory_fraction": lambda device: fake.fraction,
    }.items():
        monkeypatch.setattr(f"torch.cuda.{name}", function)
    record = CudaRecorder.record

    def recorded(self: CudaRecorder, run: Any) -> Any:
        def run_in_recording() -> Any:
            assert fake.eager is not None
            outputs = fake.eager.record(run)
            if fake.error is not None:
                raise fake.error
            return outputs

        return record(self, run_in_recording)

    def recorder_for(network: nn.Module, device: torch.device) -> CudaRecorder:
        fake.eager = EagerRecorder(network, device)
        return CudaRecorder(CUDA)

    monkeypatch.setattr(CudaRecorder, "record", recorded)
    monkeypatch.setattr("ferhpo.training.fit.recorder_for", recorder_for)
    return fake


def trained(
    run_fit: RunFit, folder: Path, recorded: bool, frozen_epochs: int = 0, **network: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    folder.mkdir()
    made = seeded(partial(make_network, **{"conv_dropout": 0.0, "dense_dropout": 0.0, **network}))
    facts: dict[str, str] = {}
    trainer = {"cuda_graph": recorded, "gradient_clip_norm": 1.0, "frozen_epochs": frozen_epochs}
    run_fit(network=made, folder=folder, trainer=trainer, tell=facts.update)
    return made.state_dict(), facts


def test_the_calls_of_a_recording(fake: FakeCuda, run_fit: RunFit, tmp_path: Path) -> None:
    found, facts = trained(run_fit, tmp_path / "recorded", recorded=True)
    assert facts == {"cuda_graph": "yes"}
    before = ["wait", "warm up", "wait", "synchronize"]
    compared = ["random state", "random state", "register", "record", "random state", "replay", "random state"]
    assert fake.calls == [*before, *compared, *["replay"] * 10, "reset"]
    assert_equal(found, trained(run_fit, tmp_path / "single", recorded=False)[0])


def test_a_graph_is_released_before_the_next_is_recorded(fake: FakeCuda, run_fit: RunFit, tmp_path: Path) -> None:
    found, _ = trained(run_fit, tmp_path / "recorded", recorded=True, frozen_epochs=1)
    recorded = [call for call in fake.calls if call in ("record", "reset", "replay")]
    replays = ["replay"] * 6  # the first one is compared with the step itself
    assert recorded == ["record", *replays, "reset", "record", *replays, "reset"]
    assert_equal(found, trained(run_fit, tmp_path / "single", recorded=False, frozen_epochs=1)[0])


@pytest.mark.parametrize(
    ("error", "at_end", "fact"),
    [
        (RuntimeError(SYNCS), RuntimeError("operation failed due to a previous error"), f"no: {SYNCS.splitlines()[0]}"),
        (None, RuntimeError("the graph is invalid"), "no: the graph is invalid"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), None, "no: out of memory"),
        (TypeError("mine"), RuntimeError("operation failed due to a previous error"), "no: mine"),
    ],
)
def test_a_recording_that_fails_leaves_training_as_it_was(
    fake: FakeCuda, run_fit: RunFit, tmp_path: Path, error: Exception | None, at_end: Exception | None, fact: str
) -> None:
    fake.error, fake.error_at_end = error, at_end
    found, facts = trained(run_fit, tmp_path / "recorded", recorded=True)
    assert facts == {"cuda_graph": fact}
    assert fake.calls[-5:] == ["record", "set stream", "reset", "set cloned", "random state"]
    assert_equal(found, trained(run_fit, tmp_path / "single", recorded=False)[0])


@pytest.mark.parametrize(
    ("free", "fraction", "fact"),
    [
        (0.0, 1.0, "yes"),  # of what torch holds, 2 GB are free
        (-0.5 * GB, 1.0, "no: it may take 2.0 GB more memory; 1.5 GB are left"),
        (70 * GB, 0.03, "no: it may take 2.0 GB more memory; 1.4 GB are left"),
    ],
)
def test_a_graph_needs_memory_besides_that_of_the_training(
    fake: FakeCuda, run_fit: RunFit, tmp_path: Path, free: float, fraction: float, fact: str
) -> None:
    fake.free, fake.fraction = free, fraction
    assert trained(run_fit, tmp_path / "recorded", recorded=True)[1] == {"cuda_graph": fact}


def test_random_numbers_of_the_cpu_are_noticed(fake: FakeCuda, run_fit: RunFit, tmp_path: Path) -> None:
    found, facts = trained(run_fit, tmp_path / "recorded", recorded=True, dense_dropout=0.2)
    assert facts == {"cuda_graph": "no: each step draws random numbers on the CPU"}
    assert "record" not in fake.calls
    assert_equal(found, trained(run_fit, tmp_path / "single", recorded=False, dense_dropout=0.2)[0])


def test_a_gpu_gets_a_graph(fake: FakeCuda) -> None:
    from ferhpo.training.steps.graph import recorder_for

    network = make_network()
    assert isinstance(recorder_for(network, CUDA), CudaRecorder)
    assert isinstance(recorder_for(network, torch.device("cpu")), EagerRecorder)


def test_too_little_memory_in_a_warm_up_is_an_error_of_the_step(
    fake: FakeCuda, run_fit: RunFit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("torch.cuda.synchronize", fail)
    with pytest.raises(torch.OutOfMemoryError):
        trained(run_fit, tmp_path / "recorded", recorded=True)
