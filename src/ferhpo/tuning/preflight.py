"""Refuse what can be refused before a sweep creates anything: names, paths, the disk, the store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ferhpo.config.compose import hide_password
from ferhpo.disk import check_disk
from ferhpo.errors import ConfigError, SweepError
from ferhpo.keys import leaves, nearest_key, set_path
from ferhpo.storage.lock import FolderLock
from ferhpo.storage.sweep import CHANGEABLE, META, Sweep, exists_error, free_name, load_sweep
from ferhpo.tracking import TrackingSettings, check_store, hide_all


def resumed(name: str, overrides: Sequence[str], kind: str) -> Sweep:
    """The sweep to resume, with overrides of what a resume may change; nothing is written yet."""
    overrides = hide_all(overrides)
    output_dir = next((t.partition("=")[2] for t in overrides if t.startswith("output_dir=")), "mlruns")
    record = load_sweep(name, output_dir)
    if record.meta["kind"] != kind:
        raise SweepError(f"{name} is a {record.meta['kind']}; ferhpo {record.meta['kind']} --resume {name} goes on")
    check_disk(record.folder)
    FolderLock(record.folder).release()  # refuses a second driver before Ray starts
    config = record.config
    known = [
        "num_trials",
        "keep_checkpoints",
        *(f"{section}.{key}" for section in ("compute", "tracking") for key in config[section]),
    ]
    faults = []
    for text in overrides:
        key, _, value = text.partition("=")
        section = key.split(".")[0]
        if key == "output_dir":
            continue
        if section not in CHANGEABLE:
            faults.append(
                f"{key} cannot change in a resumed sweep, whose trials must be alike; {', '.join(CHANGEABLE)} can"
            )
        elif key in known:
            try:
                set_path(config, key, yaml.safe_load(value))
            except yaml.YAMLError:
                faults.append(f"{key} is {value}, which is not understood")
        elif key == section:
            faults.append(f"{key} is a group, and stays; set its keys, as {key}.{next(iter(config[key]))}={value}")
        else:
            faults.append(f"{key} matches no key; {nearest_key(config, key)}")
    if faults:
        raise ConfigError(f"--resume {name}", faults)
    hide_password(config)
    return record


def store_warnings(settings: TrackingSettings) -> list[str]:
    """Warnings about a store that is away and not required; TrackingError where it is required."""
    reason = check_store(settings)
    if reason is None:
        return []
    return [f"tracking.uri is {settings.shown_uri}: {reason}; records wait in the sweep's folder"]


def refuse_existing(config: Mapping[str, Any]) -> None:
    folder = Path(config["output_dir"]) / str(config["name"])
    if (folder / META).exists():
        raise exists_error(folder)
    check_disk(folder)


def use_free_name(config: dict[str, Any]) -> None:
    folder = Path(config["output_dir"]) / str(config["name"])
    if folder.exists():
        config["name"] = free_name(folder)


def make_paths_absolute(config: dict[str, Any]) -> None:
    """A sweep may be resumed from another folder."""
    config["output_dir"] = str(Path(config["output_dir"]).resolve())
    for path, value in list(leaves(config["data"])):
        key = path.rpartition(".")[2]
        is_path = key in ("path", "ferplus_path", "cache_dir") or (key == "clean" and Path(str(value)).exists())
        if is_path and isinstance(value, str) and value != "???":
            set_path(config["data"], path, str(Path(value).resolve()))
    weights = config["model"].get("weights")
    if isinstance(weights, str) and Path(weights).is_file():
        config["model"]["weights"] = str(Path(weights).resolve())
