"""How many rounds a fuzz test runs: 6 by default, $FERHPO_FUZZ of each target where it is set."""

import os

import pytest


@pytest.fixture
def rounds():
    return range(int(os.environ.get("FERHPO_FUZZ", "6")))
