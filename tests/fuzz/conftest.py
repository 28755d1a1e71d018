"""The number of rounds of a fuzz test: 6 by default, or $FERHPO_FUZZ per target."""

import os

import pytest


@pytest.fixture
def rounds():
    return range(int(os.environ.get("FERHPO_FUZZ", "6")))
