"""What the device can do at most: copies, products, launches."""

import torch

from gpu_parts.common import Rows, capture, seconds_of


def run(rows: Rows) -> None:
    device, small = rows.device, rows.small
    is_cuda = device.type == "cuda"

    def named() -> dict[str, object]:
        name = torch.cuda.get_device_name() if is_cuda else "cpu"
        cudnn = torch.backends.cudnn.version()
        return {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": cudnn}

    def copy() -> dict[str, float]:
        source = torch.ones(2**18 if small else 2**30, device=device)
        target = torch.empty_like(source)
        seconds = seconds_of(lambda: target.copy_(source), device, 10)
        return {"copy_TB_per_s": 2 * source.numel() * 4 / seconds / 1e12}

    def product() -> dict[str, float]:
        size = 256 if small else 8192
        left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
        return {"bf16_product_TFLOP_per_s": 2 * size**3 / seconds_of(lambda: left @ right, device, 10) / 1e12}

    one = torch.zeros(1, device=device)

    def launch() -> dict[str, float]:
        return {"launch_us": 1e6 * seconds_of(lambda: one.add_(1), device, 100 if small else 10_000)}

    def foreach() -> dict[str, float]:
        many = [torch.zeros(24, device=device) for _ in range(60)]
        seconds = seconds_of(lambda: torch._foreach_add_(many, 1), device, 10 if small else 1000)
        return {"foreach_add_of_60_us": 1e6 * seconds}

    def in_a_graph() -> dict[str, float]:
        replay = capture(lambda: [one.add_(1) for _ in range(300)], device)
        return {"kernel_in_a_graph_us": 1e6 * seconds_of(replay, device, 50) / 300}

    def to_host() -> dict[str, float]:
        values = torch.empty(2**26, device=device)
        return {"host_copy_GB_per_s": 4 * 2**26 / 1e9 / seconds_of(values.cpu, device, 3)}

    for measured in (named, copy, product, launch, foreach, *((in_a_graph, to_host) if is_cuda else ())):
        rows.measure(measured)
