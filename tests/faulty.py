"""A network with a fault, for tests of what a sweep makes of it. The faults are real as far as this machine has them."""

import os
import resource
import signal
import time
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

FAULTS = (
    "none",
    "cuda",
    "cuda_validation",
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
    """A linear network over the pixels; `fault` says what happens to it in a batch.

    marks: a folder in which each batch, "train" or "val", is a line of the file named as the fault; seconds: of a batch
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
        self.output = nn.Linear(in_channels * image_size**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > 1:  # one image is for the counting of multiply-accumulates
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
        """What a CUDA device raises, raised by hand."""
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79 GiB."
        )

    def _cuda_validation(self, images: Tensor) -> None:
        if not self.training:
            self._cuda(images)

    def _host(self, images: Tensor) -> None:
        """More memory than the limit of this process, which stands for a machine that has no more."""
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
        """A process that can write nothing any more."""
        os.kill(os.getpid(), signal.SIGSTOP)
