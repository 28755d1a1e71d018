"""The verb `doctor`: versions, devices, store, disk space, and sweeps with records that are not in MLflow yet."""

import os
import shutil
import sqlite3
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from ferhpo.addresses.sqlite import opened_sqlite
from ferhpo.config.settings import job_cpus
from ferhpo.disk import existing_part
from ferhpo.errors import FerhpoError
from ferhpo.storage.listing import sweep_folders
from ferhpo.storage.provenance import versions
from ferhpo.storage.sweep import load_sweep
from ferhpo.text import plural
from ferhpo.tracking import TrackingSettings


def doctor(output_dir: str = "mlruns") -> dict[str, dict[str, Any]]:
    """Return facts by topic: versions, devices, store, disk, and records that are not in MLflow yet."""
    import torch

    memory = psutil.virtual_memory()
    folder = Path(output_dir).resolve()
    existing = existing_part(folder)
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    devices = {
        "cpu": f"{_cores()}; torch uses {torch.get_num_threads()} threads",
        "memory": f"{memory.available / 1e9:.1f} GB of {memory.total / 1e9:.1f} GB free",
        "gpu": ", ".join(gpus) or "none",
    }
    settings = TrackingSettings(output_dir=folder, required=False)
    store = {"default": settings.shown_uri, "state": _store_state(folder / "mlflow.db")}
    disk = {
        "output": str(folder),
        "free": f"{shutil.disk_usage(existing).free / 1e9:.1f} GB",
        "writable": str(os.access(existing, os.W_OK)).lower(),
        "shared memory": _shared_memory(),
    }
    facts = {"versions": versions(), "devices": devices, "store": store, "disk": disk, "unshipped": _unshipped(folder)}
    return {**facts, "aliases": found} if (found := _aliases(settings)) else facts


def _store_state(path: Path) -> str:
    """Return the state of the default store. Writes nothing: it may be another user's, or on a read-only disk."""
    if find_spec("mlflow") is None:
        return "MLflow is not installed; install it, or set tracking.uri=none"
    try:
        if not path.exists():
            return "does not exist yet; the first sweep creates it"
        with opened_sqlite(path, wait_seconds=1.0, most_seconds=5.0) as connection:
            num_runs = connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0]
    except (OSError, sqlite3.Error) as error:
        return f"the database cannot be read ({error}); make it readable for this user, or restore it from a copy"
    return f"reachable; {plural(num_runs, 'run')}{'' if os.access(path, os.W_OK) else '; not writable for this user'}"


def _aliases(settings: TrackingSettings) -> dict[str, Any]:
    """Return a sentence for each alias of the default store that was moved without ferhpo; empty if none was."""
    path = settings.sqlite_path
    if path is None or find_spec("mlflow") is None:
        return {}
    from ferhpo.tracking.registered import aliases

    try:
        if not path.exists():
            return {}
        with opened_sqlite(path, wait_seconds=1.0, most_seconds=5.0) as connection:  # nothing is written for a look
            names = [name for (name,) in connection.execute("SELECT name FROM registered_models")]
            tags = connection.execute(
                "SELECT name FROM registered_model_tags WHERE key LIKE ?", (f"{aliases.AUDIT}.%",)
            )
            audited = {name for (name,) in tags}
        return {
            name: "; ".join(found)
            for name in names
            if name in audited and (found := aliases.moved_by_hand(settings, name))
        }
    except (OSError, sqlite3.Error, FerhpoError):
        return {}  # the state of the store says what is wrong


def _cores() -> str:
    cores, machine = job_cpus(), os.cpu_count()
    return f"{cores} cores" if cores == machine else f"{cores} of the machine's {machine} cores"


def _shared_memory() -> str:
    path = Path("/dev/shm")
    return f"{shutil.disk_usage(path).free / 1e9:.1f} GB free" if path.exists() else "no /dev/shm"


def _unshipped(folder: Path) -> dict[str, Any]:
    from ferhpo.tracking import is_held, num_unshipped, rejected_text

    facts = {}
    try:
        found = sweep_folders(folder)
    except FerhpoError as error:
        return {"unknown": str(error)}
    for sweep_folder in found:
        name, lines = sweep_folder.name, []
        try:
            sweep = load_sweep(sweep_folder)
            tracking = TrackingSettings.from_config(sweep.config["tracking"], folder)
            count = num_unshipped(sweep.folder, tracking)
        except FerhpoError as error:
            facts[name] = str(error)
            continue
        if count and is_held(sweep.folder):
            lines.append(f"{plural(count, 'record')}; the sweep is running and uploads its records itself")
        elif count:
            uri = f" tracking.uri=... (with the password of {tracking.shown_uri})" if tracking.lacks_password else ""
            lines.append(f"{plural(count, 'record')}; upload with: {sweep.command('sync')}{uri}")
        if rejected := rejected_text(sweep.folder, sweep.command("sync")):
            lines.append(rejected)
        if lines:
            facts[name] = "; ".join(lines)
    return facts or {"none": "all records are in MLflow"}
