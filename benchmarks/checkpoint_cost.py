"""What the checkpoints of an epoch cost, and whether a thread would hide it: each part in ms, and steps beside a save.

    python benchmarks/checkpoint_cost.py [--rounds 9]

For networks of several sizes, with the states of SGD: the time to serialize last.ckpt and best.ckpt, to write and
rename both, and of training steps on one thread followed by a save (`after`), or with the save in another thread
(`beside`). `alone` are the steps without a save; what `beside` is below `after`, a thread hides if a core is free.
Medians.
"""

import argparse
import io
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from one_trial import NETWORKS

from ferhpo.training.checkpoint import save_checkpoints

BATCH, NUM_EPOCHS = 8, 30
METRICS = dict.fromkeys(("train_loss", "train_acc", "val_loss", "val_acc", "val_macro_f1", "lr", "epoch_seconds"), 0.5)


def median_ms(function: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken)


def measure(name: str, folder: Path, rounds: int) -> dict[str, float]:
    network = NETWORKS[name]().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, fused=True)
    images = torch.rand(BATCH, 1, 48, 48).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(BATCH, dtype=torch.int64)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    step()
    history = [{"epoch": epoch, **METRICS} for epoch in range(NUM_EPOCHS)]
    weights = network.state_dict()
    last: dict[str, Any] = {"history": history, "network": weights, "optimizer": optimizer.state_dict()}
    best: dict[str, Any] = {"metrics": METRICS, "network": weights}
    serialize = [median_ms(lambda part=part: torch.save(part, io.BytesIO()), rounds) for part in (last, best)]

    def save() -> None:
        save_checkpoints(folder, last, best)

    saved = median_ms(save, rounds)
    num_steps = max(1, int(3 * saved / median_ms(step, rounds)))

    def steps() -> None:
        for _ in range(num_steps):
            step()

    def beside() -> None:
        thread = threading.Thread(target=save)
        thread.start()
        steps()
        thread.join()

    def after() -> None:
        steps()
        save()

    found: dict[str, float] = {"last": serialize[0], "best": serialize[1], "write": saved - sum(serialize)}
    ways: dict[str, list[float]] = {"alone": [], "after": [], "beside": []}
    for _ in range(rounds):
        for way, function in zip(ways, (steps, after, beside), strict=True):
            ways[way].append(median_ms(function, 1))
    return found | {way: statistics.median(values) for way, values in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("tiny", "resnet", "resnet18"):
            found = measure(name, Path(folder), args.rounds)
            print(f"{name:12}", "  ".join(f"{key} {value:7.1f}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
