"""The verb `doctor`: versions, devices, store, disk, and sweeps with records that are not in MLflow yet."""

import os
import shutil
from pathlib import Path
from typing import Any

import psutil

from ferhpo.errors import FerhpoError
from ferhpo.storage.provenance import versions
from ferhpo.storage.sweep import META, load_sweep
from ferhpo.tracking import TrackingSettings, check_store


def doctor(output_dir: str = "mlruns") -> dict[str, dict[str, Any]]:
    """Versions, devices, store, disk, and records that are not shipped."""
    return examine(output_dir)


def examine(output_dir: str) -> dict[str, dict[str, Any]]:
    """Facts by topic, as plain values."""
    import torch

    memory = psutil.virtual_memory()
    folder = Path(output_dir).resolve()
    existing = next(path for path in [folder, *folder.parents] if path.exists())
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    devices = {
        "cpu": f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads",
        "memory": f"{memory.available / 1e9:.1f} GB of {memory.total / 1e9:.1f} GB free",
        "gpu": ", ".join(gpus) or "none",
    }
    settings = TrackingSettings(output_dir=folder, required=False)
    reason = check_store(settings) if folder.exists() else "not made yet; the first sweep makes it"
    store = {"default": settings.shown_uri, "state": reason or "answers"}
    disk = {
        "output": str(folder),
        "free": f"{shutil.disk_usage(existing).free / 1e9:.1f} GB",
        "writable": str(os.access(existing, os.W_OK)).lower(),
        "shared memory": _shared_memory(),
    }
    return {"versions": versions(), "devices": devices, "store": store, "disk": disk, "unshipped": _unshipped(folder)}


def _shared_memory() -> str:
    path = Path("/dev/shm")
    return f"{shutil.disk_usage(path).free / 1e9:.1f} GB free" if path.exists() else "no /dev/shm"


def _unshipped(folder: Path) -> dict[str, Any]:
    from ferhpo.tracking import is_held, num_rejected, num_unshipped

    found = {}
    for meta in sorted(folder.glob(f"*/{META}")):
        name, told = meta.parent.name, []
        try:
            record = load_sweep(meta.parent)
            settings = TrackingSettings.from_config(record.config["tracking"], folder)
            count = num_unshipped(record.folder, settings)
        except FerhpoError as error:
            found[name] = str(error)
            continue
        if count and is_held(record.folder):
            told.append(f"{count} records; it runs, and ships them itself")
        elif count:
            again = f" tracking.uri=..., with the password of {settings.shown_uri}," if settings.lacks_password else ""
            told.append(f"{count} records; ferhpo sync {name}{again} ships them")
        if rejected := num_rejected(record.folder):
            told.append(f"{rejected} values or files that MLflow refused are in {record.folder / 'rejected.jsonl'}")
        if told:
            found[name] = "; ".join(told)
    return found or {"none": "every record is in MLflow"}
