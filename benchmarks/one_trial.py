"""One training through ferhpo's fit against a hand-written PyTorch loop: images a second over whole epochs.

    python benchmarks/one_trial.py [--network resnet] [--device cuda] [--precision bf16] [--pairs 5]
    python benchmarks/one_trial.py --device cuda --precision bf16 --deterministic --baseline graphed --images 28709

Both sides train the same network from the same start on the same device-resident images, with the same batches,
augmentation, precision and memory format, and validate after each epoch. ferhpo also computes its metrics and writes
its checkpoints; the loop does no more than it must. The first epoch of each run warms up and is not counted; the runs
alternate, and the medians are compared. The images are noise: what they show makes no difference to the time.

On a GPU, small networks wait for launches on both sides; `--baseline graphed` runs the forward and backward pass of the
loop as a CUDA graph, which is what the card can do. 28,709 images make an epoch of FER2013.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from gpu_parts.common import Graphed, noise
from torch import Tensor, nn

from ferhpo.data.dataset import TRAIN, VAL, FaceData
from ferhpo.models.cnn import CNN
from ferhpo.models.count import count_macs
from ferhpo.models.resnet import ResNet
from ferhpo.scoring.device_data import default_device
from ferhpo.training import schedules
from ferhpo.training.augment import Augment
from ferhpo.training.fit import fit
from ferhpo.training.settings import TrainerSettings

DATA = {"in_channels": 1, "num_classes": 7, "image_size": 48}
NETWORKS = {
    "tiny": lambda: CNN(**DATA, stem_channels=0, num_blocks=3, block_channels=[8, 16, 32], dense_units=32),
    "vulpe": lambda: CNN(
        **DATA, stem_channels=256, num_blocks=4, block_channels=[512, 384, 192, 384], width_multiplier=0.125
    ),
    "vulpe_full": lambda: CNN(**DATA, stem_channels=256, num_blocks=4, block_channels=[512, 384, 192, 384]),
    "resnet": lambda: ResNet(**DATA, stem_stride=2, width=24, num_stages=3),
    "resnet18": lambda: ResNet(**DATA),
}
AUGMENT = Augment(flip=0.5, shift=0.1, rotation=10.0)
LR, MOMENTUM, DECAY = 0.05, 0.9, 5e-4


def hand_written(network: nn.Module, data: FaceData, args: argparse.Namespace, device: torch.device) -> list[float]:
    """Seconds of each epoch of a plain loop."""
    network.to(device=device, memory_format=torch.channels_last)
    images = torch.tensor(data.images, device=device)[:, None]
    labels = torch.tensor(data.labels, device=device)
    train = torch.tensor(np.flatnonzero(data.split == TRAIN), device=device)
    val = torch.tensor(np.flatnonzero(data.split == VAL), device=device)
    pixels = images[train].float() / 255
    mean, std = pixels.mean(), pixels.std()
    del pixels
    steps = len(train) // args.batch_size
    fused = args.baseline == "graphed"
    optimizer = torch.optim.SGD(
        network.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True, fused=fused
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * steps)
    rng = np.random.default_rng(0)

    def gradients(inputs: Tensor, targets: Tensor) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16", cache_enabled=not fused):
            loss = F.cross_entropy(network(inputs), targets)
        loss.backward()
        return loss.detach()

    step_of: Callable[..., Tensor] | None = None if args.baseline == "graphed" else gradients
    seconds = []
    for _ in range(args.epochs):
        start = time.perf_counter()
        network.train()
        order = train[torch.randperm(len(train), device=device)]
        total = torch.zeros((), device=device)
        for step in range(steps):
            chosen = order[step * args.batch_size : (step + 1) * args.batch_size]
            noise_of = AUGMENT.noise(len(chosen), 48, rng).to(device)
            inputs = ((AUGMENT(images[chosen], noise_of) - mean) / std).contiguous(memory_format=torch.channels_last)
            if step_of is None:
                step_of = Graphed(gradients, inputs, labels[chosen])
            total += step_of(inputs, labels[chosen])
            optimizer.step()
            schedule.step()
        network.eval()
        hits = torch.zeros((), device=device)
        with torch.inference_mode():
            for chosen in val.split(512):
                logits = network((images[chosen].float() / 255 - mean) / std)
                hits += (logits.argmax(1) == labels[chosen]).sum()
        hits.item(), total.item()
        seconds.append(time.perf_counter() - start)
    return seconds


def through_ferhpo(network: nn.Module, data: FaceData, args: argparse.Namespace, device: torch.device) -> list[float]:
    """Seconds of each epoch of fit, with everything that it does between two reports."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        fit(
            network,
            data,
            optimizer=partial(torch.optim.SGD, lr=LR, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True),
            lr_schedule=schedules.cosine,
            augment=AUGMENT,
            settings=TrainerSettings(
                max_epochs=args.epochs,
                batch_size=args.batch_size,
                precision=args.precision,
                deterministic=args.deterministic,
            ),
            folder=Path(folder),
            seed=0,
            report=lambda epoch, metrics: times.append(time.perf_counter()),
            device=device,
        )
    # The first epoch's start is not known from here; it is not counted.
    return [0.0, *(later - earlier for earlier, later in itertools.pairwise(times))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="resnet")
    parser.add_argument("--device", type=torch.device, default=default_device())
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--deterministic", action="store_true", help="as ferhpo trains by default; the loop does not")
    parser.add_argument("--baseline", choices=["eager", "graphed"], default="eager", help="the loop by hand")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=2560, help="training images; a tenth as many validate")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True

    data = noise(args.images, args.images // 10)
    with torch.device("meta"):
        macs = count_macs(NETWORKS[args.network](), (1, 48, 48))
    name = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else f"CPU, {args.threads} threads"
    print(
        f"{args.network} ({macs / 1e6:.0f} MMAC), {name}, torch {torch.__version__}, precision {args.precision}, "
        f"batch {args.batch_size}, {args.images} images"
    )
    sides = {"hand-written loop": hand_written, "ferhpo fit": through_ferhpo}
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    for pair in range(args.pairs):
        for side in sorted(sides, reverse=bool(pair % 2)):
            torch.manual_seed(0)
            seconds = sides[side](NETWORKS[args.network](), data, args, args.device)[1:]
            images = args.images // args.batch_size * args.batch_size
            speeds[side].append(images / statistics.mean(seconds))
    for side, values in speeds.items():
        print(f"{side:<18} {statistics.median(values):9,.0f} images/s   ({min(values):,.0f} to {max(values):,.0f})")
    ratios = [ours / theirs for ours, theirs in zip(speeds["ferhpo fit"], speeds["hand-written loop"], strict=True)]
    print(f"ratio              {statistics.median(ratios):9.2f}            ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
