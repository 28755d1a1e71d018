"""What stands between a configuration and its run: names, paths, the disk, the store, the data, Ray.

Nothing here makes a sweep: whatever can be refused is refused first.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ferhpo.composing import hide_password, nearest_key, not_set
from ferhpo.config import Composed, ComputeSettings
from ferhpo.cross_validation import fold_data
from ferhpo.data.dataset import FaceData
from ferhpo.data.features import with_hog
from ferhpo.errors import ConfigError, SweepError
from ferhpo.folds import num_folds
from ferhpo.journal import FolderLock
from ferhpo.model_section import shared_hog
from ferhpo.record import CHANGEABLE, META, Sweep, check_disk, exists_error, free_name, load_sweep
from ferhpo.space import leaves, set_path
from ferhpo.targets import as_function
from ferhpo.tracking import TrackingSettings, check_store, hide_all


def load_data(composed: Composed) -> FaceData:
    """Read (or take from the cache) the data set of a configuration, with the features that its models take.

    Raises DataError, and ConfigError where the models' features cannot be computed.
    """
    section = composed.config["data"]
    missing = [path for path, value in leaves(section, "data") if value == "???"]
    if missing:
        raise ConfigError(composed.name, [not_set(path) for path in missing])
    data = as_function(section, composed.config.get("allowed_targets") or ())()
    assert isinstance(data, FaceData)
    for fold in range(num_folds(composed.config) or 0):
        fold_data(data, section, fold)  # so that what cannot be cut is said here, and not by every trial
    try:
        hog = shared_hog(composed)
        return data if hog is None else with_hog(data, hog, section.get("cache_dir"))
    except ValueError as error:
        raise ConfigError(composed.name, [f"model.{error}"]) from None


class RayStart:
    """Starts Ray in a thread while the driver reads data; `result` waits for it and raises what it raised.

    The thread stays: Linux ends Ray's processes with the thread that started them (PR_SET_PDEATHSIG). The end of the
    block stops Ray, unless it ran before: the next sweep of this process may want other resources.
    """

    def __init__(self, compute: ComputeSettings) -> None:
        self.is_ours, self.is_joined = False, compute.address is not None
        self.error: Exception | None = None
        self.done = threading.Event()
        threading.Thread(target=self._work, args=(compute,), daemon=True, name="ray-start").start()

    def _work(self, compute: ComputeSettings) -> None:
        if compute.address is None:  # read at Ray's import: its servers of this machine then listen on 127.0.0.1 only
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        try:
            from ferhpo import cluster

            self.is_ours = cluster.start_ray(compute)
        except Exception as error:  # `result` raises it
            self.error = error
        finally:
            self.done.set()
        threading.Event().wait()

    def __enter__(self) -> "RayStart":
        return self

    def __exit__(self, *error: object) -> None:
        self.done.wait()
        if self.is_ours:
            from ferhpo import cluster

            cluster.stop_ray()

    def wait_if_joined(self) -> None:
        """Wait where Ray is another's cluster: one that is away is said before anything is made on disk."""
        if self.is_joined:
            self.result()

    def result(self) -> None:
        self.done.wait()
        if self.error is not None:
            raise self.error


def tracking_settings(config: Mapping[str, Any]) -> TrackingSettings:
    """Where a sweep is recorded."""
    return TrackingSettings.from_config(config["tracking"], Path(config["output_dir"]))


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
