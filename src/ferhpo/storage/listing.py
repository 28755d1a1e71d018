"""List the sweeps of an output folder."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from ferhpo.errors import FerhpoError, StorageError
from ferhpo.storage.meta import META
from ferhpo.storage.sweep import Sweep, load_sweep


def list_sweeps(output_dir: str = "mlruns") -> list[dict[str, Any]]:
    """Return a row for every sweep in `output_dir`.

    A row has `name`, `created`, `num_trials`, `counts` (trials by state), `best` (value of the best trial), `unshipped`
    (records that are not in MLflow yet) and `runs` (whether a driver runs the sweep). A sweep that cannot be read has
    `name` and `error` only; the others are listed all the same.
    """
    rows: list[dict[str, Any]] = []
    for folder in sweep_folders(output_dir):
        try:
            sweep = load_sweep(folder)
            trials, best = sweep.trials(), sweep.best()
            num_records, is_running = unshipped(sweep)
        except FerhpoError as error:
            rows.append({"name": folder.name, "error": str(error)})
            continue
        rows.append(
            {
                "name": sweep.name,
                "created": sweep.meta["created"],
                "num_trials": len(trials),
                "counts": dict(Counter(trial.state for trial in trials)),
                "best": None if best is None else best.value,
                "unshipped": num_records,
                "runs": is_running,
            }
        )
    return rows


def is_running(sweep: Sweep) -> bool:
    """Return whether another process runs a sweep; without one, trials that have not ended are interrupted."""
    from ferhpo.storage.lock import LOCK, as_object
    from ferhpo.tracking import is_held

    if not is_held(sweep.folder, LOCK):
        return False
    try:
        return as_object((sweep.folder / LOCK).read_text(errors="replace")).get("pid") != os.getpid()
    except OSError:
        return False


def sweep_folders(output_dir: str | Path) -> list[Path]:
    """Return the folders of the sweeps in `output_dir`, sorted; also those that this user cannot look into.

    Raises StorageError if `output_dir` itself cannot be read.
    """
    try:
        folders = sorted(path for path in Path(output_dir).iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(
            f"{output_dir} cannot be read ({error.strerror}); make it readable for this user, or set output_dir to "
            "another folder"
        ) from None
    return [folder for folder in folders if not os.access(folder, os.X_OK) or (folder / META).is_file()]


def unshipped(sweep: Sweep) -> tuple[int, bool]:
    """Return how many records of a sweep are not in MLflow yet, and whether a driver runs it, which uploads them."""
    from ferhpo.storage.lock import LOCK
    from ferhpo.tracking import is_held, num_unshipped

    return num_unshipped(sweep.folder, sweep.tracking), is_held(sweep.folder, LOCK)
