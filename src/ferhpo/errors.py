"""The exceptions of ferhpo. A user's mistake ends in one of these, printed without a traceback.

FerhpoError
├── ConfigError      a configuration that cannot run; holds every fault found            exit 2
├── DataError        a data set that cannot be read; holds every fault found             exit 2
├── SweepError       a sweep's name, folder, lock or record stands in the way            exit 2
├── TrackingError    the MLflow store or registry cannot be reached, or refuses          exit 2
│   └── StillRunning a sweep that runs holds its records, and ships them itself
├── StorageError     a disk that is full or cannot be written                            exit 2
├── FailuresError    the first trials of a sweep all failed for one reason               exit 3
└── TrialError       how a trial ends without a result
    ├── Infeasible   out of memory, or a network that cannot be built; never retried
    └── Diverged     a loss that is not finite
"""

from collections.abc import Sequence

_OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


class FerhpoError(Exception):
    """Base of every error that ferhpo raises on purpose."""

    exit_status = 2


class _FaultsError(FerhpoError):
    """Several faults found in one place, told together."""

    def __init__(self, where: str, faults: Sequence[str]) -> None:
        self.where = where
        self.faults = tuple(faults)
        if len(self.faults) == 1:
            text = f"{where}: {self.faults[0]}"
        else:
            text = "\n  ".join([f"{where}: {len(self.faults)} faults", *self.faults])
        super().__init__(text)

    def __reduce__(self) -> tuple[type, tuple[str, tuple[str, ...]]]:
        return type(self), (self.where, self.faults)


class ConfigError(_FaultsError):
    """A configuration that cannot run. `faults` holds one sentence for each: key, value, rule, remedy."""


class DataError(_FaultsError):
    """A data set that cannot be read. `where` is like "data.path is /data/fer2013.csv"."""


class SweepError(FerhpoError):
    """A sweep's name, folder, lock or record stands in the way."""


class TrackingError(FerhpoError):
    """The MLflow store or registry cannot be reached, or refuses."""


class StillRunning(TrackingError):  # noqa: N818 - a state, which `sync` tells as good news
    """A sweep that runs holds its records, and ships them itself."""


class StorageError(FerhpoError):
    """A disk that is full or cannot be written."""


class FailuresError(FerhpoError):
    """The first trials of a sweep all failed for one reason, and the others would."""

    exit_status = 3


class TrialError(FerhpoError):
    """How a trial ends without a result."""


class Infeasible(TrialError):  # noqa: N818 - an outcome's name
    """Out of memory, or a network that cannot be built. The same sample would end the same way."""


class Diverged(TrialError):  # noqa: N818 - an outcome's name
    """A loss that is not finite."""


def first_line(text: object) -> str:
    """The first line of a reason or an exception; of an exception without words its type."""
    words = str(text).strip() or (type(text).__name__ if isinstance(text, BaseException) else "no reason was recorded")
    return words.splitlines()[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that a device or the host had no memory left."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)
