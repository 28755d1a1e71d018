"""A mutated file either loads or is refused with its path. FERHPO_FUZZ=2000 sets the number of rounds per target."""

import pytest

from tests.fuzz.fuzzing import fuzz
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_spoiled_files_load_or_are_refused(name, rounds, monkeypatch, tmp_path):
    monkeypatch.setenv("FERHPO_CACHE_DIR", str(tmp_path))
    tally = fuzz(name, TARGETS[name], rounds)
    assert not tally.bugs, "\n\n".join(tally.bugs[:5])
    assert tally.counts["refused"] or TARGETS[name].must_be_same, "nothing was spoiled"
