"""torch.compile in the trials of one process (G12)."""

from pathlib import Path

import pytest
import torch

from tests.gpu.trials import DRY_RUN, FAMILIES, train

pytestmark = pytest.mark.gpu
NUM_SHAPES = 2 if DRY_RUN else 12  # torch compiles eight per line of source


def test_every_shape_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch._dynamo.testing import CompileCounter

    counts = []
    compile_ = torch.compile
    for width in range(4, 4 + NUM_SHAPES):
        counter = CompileCounter()
        monkeypatch.setattr("torch.compile", lambda network, counter=counter: compile_(network, backend=counter))
        overrides = [*FAMILIES["cnn"], f"model.block_channels={width}", "trainer.max_epochs=1", "trainer.compile=true"]
        outcome = train(tmp_path / str(width), *overrides).outcome
        assert outcome is not None
        assert outcome.state == "COMPLETE", outcome.reason
        counts.append(counter.frame_count)
    assert counts[0] >= 1
    assert set(counts) == {counts[0]}, counts


@pytest.mark.usefixtures("cuda")
def test_a_compiled_network_trains(tmp_path: Path) -> None:
    outcome = train(tmp_path / "trial", *FAMILIES["cnn"], "trainer.compile=true", "trainer.max_epochs=1").outcome
    assert outcome is not None
    assert outcome.state == "COMPLETE", outcome.reason
