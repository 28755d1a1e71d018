"""All targets of the fuzzer, by name."""

from tests.fuzz.data_sets import DATA_SETS
from tests.fuzz.other_files import OTHER_FILES

TARGETS = {**DATA_SETS, **OTHER_FILES}
