"""Run trials in a Ray worker, one after the other in a warm process.

Note: the thread of a stopped trial remains inside its last `report` until the next trial resets the worker; only then
does it receive SystemExit.
"""

from pathlib import Path
from typing import Any

from ferhpo.config.folds import EPOCH, report_unit
from ferhpo.data.dataset import FaceData
from ferhpo.driver import ray_cluster  # noqa: F401
from ferhpo.driver.watchdog import Watch
from ferhpo.errors import StorageError

# isort: split
# After ray_cluster, which sets what Ray reads while it is imported
from ray import tune

DISK_REFUSED = "DISK_REFUSED"  # a worker's word for a StorageError; no outcome of the trial


def worker_trial(
    config: dict[str, Any], data: FaceData, num_threads: int | None, timeout_seconds: float | None
) -> None:
    """What a worker runs: one trial after the other in a warm process."""
    facts: dict[str, Any] = {}
    unit = report_unit(config["config"])
    watch = Watch(Path(config["folder"]), timeout_seconds)
    watch.start()

    from ferhpo.trial.cross_validation import runner_of
    from ferhpo.trial.run import failure, release_memory

    def tell(result: dict[str, Any]) -> None:
        watch.stop()  # it may wait long for the driver
        tune.report({**result, "facts": facts})
        watch.start()

    def report(count: int, metrics: dict[str, float], fold_epochs: list[dict[str, float]] | None = None) -> None:
        tell({**metrics, unit: count, "fold_epochs": fold_epochs})

    of_folds = {} if unit == EPOCH else {"on_epoch": lambda count: tell({"epochs_done": count})}
    try:
        outcome = runner_of(config["config"])(
            config["config"],
            data,
            Path(config["folder"]),
            config["seed"],
            report,
            on_start=facts.update,
            num_threads=num_threads,
            **of_folds,
        )
    except StorageError as error:
        # Not the trial's fault: the driver ends the sweep, and a resume goes on with the trial.
        tell({"outcome": DISK_REFUSED, "reason": str(error)})
        raise
    except Exception as error:
        # The trial's boundary: tell the driver, then let the exception end this worker, whose state nobody knows now.
        tell({"outcome": "FAILED", "reason": failure(error)})
        raise
    finally:
        watch.close()
        release_memory()
    tune.report({"outcome": outcome.state, "reason": outcome.reason, "facts": facts})
