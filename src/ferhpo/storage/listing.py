"""List the sweeps of an output folder."""

from collections import Counter
from pathlib import Path
from typing import Any

from ferhpo.errors import FerhpoError
from ferhpo.storage.sweep import META, Sweep, load_sweep


def list_sweeps(output_dir: str = "mlruns") -> list[dict[str, Any]]:
    """Every sweep in `output_dir`: name, when it was made, trials by state, value of the best, how many records are
    not in MLflow yet, and whether it runs.

    One that cannot be read has its `error` instead, and hides none of the others.
    """
    rows: list[dict[str, Any]] = []
    for path in sorted(Path(output_dir).glob(f"*/{META}")):
        try:
            record = load_sweep(path.parent)
            trials, best = record.trials(), record.best()
            num_records, is_running = unshipped(record)
        except FerhpoError as error:
            rows.append({"name": path.parent.name, "error": str(error)})
            continue
        rows.append(
            {
                "name": record.name,
                "created": record.meta["created"],
                "num_trials": len(trials),
                "counts": dict(Counter(trial.state for trial in trials)),
                "best": None if best is None else best.value,
                "unshipped": num_records,
                "runs": is_running,
            }
        )
    return rows


def unshipped(record: Sweep) -> tuple[int, bool]:
    """How many records of a sweep are not in MLflow yet, and whether a driver runs it, and ships them itself."""
    from ferhpo.storage.lock import LOCK
    from ferhpo.tracking import is_held, num_unshipped

    return num_unshipped(record.folder, record.tracking), is_held(record.folder, LOCK)
