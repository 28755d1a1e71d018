"""Is it worth training several networks of one shape in one program? Torch only.

A row says how many steps of single networks per second a way of training comes to: 16 networks that make one step each
are 16. A step is forward, loss, backward and SGD at batch 128, in bf16, channels last, on random images. To train
networks in one program is worth building only if `grouped_graph` is clearly faster than `graph_branches`, `streams` and
`mps`.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from gpu_parts.common import Rows, capture, mps, seconds_of, wait_for

SMALL = os.environ.get("FUSED_SMALL") == "1"  # read by the processes that this part starts, too
BATCH, SIZE, WIDTHS = (4, 12, (4, 8)) if SMALL else (128, 48, (24, 48, 96))
COUNTS = (2,) if SMALL else (1, 4, 16)
CHANNELS, PIXELS = ((4,), (12,)) if SMALL else ((24, 32, 64, 128), (48, 24, 12))
Step = Callable[[], object]


class Block(nn.Module):
    def __init__(self, members: int, before: int, width: int, stride: int) -> None:
        super().__init__()

        def conv(inputs: int, kernel: int, step: int) -> nn.Module:
            sizes = members * inputs, members * width, kernel, step, kernel // 2
            return nn.Sequential(nn.Conv2d(*sizes, bias=False, groups=members), nn.BatchNorm2d(members * width))

        self.body = nn.Sequential(conv(before, 3, stride), nn.ReLU(), conv(width, 3, 1))
        self.shortcut = nn.Identity() if stride == 1 else conv(before, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class Net(nn.Module):
    """`members` networks of 33 MMAC side by side in the channels, with grouped convolutions and one batched product."""

    def __init__(self, members: int = 1) -> None:
        super().__init__()
        width = WIDTHS[0]
        stem = nn.Conv2d(members, members * width, 3, 2, 1, bias=False, groups=members)
        layers: list[nn.Module] = [stem, nn.BatchNorm2d(members * width), nn.ReLU()]
        for before, after in zip((width, *WIDTHS), WIDTHS, strict=False):
            layers += [Block(members, before, after, 1 if before == after else 2), Block(members, after, after, 1)]
        self.body = nn.Sequential(*layers)
        self.members = members
        self.weight = nn.Parameter(torch.randn(members, WIDTHS[-1], 7) / WIDTHS[-1] ** 0.5)
        self.bias = nn.Parameter(torch.zeros(members, 1, 7))

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x).mean((2, 3)).unflatten(1, (self.members, -1)).transpose(0, 1)
        return torch.baddbmm(self.bias, features, self.weight)  # members, batch, classes


def sgd(parameters: Any, device: torch.device) -> torch.optim.Optimizer:
    fused = device.type == "cuda"
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=fused)


def make_step(device: torch.device, members: int = 1) -> Step:
    """Return a training step of `members` networks in one program, on images of their own."""
    net = Net(members).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = sgd(net.parameters(), device)
    x = torch.randn(BATCH, members, SIZE, SIZE, device=device).contiguous(memory_format=torch.channels_last)
    y = torch.randint(7, (members * BATCH,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            loss = F.cross_entropy(net(x).flatten(0, 1), y) * members
        loss.backward()
        optimizer.step()

    return step


def make_vmap_step(device: torch.device, members: int) -> Step:
    nets = [Net().to(device=device, memory_format=torch.channels_last) for _ in range(members)]  # type: ignore[call-overload]
    parameters, buffers = stack_module_state(nets)
    values = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    optimizer = sgd(values.values(), device)
    x = torch.randn(members, BATCH, 1, SIZE, SIZE, device=device)
    y = torch.randint(7, (members, BATCH), device=device)

    def loss(own: Any, state: Any, images: Tensor, labels: Tensor) -> Tensor:
        # All in bf16: under vmap, autocast and batch norm of mixed types raise.
        both = {**own, **state}
        half = {name: value.bfloat16() if value.is_floating_point() else value for name, value in both.items()}
        return F.cross_entropy(functional_call(nets[0], half, (images.bfloat16(),))[0].float(), labels)

    gradient = vmap(grad(loss))

    def step() -> None:
        plain = {name: value.detach() for name, value in values.items()}
        for name, found in gradient(plain, buffers, x, y).items():
            values[name].grad = found
        optimizer.step()

    return step


def make_convolution(device: torch.device, members: int, channels: int, pixels: int) -> Step:
    """Return forward and backward of one 3x3 convolution per member."""
    conv = nn.Conv2d(members * channels, members * channels, 3, 1, 1, bias=False, groups=members)
    conv.to(device=device, memory_format=torch.channels_last, dtype=torch.bfloat16)  # type: ignore[call-overload]
    shape = BATCH, members * channels, pixels, pixels
    x = torch.randn(shape, device=device, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    towards = torch.randn_like(x)

    def step() -> None:
        conv.weight.grad = x.grad = None
        conv(x).backward(towards)

    return step


def looped(steps: list[Step], device: torch.device, apart: bool = False) -> Step:
    """Return the steps one after the other; `apart`: each on a stream of its own, which joins at the end."""
    streams = [torch.cuda.Stream() for _ in steps] if apart and device.type == "cuda" else []

    def run() -> None:
        if not streams:
            for step in steps:
                step()
            return
        current = torch.cuda.current_stream()
        for step, stream in zip(steps, streams, strict=True):
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                step()
        for stream in streams:
            current.wait_stream(stream)

    return run


def timed(make: Callable[[], Step], members: int, device: torch.device) -> dict[str, float]:
    step = make()
    step()
    once = seconds_of(step, device, 2)
    seconds = seconds_of(step, device, min(max(int(0.1 / once), 2), 1000))
    memory = torch.cuda.max_memory_reserved() / 1e6 if device.type == "cuda" else 0.0
    return {"ms": seconds * 1e3, "steps_per_s": members / seconds, "memory_mb": memory}


def networks(rows: Rows) -> None:
    device = rows.device

    def singles(members: int) -> list[Step]:
        return [make_step(device) for _ in range(members)]

    ways: dict[str, Callable[[int], Step]] = {
        "eager": lambda b: looped(singles(b), device),
        "graph_each": lambda b: looped([capture(step, device) for step in singles(b)], device),
        "graph_loop": lambda b: capture(looped(singles(b), device), device),
        "grouped": lambda b: make_step(device, b),
        "grouped_graph": lambda b: capture(make_step(device, b), device),
        "streams": lambda b: looped([capture(step, device) for step in singles(b)], device, apart=True),
        "graph_branches": lambda b: capture(looped(singles(b), device, apart=True), device),
        "vmap": lambda b: make_vmap_step(device, b),
        "vmap_graph": lambda b: capture(make_vmap_step(device, b), device),
    }
    cudnn = torch.backends.cudnn
    for deterministic in (True, False):  # ferhpo's default, then cuDNN's own choice of the fastest
        cudnn.deterministic, cudnn.benchmark = deterministic, not deterministic
        for way in ways if deterministic else ("graph_loop", "grouped_graph"):
            for members in COUNTS:
                make = partial(ways[way], members)
                rows.measure(
                    partial(timed, make, members, device), way=way, members=members, deterministic=deterministic
                )
    cudnn.deterministic, cudnn.benchmark = True, False


def convolutions(rows: Rows) -> None:
    device = rows.device

    def loop(members: int, channels: int, pixels: int) -> Step:
        return capture(looped([make_convolution(device, 1, channels, pixels) for _ in range(members)], device), device)

    def grouped(members: int, channels: int, pixels: int) -> Step:
        return capture(make_convolution(device, members, channels, pixels), device)

    for pixels in PIXELS:
        for channels in CHANNELS:
            for members in COUNTS:
                for way, make in (("conv_loop", loop), ("conv_grouped", grouped)):
                    measured = partial(timed, partial(make, members, channels, pixels), members, device)
                    rows.measure(measured, way=way, members=members, channels=channels, pixels=pixels)


def worker(index: int, device_name: str, barrier: Any, queue: Any, seconds: float) -> None:
    """Train one network in a process of its own, in each phase that wants at least index + 1 processes."""
    device = torch.device(device_name)
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    step = capture(make_step(device), device)
    step()
    for members in COUNTS:
        wait_for(device)
        barrier.wait(60)
        start, count = time.perf_counter(), 0
        while index < members and time.perf_counter() - start < seconds:
            for _ in range(1 if SMALL else 20):
                step()
                count += 1
            wait_for(device)
        if index < members:
            queue.put((members, count / (time.perf_counter() - start)))
    barrier.wait(60)


def processes(rows: Rows, way: str) -> None:
    """Let as many processes as the largest count share the device, by time or by MPS."""
    context = torch.multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(COUNTS[-1]), context.Queue()
    arguments = str(rows.device), barrier, queue, 0.2 if SMALL else 2.0
    workers = [context.Process(target=worker, args=(i, *arguments), daemon=True) for i in range(COUNTS[-1])]
    try:
        for process in workers:
            process.start()
        for members in COUNTS:
            rates = [queue.get(timeout=90)[1] for _ in range(members)]
            rows.write(way=way, members=members, steps_per_s=sum(rates), slowest=min(rates))
        for process in workers:
            process.join(20)
    finally:
        for process in workers:
            process.kill()


def mps_processes(rows: Rows) -> None:
    with mps():
        processes(rows, "mps")


def run(rows: Rows) -> None:
    networks(rows)
    for way, function in (("processes", partial(processes, rows, "processes")), ("mps", partial(mps_processes, rows))):
        if not rows.has_time:
            rows.write(way=way, skipped=f"{rows.seconds:.0f} s have passed")
            continue
        try:
            function()
        except FileNotFoundError as error:
            rows.write(way=way, skipped=str(error))
        except Exception as error:
            rows.write(way=way, failed=f"{type(error).__name__}: {str(error)[:300]}")
    convolutions(rows)
