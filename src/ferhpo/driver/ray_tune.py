"""Run the trials of a sweep in Ray Tune.

Note: Tune only distributes the work. What has happened is what the ledger has recorded, never Tune's own state.
"""

import errno
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ferhpo.components.build import instantiate
from ferhpo.components.kinds import is_fifo
from ferhpo.components.own_code import used
from ferhpo.config import ComputeSettings, Objective
from ferhpo.data.dataset import FaceData
from ferhpo.disk import disk_refused
from ferhpo.driver.ledger import Ledger
from ferhpo.driver.processes.head import HeadLost, HeadWatch
from ferhpo.driver.ray_cluster import Slots, head_address
from ferhpo.driver.ray_hooks import LedgerCallback, RecordingScheduler, StudySearcher, count_every_loss
from ferhpo.driver.ray_worker import worker_trial
from ferhpo.driver.signals import StopNotice
from ferhpo.errors import ClusterError, StorageError, printable
from ferhpo.training.settings import Hardware

# isort: split
# After ray_cluster, which sets what Ray reads at import
from ray import tune
from ray.tune.experiment import Trial

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}


def run(
    ledger: Ledger,
    data: FaceData,
    compute: ComputeSettings,
    objective: Objective,
    slots: Slots,
    hardware: Hardware,
    on_lost: Callable[[ClusterError], None],
) -> bool:
    """Run the sweep to its end in the Ray that `start_ray` started. Returns False if the user interrupted it.

    hardware: what each trial may use
    on_lost: called before the process ends because it waits for a lost cluster in a call that cannot be ended
    Raises StorageError if a disk cannot be used, ClusterError if the cluster is lost; what is recorded by then is kept,
    and the sweep can be resumed.
    """
    ledger.budget.num_gpus = slots.gpus
    config = ledger.sweep.config
    section = dict(config["scheduler"])
    extra: dict[str, Any] = {}
    if not is_fifo(section):
        extra = {"metric": objective.metric, "mode": objective.mode}
    stock = instantiate(section, "scheduler", **extra)
    searcher, callback = StudySearcher(ledger), LedgerCallback(ledger)
    scratch = ledger.sweep.folder / "ray"
    _clear(scratch)
    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    count_every_loss()
    trainable = tune.with_resources(
        tune.with_parameters(
            worker_trial, data=data, hardware=hardware, timeout_seconds=compute.trial_timeout, code=used()
        ),
        {"CPU": slots.cpus, "GPU": slots.gpus},
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=RecordingScheduler(stock, ledger, int(config["seed"])),
            num_samples=-1,
            max_concurrent_trials=slots.num_slots,
            reuse_actors=not compute.isolate_trials,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch),
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )

    def end_now() -> None:
        error = _lost(ledger, watch, compute)
        with suppress(Exception):
            on_lost(error)
        print(printable(str(error), "\n"), file=sys.stderr, flush=True)
        os._exit(error.exit_status)

    watch = HeadWatch(head_address(), end_now)
    with StopNotice(compute.stop_grace_seconds, ledger.notice, _stop_tune):
        try:
            with watch:
                tuner.fit()
        except HeadLost:
            raise _lost(ledger, watch, compute) from None
        except (tune.TuneError, OSError) as error:
            raise callback.fault or _storage_error(error, scratch) or error from None
    shutil.rmtree(scratch, ignore_errors=True)
    return ledger.is_finished


def _clear(scratch: Path) -> None:
    """Remove Tune's folder in that of the sweep. Tune pickles into it, and must find nothing from elsewhere there.

    Raises StorageError if anything of it is left.
    """
    try:
        if scratch.is_symlink() or scratch.is_file():
            scratch.unlink()
        elif scratch.exists():
            shutil.rmtree(scratch)
    except OSError as error:
        raise disk_refused(scratch, error) from None


def _lost(ledger: Ledger, watch: HeadWatch, compute: ComputeSettings) -> ClusterError:
    resume = f"`{ledger.sweep.resume_command}`"
    if compute.address is None:
        return ClusterError(
            f"Ray's control server on this machine is gone ({watch.reason}), e.g. because memory ran out; resume with "
            f"{resume}"
        )
    return ClusterError(
        f"compute.address is {compute.address}: the head of the Ray cluster no longer answers at {watch.address} "
        f"({watch.reason}); restart the cluster, then resume with {resume} (compute.address=... if it has another "
        "address)"
    )


def _storage_error(error: BaseException | None, scratch: Path) -> StorageError | None:
    """Return the StorageError that Tune wrapped, or one for a disk that refused Tune's own files in `scratch`."""
    while error is not None:
        if isinstance(error, StorageError):
            return error
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            return disk_refused(Path(error.filename or scratch), error)
        error = error.__cause__ or error.__context__
    return None


def _trial_name(trial: Trial) -> str:
    return f"{trial.config['number']:04d}"


def _stop_tune() -> None:
    """Make `fit` return now: while it runs, Tune treats SIGUSR1 as a request to end."""
    if signal.getsignal(signal.SIGUSR1) in (signal.SIG_DFL, signal.SIG_IGN):  # `fit` does not run yet
        raise KeyboardInterrupt
    os.kill(os.getpid(), signal.SIGUSR1)
