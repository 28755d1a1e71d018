"""Run one trial without Ray: build what the configuration names, fit it, return the outcome.

Note: running out of memory and a network that cannot be built are outcomes, not errors. Any other exception propagates
to the caller.
"""

import os
import platform
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferhpo.components import own_code
from ferhpo.components.build import as_function, instantiate
from ferhpo.components.kinds import has_estimator
from ferhpo.config import Objective
from ferhpo.data.dataset import FaceData
from ferhpo.data.features.hog import given_features
from ferhpo.errors import Diverged, GpuCrowded, Infeasible, StorageError, first_line, is_out_of_memory, is_unusable_gpu
from ferhpo.scoring.metrics import Metric, chosen
from ferhpo.states import TrialState

if TYPE_CHECKING:
    import torch

    from ferhpo.training.fit import FitResult
    from ferhpo.training.settings import Hardware

Report = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: COMPLETE (with `result`), INFEASIBLE or DIVERGED (with `reason`)."""

    state: TrialState
    reason: str = ""
    result: "FitResult | None" = field(default=None, repr=False)


def input_size(config: Mapping[str, Any], image_size: int) -> int:
    """Return the height in pixels of the network's input: the crop if there is one, else the image."""
    return int(config["augment"].get("crop") or image_size)


def build_network(config: Mapping[str, Any], num_channels: int, num_classes: int, image_size: int) -> "torch.nn.Module":
    """Build the network of a configuration. Raises Infeasible if it cannot be built with these values."""
    try:
        network = instantiate(
            config["model"],
            "model",
            in_channels=num_channels,
            num_classes=num_classes,
            image_size=input_size(config, image_size),
            **given_features(config["model"], image_size),
        )
    except (ValueError, TypeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise Infeasible(f"out of memory while building the network: {first_line(error)}") from None
        raise Infeasible(f"the network cannot be built: {first_line(error)}") from None
    return network  # type: ignore[no-any-return]


def metrics_of(config: Mapping[str, Any]) -> dict[str, Metric]:
    """Return the metrics that a configuration adds to those of every trial: chosen ones of ferhpo, and the user's own.

    Raises ConfigError if a `_target_` is not allowed.
    """
    more, own = chosen(config)
    return more | {name: as_function(section, "metrics") for name, section in own.items()}


def facts(
    config: Mapping[str, Any], network: "torch.nn.Module", data: FaceData, device: "torch.device"
) -> dict[str, Any]:
    """Return what is known of a trial before its first report: parameters, multiply-accumulates per image, device."""
    import torch

    from ferhpo.training.hardware.cuda import gpu_facts

    is_gpu = device.type == "cuda"
    return {
        **_cost(config, network, data),
        "device": torch.cuda.get_device_name(device) if is_gpu else f"cpu ({torch.get_num_threads()} threads)",
        **(gpu_facts(device) if is_gpu else {}),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "node": platform.node(),
        "pid": os.getpid(),
    }


def _cost(config: Mapping[str, Any], network: "torch.nn.Module", data: FaceData) -> dict[str, int]:
    from ferhpo.models.count import count_macs, count_parameters

    if has_estimator(config):
        from ferhpo.models.estimators import Estimator

        assert isinstance(network, Estimator)
        return network.cost()
    size = input_size(config, data.image_size)
    return {"num_parameters": count_parameters(network), "macs": count_macs(network, (data.channels, size, size))}


def run_trial(
    config: Mapping[str, Any],
    data: FaceData,
    folder: Path,
    seed: int,
    report: Report,
    on_start: Callable[[dict[str, Any]], None] = lambda facts: None,
    hardware: "Hardware | None" = None,
) -> Outcome:
    """Train one network and keep its last and best checkpoint in `folder`; resume from `folder/last.ckpt` if it exists.

    A damaged checkpoint is moved aside and the trial restarts from the beginning; the facts then say so ("restarted").

    report: called with (epoch from 1, metrics) as the last step of every epoch; may raise SystemExit to stop
    hardware: what the trial may use; by default a GPU if there is one, and the CPU as torch is set
    on_start: called with the trial's `facts` before its first epoch; for an estimator, after its fit
    Raises StorageError if the disk or a checkpoint cannot be used, GpuCrowded if other processes hold the GPU's memory,
    FerhpoError if torch cannot use the GPU that was assigned.
    """
    import torch

    from ferhpo.training.checkpoint import set_aside_damaged
    from ferhpo.training.fit import fit
    from ferhpo.training.hardware.cuda import claim, device_of
    from ferhpo.training.hardware.device import precision_of
    from ferhpo.training.settings import Hardware

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be created: {error.strerror or error}") from error
    hardware = hardware or Hardware(torch.get_num_threads())
    torch.set_num_threads(hardware.num_threads)
    is_estimator = has_estimator(config)
    device = torch.device("cpu") if is_estimator else device_of(hardware.num_gpus)
    share = claim(device, hardware.num_gpus or 1.0) if device.type == "cuda" else None
    objective = Objective(**config["objective"])
    callbacks = config.get("callbacks") or {}
    own_callbacks = {name: instantiate(section, "callbacks") for name, section in callbacks.items()}
    metrics = metrics_of(config)
    reason = set_aside_damaged(folder)
    restarted = {"restarted": reason} if reason else {}
    try:
        torch.manual_seed(seed)
        network = build_network(config, data.channels, data.num_classes, data.image_size)
        if is_estimator:
            from ferhpo.training.estimator import fit_estimator

            fitted = fit_estimator(
                network,  # type: ignore[arg-type]
                data,
                settings=instantiate(config["trainer"], "trainer"),
                input_size=input_size(config, data.image_size),
                metric=objective.metric,
                folder=folder,
                seed=seed,
                report=report,
                more_metrics=metrics,
                on_fitted=lambda: on_start({**facts(config, network, data, device), **restarted}),
            )
            return Outcome(TrialState.COMPLETE, result=fitted)
        settings = instantiate(config["trainer"], "trainer")
        if hardware.cpu_precision is not None and settings.precision == "auto" and device.type == "cpu":
            settings = replace(settings, precision=hardware.cpu_precision)
        precision = {"precision": precision_of(settings, device)}
        on_start({**facts(config, network, data, device), **precision, **restarted})
        result = fit(
            network,
            data,
            optimizer=partial(instantiate, config["optim"], "optim"),
            lr_schedule=partial(instantiate, config["lr_schedule"], "lr_schedule"),
            augment=instantiate(config["augment"], "augment"),
            settings=settings,
            metric=objective.metric,
            mode=objective.mode,
            folder=folder,
            seed=seed,
            report=report,
            own_callbacks=own_callbacks,
            loss=as_function(config["loss"], "loss"),
            more_metrics=metrics,
            device=device,
            tell=on_start,
        )
    except Infeasible as error:
        return Outcome(TrialState.INFEASIBLE, str(error))
    except Diverged as error:
        return Outcome(TrialState.DIVERGED, str(error))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        crowded = share is not None and share.others_took(error)
        # The traceback's frames hold the tensors: let them go before anyone asks for memory again.
        traceback.clear_frames(error.__traceback__)
        if crowded:
            raise GpuCrowded(f"other processes hold the GPU memory of this trial: {first_line(error)}") from None
        return Outcome(TrialState.INFEASIBLE, f"out of memory: {first_line(error)}")
    finally:
        release_memory()
    return Outcome(TrialState.COMPLETE, result=result)


def failure(error: Exception) -> str:
    """Return the reason of a FAILED trial: the fold, the exception and its traceback."""
    notes = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))  # the fold, if any
    text = "".join(traceback.format_exception(error))
    return f"{notes}{own_code.reason(error)}{_remedy(error)}\n{text}"


def _remedy(error: Exception) -> str:
    if is_unusable_gpu(error):
        return "; set CUDA_LAUNCH_BLOCKING=1 to see where it happens"
    if "does not have a deterministic implementation" in str(error):
        return "; set trainer.deterministic=false"
    return ""


def release_memory() -> None:
    """Release the memory of an ended trial before the next one starts in this process."""
    import ctypes
    import gc

    from ferhpo.scoring.device_data import release_gpu_memory

    gc.collect()
    # Each trial runs in a new thread, whose freed blocks glibc keeps: a worker grew by 150 MB per trial on FER2013.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    release_gpu_memory()
