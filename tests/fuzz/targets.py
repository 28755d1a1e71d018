"""All that is fuzzed, by name."""

from tests.fuzz.data_sets import DATA_SETS

TARGETS = {**DATA_SETS}
