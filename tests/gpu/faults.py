"""Networks that do on a GPU what trials do by accident, and a scheduler that stops every trial."""

import json
import subprocess
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from torch import Tensor, nn

FAULTS = (
    "none",
    "train_memory",
    "val_memory",
    "val_batch_memory",
    "crowded_once",
    "assert_once",
    "look",
    "spike",
    "wait",
)


class Faulty(nn.Module):
    """A linear network over the pixels that does something else in each batch.

    gigabytes: of the memory that a fault takes; for "val_batch_memory" per image
    ballast: gigabytes that belong to the network
    marks: a folder for what the faults note
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        fault: str = "none",
        gigabytes: float = 0.0,
        ballast: float = 0.0,
        marks: str = "",
    ) -> None:
        super().__init__()
        assert fault in FAULTS
        self.fault, self.gigabytes, self.marks = fault, gigabytes, Path(marks)
        self.is_in_use = False
        self.output = nn.Linear(in_channels * image_size**2, num_classes)
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("ballast", torch.zeros(int(ballast * 1e9), dtype=torch.uint8), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        # Before its training, a network is tried with one or two images, in the driver too.
        self.is_in_use = self.is_in_use or len(images) > 2
        logits: Tensor = self.output(images.flatten(1))
        if self.is_in_use and self.fault != "none":
            getattr(self, f"_{self.fault}")(logits)
        return logits

    def _take(self, logits: Tensor, gigabytes: float) -> None:
        torch.empty(int(gigabytes * 1e9), dtype=torch.uint8, device=logits.device)

    def _train_memory(self, logits: Tensor) -> None:
        if self.training:
            self._take(logits, self.gigabytes)

    def _val_memory(self, logits: Tensor) -> None:
        if not self.training:
            self._take(logits, self.gigabytes)

    def _val_batch_memory(self, logits: Tensor) -> None:
        if not self.training:
            self._take(logits, self.gigabytes * len(logits))

    def _crowded_once(self, logits: Tensor) -> None:
        """Take memory; note if there is none, so that whoever holds it can release it."""
        try:
            self._take(logits, self.gigabytes)
        except torch.OutOfMemoryError:
            (self.marks / "crowded").touch()
            raise

    def _assert_once(self, logits: Tensor) -> None:
        """Compute the loss of a class that does not exist, in the first batch of all: on a GPU, an assertion fails."""
        mark = self.marks / "asserted"
        if not mark.exists():
            mark.touch()
            F.cross_entropy(logits, torch.full((len(logits),), 99, device=logits.device)).item()

    def _look(self, logits: Tensor) -> None:
        """Note once what this process uses of the GPUs."""
        if (self.marks / "look.json").exists():
            return
        seen = {"used_mb": used_mb(), "initialized": torch.cuda.is_initialized(), "device": str(logits.device)}
        (self.marks / "look.json").write_text(json.dumps(seen))

    def _spike(self, logits: Tensor) -> None:
        """Let the gradients of the third step overflow."""
        if self.training and logits.requires_grad:
            self.num_steps += 1
            if int(self.num_steps) == 3:
                logits.register_hook(lambda gradient: gradient * torch.inf)

    def _wait(self, logits: Tensor) -> None:
        """Read a random number back, which waits for the GPU."""
        F.dropout(logits, 0.5, self.training).sum().item()


def used_mb() -> float:
    """Return the memory that all processes use on all GPUs, by nvidia-smi; 0 without it."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return sum(map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()))
    except (OSError, subprocess.CalledProcessError, ValueError):
        return 0.0


class StopAfterOne(FIFOScheduler):
    """Stop every trial after its first epoch."""

    def __init__(self, metric: str, mode: str, time_attr: str = "epoch") -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return TrialScheduler.STOP
