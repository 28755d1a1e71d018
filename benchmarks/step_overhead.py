"""What a training step costs beyond the arithmetic: fit against the barest loop, with a network of one layer.

    python benchmarks/step_overhead.py [--rounds 5]

Both sides train the same one-layer network with SGD on the same batches of 8 images, so nearly all of the time is that
of Python and of starting operations. The bare loop gathers the images, normalizes them, and runs forward, backward and
step. Printed are microseconds per step, medians over rounds in which the sides alternate.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from ferhpo.data.dataset import TRAIN, VAL, FaceData, face_data
from ferhpo.training import schedules
from ferhpo.training.augment import Augment
from ferhpo.training.fit import fit
from ferhpo.training.settings import TrainerSettings

SIDE, BATCH, NUM_STEPS = 24, 8, 1000
SGD = partial(torch.optim.SGD, lr=0.01, momentum=0.9)


class OneLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(SIDE * SIDE, 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(images.flatten(1))
        return logits


def noise() -> FaceData:
    rng = np.random.default_rng(0)
    count = NUM_STEPS * BATCH
    images = rng.integers(0, 256, (count + 100, SIDE, SIDE), dtype=np.uint8)
    split = np.where(np.arange(len(images)) < count, TRAIN, VAL).astype(np.uint8)
    return face_data(images, rng.integers(0, 7, len(images)), split, tuple("abcdefg"), "noise", "random")


def bare(data: FaceData) -> float:
    """Return the microseconds per step of a loop with nothing in it but the training."""
    network = OneLayer()
    optimizer = SGD(network.parameters())
    images, labels = torch.tensor(data.images)[:, None], torch.tensor(data.labels)
    order = torch.randperm(NUM_STEPS * BATCH)
    start = time.perf_counter()
    for step in range(NUM_STEPS):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        pixels = images[chosen].float().mul_(1 / 255).sub_(0.5).div_(0.25)
        optimizer.zero_grad()
        F.cross_entropy(network(pixels), labels[chosen]).backward()
        optimizer.step()
    return 1e6 * (time.perf_counter() - start) / NUM_STEPS


def through_fit(data: FaceData, *, augment: Augment, **trainer: object) -> float:
    """Return the microseconds per step of fit, from the speed that it reports for its second epoch."""
    speeds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        fit(
            OneLayer(),
            data,
            optimizer=SGD,
            lr_schedule=schedules.cosine,
            augment=augment,
            settings=TrainerSettings(max_epochs=2, batch_size=BATCH, precision="32", **trainer),  # type: ignore[arg-type]
            folder=Path(folder),
            seed=0,
            report=lambda epoch, metrics: speeds.append(metrics["images_per_second"]),
            device=torch.device("cpu"),
        )
    return 1e6 * BATCH / speeds[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = noise()
    sides = {
        "bare loop": lambda: bare(data),
        "fit": lambda: through_fit(data, augment=Augment()),
        "fit, weight average": lambda: through_fit(data, augment=Augment(), weight_averaging="ema"),
        "fit, gradient clipping": lambda: through_fit(data, augment=Augment(), gradient_clip_norm=1.0),
        "fit, flip and shift": lambda: through_fit(data, augment=Augment(flip=0.5, shift=0.1)),
        "fit, rotation": lambda: through_fit(data, augment=Augment(flip=0.5, shift=0.1, rotation=10.0)),
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            found[name].append(side())
    print(f"torch {torch.__version__}, 1 thread, batch {BATCH}, {NUM_STEPS} steps per epoch")
    for name, values in found.items():
        beyond = statistics.median(v - b for v, b in zip(values, found["bare loop"], strict=True))
        print(f"{name:<24}{statistics.median(values):8.0f} us{'' if name == 'bare loop' else f'   {beyond:+8.0f} us'}")


if __name__ == "__main__":
    main()
