"""Fixtures that many tests share: a tiny sweep on drawn faces, in a temporary folder."""

import os

import pytest

# One thread a process: tests share two cores with Ray's workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY = [
    "data.num_train=140",
    "data.num_val=70",
    "data.num_test=14",
    "model.width_multiplier=0.02",
    "trainer.batch_size=32",
    "trainer.max_epochs=3",
    "tracking.report=false",
]


@pytest.fixture
def tiny(tmp_path):
    """Overrides that make any sweep on drawn faces take seconds, with everything it writes under tmp_path."""
    return [*TINY, f"output_dir={tmp_path / 'mlruns'}"]
