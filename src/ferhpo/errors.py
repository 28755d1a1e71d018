"""The exceptions of ferhpo. The command line prints them without a traceback.

FerhpoError
├── ConfigError      an invalid configuration; lists every fault                          exit 2
├── DataError        a data set that cannot be read; lists every fault                    exit 2
├── SweepError       a sweep's name, folder, lock or files prevent the operation          exit 2
├── TrackingError    the MLflow store or registry is unreachable or rejects a request     exit 2
│   └── StillRunning the sweep is running and uploads its records itself
├── SigningError     a model's signature is damaged or of an unknown key; a key cannot be used    exit 2
├── StorageError     a disk that is full or not writable                                  exit 2
├── ClusterError     the Ray cluster was lost while a sweep ran; it can be resumed           exit 4
├── FailuresError    the first trials of a sweep all failed for the same reason           exit 3
└── TrialError       a trial that ends without a result
    ├── Infeasible   out of memory, or a network that cannot be built; never retried
    ├── Diverged     the loss is not finite
    └── GpuCrowded   other processes hold the GPU memory that belongs to the trial; retried
"""

from collections.abc import Sequence

_OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# These have other reasons too, so they mean a lack of memory only if there is a lack of memory.
_PERHAPS_OUT_OF_MEMORY_TEXTS = (
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "nable to find an engine to execute this computation",
)
_LITTLE_GPU_BYTES = 2e9


class FerhpoError(Exception):
    """Base class of the errors that ferhpo raises on purpose."""

    exit_status = 2


class _FaultsError(FerhpoError):
    """One or more faults, reported together."""

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
    """An invalid configuration. Each of `faults` is a sentence: key, value, rule, remedy."""


class DataError(_FaultsError):
    """A data set that cannot be read. `where` names it, e.g. "data.path is /data/fer2013.csv".

    Names of files come from elsewhere, so characters that could change a terminal are shown as Python writes them.
    """

    def __init__(self, where: str, faults: Sequence[str]) -> None:
        super().__init__(printable(where), [printable(fault) for fault in faults])


class SweepError(FerhpoError):
    """A sweep's name, folder, lock or files prevent the operation."""


class TrackingError(FerhpoError):
    """The MLflow store or registry is unreachable or rejects a request."""


class StillRunning(TrackingError):  # noqa: N818 - a state, which `sync` reports as a success
    """The sweep is running and uploads its records itself."""


class SigningError(FerhpoError):
    """A model whose signature is damaged, missing or of an unknown key; or a key that cannot be used."""


class StorageError(FerhpoError):
    """A disk that is full or not writable."""


class ClusterError(FerhpoError):
    """The Ray cluster was lost while a sweep ran. The sweep can be resumed."""

    exit_status = 4


class FailuresError(FerhpoError):
    """The first trials of a sweep all failed for the same reason, so the others would fail too."""

    exit_status = 3


class TrialError(FerhpoError):
    """A trial that ends without a result."""


class Infeasible(TrialError):  # noqa: N818 - the name of a trial state
    """Out of memory, or a network that cannot be built. The same sample would end in the same way again."""


class GpuCrowded(TrialError):  # noqa: N818 - not the trial's error
    """Other processes hold the GPU memory that belongs to the trial. It is retried, and the sampler learns nothing."""


class Diverged(TrialError):  # noqa: N818 - the name of a trial state
    """The loss is not finite."""


def printable(text: str, keep: str = "") -> str:
    """Return a text with each character that is not printable escaped, e.g. a line break as \\n; `keep` stays."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def first_line(text: object) -> str:
    """Return the first line of a reason or an exception; for an exception without a message, its type."""
    words = str(text).strip() or (type(text).__name__ if isinstance(text, BaseException) else "no reason was recorded")
    return words.splitlines()[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that a device or the host ran out of memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error)
    if any(part in text for part in _OUT_OF_MEMORY_TEXTS):
        return True
    return any(part in text for part in _PERHAPS_OUT_OF_MEMORY_TEXTS) and _has_little_gpu_memory()


def _has_little_gpu_memory() -> bool:
    import torch

    try:
        return bool(torch.cuda.mem_get_info()[0] < _LITTLE_GPU_BYTES)
    except (RuntimeError, AssertionError):  # no GPU, or one that an error has made unusable
        return False


def is_unusable_gpu(error: BaseException) -> bool:
    """Return whether a GPU can no longer be used by this process: every later call of CUDA fails too."""
    is_cuda = type(error).__name__ == "AcceleratorError" or "CUDA error:" in str(error)
    return isinstance(error, RuntimeError) and is_cuda and not is_out_of_memory(error)
