"""A network with a fault, to test how a sweep handles it. The faults are real as far as this machine allows."""

import os
import resource
import signal
import time
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from ferhpo.errors import GpuCrowded

FAULTS = (
    "none",
    "cuda",
    "cuda_validation",
    "crowded",
    "crowded_once",
    "host",
    "diverges",
    "error",
    "error_too",
    "killed",
    "killed_once",
    "hang",
    "stopped",
)


class Faulty(nn.Module):
    """A linear network over the pixels with a fault that occurs in a batch.

    marks: a folder; each batch appends a line, "train" or "val", to the file in it that is named after the fault
    seconds: duration of a batch
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        fault: str = "none",
        marks: str = "",
        seconds: float = 0.0,
    ) -> None:
        super().__init__()
        assert fault in FAULTS
        self.fault, self.marks, self.seconds = fault, marks, seconds
        self.has_trained = False
        self.output = nn.Linear(in_channels * image_size**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        self.has_trained = self.has_trained or self.training
        if len(images) > 1 or self.has_trained:  # before, a single image counts multiply-accumulates
            time.sleep(self.seconds)
            with (Path(self.marks) / self.fault).open("a") as file:
                file.write("train\n" if self.training else "val\n")
            if self.fault != "none":
                getattr(self, f"_{self.fault}")(images)
        logits: Tensor = self.output(images.flatten(1))
        return logits * float("nan") if self.fault == "diverges" else logits

    def _diverges(self, images: Tensor) -> None:
        pass

    def _cuda(self, images: Tensor) -> None:
        """Raise the error of a CUDA device that has no memory left."""
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79 GiB."
        )

    def _crowded(self, images: Tensor) -> None:
        """Raise the error of a trial whose share of the memory others hold."""
        raise GpuCrowded(
            "other processes hold the GPU memory of this trial: CUDA out of memory. Process 123 has 70 GiB"
        )

    def _crowded_once(self, images: Tensor) -> None:
        if (Path(self.marks) / self.fault).read_text().count("\n") == 1:
            self._crowded(images)

    def _cuda_validation(self, images: Tensor) -> None:
        if not self.training:
            self._cuda(images)

    def _host(self, images: Tensor) -> None:
        """Allocate more memory than the limit of this process, which represents a machine without free memory."""
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**28, before[1]))
        try:
            torch.ones(2**31, dtype=torch.float32)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)

    def _error(self, images: Tensor) -> None:
        raise KeyError("a mistake in user code")

    _error_too = _error

    def _killed(self, images: Tensor) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _killed_once(self, images: Tensor) -> None:
        if (Path(self.marks) / self.fault).read_text().count("\n") == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def _hang(self, images: Tensor) -> None:
        time.sleep(3600)

    def _stopped(self, images: Tensor) -> None:
        """Stop the process, so that it cannot write anything."""
        os.kill(os.getpid(), signal.SIGSTOP)
