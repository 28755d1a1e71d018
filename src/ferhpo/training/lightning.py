"""What Lightning's Trainer does that a training of ferhpo does not want: messages, signal handlers, other errors."""

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Iterator

import pytorch_lightning as pl
from pytorch_lightning.trainer.connectors import callback_connector

# Each new Trainer searches all installed packages for callbacks to add. A trial has those that its configuration names.
callback_connector._load_external_callbacks = lambda group: []  # type: ignore[attr-defined]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's messages about its setup, but not its warnings about training."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
            warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")  # Lightning's own code
            yield
    finally:
        logger.setLevel(level)


class OwnSigterm(pl.Callback):
    """Keep the handler of SIGTERM; Lightning's would end training at the next batch and lose the epoch."""

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.handler)


class _FirstError(pl.Callback):
    def __init__(self) -> None:
        self.error: BaseException | None = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.error = self.error or exception


@contextlib.contextmanager
def first_error(trainer: pl.Trainer) -> Iterator[None]:
    """Raise the error that ended the training, not one that follows from it.

    On a GPU that an error has made unusable, Lightning's cleanup fails too. On Ctrl-C, Lightning raises SystemExit and
    then ignores SIGINT permanently.
    """
    first = _FirstError()
    trainer.callbacks.append(first)  # type: ignore[attr-defined]
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except BaseException as error:
        if first.error is None or first.error is error:
            raise
        raise first.error from None
    finally:
        if in_main:
            signal.signal(signal.SIGINT, handler)
