"""What sharing a GPU among trials brings: the same eight trials with several compute.gpus_per_trial, also under MPS.

`epochs_per_s` counts from the first report on, when imports and the start of CUDA are over; `seconds` is all.
"""

import tempfile
import time
from functools import partial
from typing import Any

import ferhpo
from ferhpo.training.settings import PRETEND_GPU
from gpu_parts.common import NUM_FER2013, SMALL_RESNET, Rows, mps, mps_control, noise, use_data

SHARES = (1.0, 0.25, 0.125)


def sweep(share: float, small: bool) -> dict[str, Any]:
    times: list[float] = []

    def listen(ledger: Any) -> None:
        epochs = sum(len(trial.epochs) for trial in ledger.study.trials())
        times.extend([time.perf_counter()] * (epochs - len(times)))

    with tempfile.TemporaryDirectory(prefix="share_") as folder:
        search = ["space.model=null", "sampler=random", "scheduler=none", "tracking=none", f"output_dir={folder}"]
        sizes = [
            f"num_trials={2 if small else 8}",
            "trainer.max_epochs=2",
            f"trainer.batch_size={16 if small else 128}",
        ]
        compute = [f"compute.gpus_per_trial={share:g}", "compute.max_concurrent=null"]
        compute += ["compute.num_gpus=1", "compute.num_cpus=2"] if small else []
        start = time.perf_counter()
        result = ferhpo.sweep("demo", [*SMALL_RESNET, "optim=sgd", *search, *sizes, *compute], listener=listen)
        seconds = time.perf_counter() - start
        trials = result.sweep.trials()
    last = [trial.epochs[-1] for trial in trials if trial.epochs]
    return {
        "seconds": seconds,
        "num_epochs": len(times),
        "epochs_per_s": (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0,
        "used_mb": max((metrics.get("device_used_mb", 0.0) for metrics in last), default=0.0),
        "states": sorted(str(trial.state) for trial in trials),
        "device": trials[0].extra.get("device"),
        "reasons": sorted({trial.reason.splitlines()[0] for trial in trials if trial.reason})[:3],
    }


def run(rows: Rows) -> None:
    import os

    if rows.small:
        os.environ[PRETEND_GPU] = "1"
    use_data("sweep", noise(64, 32) if rows.small else noise(NUM_FER2013, 3_589))
    for share in SHARES[1:2] if rows.small else SHARES:
        rows.measure(partial(sweep, share, rows.small), gpus_per_trial=share, mps=False)
    if mps_control() is None:
        rows.write(mps=True, skipped="nvidia-cuda-mps-control is not on this machine")
        return
    for share in SHARES[1:]:

        def under_mps(share: float = share) -> dict[str, Any]:
            with mps():
                return sweep(share, rows.small)

        rows.measure(under_mps, gpus_per_trial=share, mps=True)
