"""Run trials in a Ray worker, one after the other in a warm process.

Note: the thread of a stopped trial remains inside its last `report` until the next trial resets the worker; only then
does it receive SystemExit.
"""

import os
from pathlib import Path
from typing import Any

from ferhpo.components.own_code import OwnCode, install
from ferhpo.config.folds import EPOCH, report_unit
from ferhpo.data.dataset import FaceData
from ferhpo.driver import ray_cluster  # noqa: F401
from ferhpo.driver.messages import KEY, Alive, Crowded, DiskRefused, Ended, Epoch, Fold, Message
from ferhpo.driver.processes.watchdog import Watch
from ferhpo.errors import GpuCrowded, StorageError
from ferhpo.states import TrialState
from ferhpo.training.settings import Hardware

# isort: split
# After ray_cluster, which sets what Ray reads at import
from ray import tune


def worker_trial(
    config: dict[str, Any], data: FaceData, hardware: Hardware, timeout_seconds: float | None, code: OwnCode
) -> None:
    """Run one trial; Ray calls this again in the same process for the next one."""
    facts: dict[str, Any] = {}
    watch = Watch(Path(config["folder"]), timeout_seconds)
    watch.start()
    if hardware.num_gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch sees them: each process that uses one takes half a GB
    install(code)

    from ferhpo.trial.cross_validation import runner_of
    from ferhpo.trial.run import failure, release_memory

    def send(message: Message) -> None:
        watch.stop()  # the driver may take long to respond
        tune.report({KEY: message})
        watch.start()

    def report(number: int, metrics: dict[str, float], fold_epochs: list[dict[str, float]] | None = None) -> None:
        send(Epoch(facts, number, metrics) if fold_epochs is None else Fold(facts, number, metrics, fold_epochs))

    is_folded = report_unit(config["config"]) != EPOCH
    fold_options = {"on_epoch": lambda num_epochs: send(Alive(facts, num_epochs))} if is_folded else {}
    try:
        outcome = runner_of(config["config"])(
            config["config"],
            data,
            Path(config["folder"]),
            config["seed"],
            report,
            on_start=facts.update,
            hardware=hardware,
            **fold_options,
        )
    except StorageError as error:
        # Not the trial's fault: the driver ends the sweep, and the trial can be resumed.
        send(DiskRefused(facts, str(error)))
        raise
    except GpuCrowded as error:
        send(Crowded(facts, str(error)))
        raise
    except Exception as error:
        # The trial's boundary: report it, then let the exception end this worker, whose state is unknown now.
        send(Ended(facts, TrialState.FAILED, failure(error)))
        raise
    finally:
        watch.close()
        release_memory()
    tune.report({KEY: Ended(facts, outcome.state, outcome.reason)})
