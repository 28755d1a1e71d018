"""How busy the machine was in an epoch, by the names that MLflow shows under "System metrics"."""

from contextlib import suppress
from importlib.util import find_spec

import psutil
import torch

MEGABYTE = 1e6
NAMES = tuple(
    f"system/{name}"
    for name in (
        "cpu_utilization_percentage", "system_memory_usage_megabytes", "system_memory_usage_percentage",
        "gpu_0_memory_usage_megabytes", "gpu_0_memory_usage_percentage", "gpu_0_utilization_percentage",
    )
)  # fmt: skip


class Usage:
    """Measure from one call to the next; of a machine that several trials share, the whole machine."""

    def __init__(self) -> None:
        psutil.cpu_percent()  # the first call has nothing to compare with
        self._has_nvml = find_spec("pynvml") is not None  # of the package nvidia-ml-py

    def since_last(self, device: torch.device) -> dict[str, float]:
        """Return CPU use since the last call in percent, memory in use, and the same of the trial's GPU now."""
        memory = psutil.virtual_memory()
        found = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": round(memory.used / MEGABYTE, 1),
            "system/system_memory_usage_percentage": memory.percent,
        }
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            found["system/gpu_0_memory_usage_megabytes"] = round((total - free) / MEGABYTE, 1)
            found["system/gpu_0_memory_usage_percentage"] = round(100 * (total - free) / total, 1)
            with suppress(RuntimeError, OSError):  # a driver that does not say
                if self._has_nvml:
                    found["system/gpu_0_utilization_percentage"] = float(torch.cuda.utilization(device))
        return found
