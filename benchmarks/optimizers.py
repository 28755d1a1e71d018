"""What an update of all parameters costs: torch's three ways, for the ResNet of 33 MMAC, on one thread.

    python benchmarks/optimizers.py

`fused` is one operation for all parameters, `foreach` several, and the default of torch on a CPU is several for each.
ferhpo uses `fused` where torch has it. Printed are medians of 200 updates, in microseconds, in turn.
"""

import statistics
import time

import torch

from ferhpo.models.resnet import ResNet

OPTIMIZERS = {"SGD": {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}, "Adam": {"lr": 1e-3}, "AdamW": {"lr": 1e-3}}
WAYS = {"default": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def main() -> None:
    torch.set_num_threads(1)
    for name, settings in OPTIMIZERS.items():
        optimizers = {}
        for way, setting in WAYS.items():
            network = ResNet(in_channels=1, num_classes=7, image_size=48, stem_stride=2, width=24, num_stages=3)
            for parameter in network.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizers[way] = getattr(torch.optim, name)(network.parameters(), **settings, **setting)
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(210):
            for way, optimizer in optimizers.items():
                start = time.perf_counter()
                optimizer.step()
                seconds[way].append(time.perf_counter() - start)
        shown = ", ".join(f"{way} {1e6 * statistics.median(values[10:]):.0f} us" for way, values in seconds.items())
        print(f"{name:<6} {shown}")


if __name__ == "__main__":
    main()
