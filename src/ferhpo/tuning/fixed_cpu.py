"""What the trials of a sweep keep from its beginning, whatever a resume has: CPU threads, and the precision on a CPU.

The order in which a sum is computed, and so a trial's last digits, depends on the threads; the precision changes all of
them. So both are recorded in sweep.json.
"""

import logging
import re

from ferhpo.components.kinds import has_estimator
from ferhpo.storage.sweep import Sweep, save_config
from ferhpo.text import STEPS
from ferhpo.training.settings import Hardware

log = logging.getLogger("ferhpo.sweep")
steps = logging.getLogger(STEPS)


def fixed_cpu(sweep: Sweep, num_threads: int, num_gpus: float | None = None, *, has_gpu: bool = False) -> Hardware:
    """Return what trials may use; of the CPU, what is recorded, or for a new sweep what is best here.

    num_threads, num_gpus: what each trial has here; num_gpus as in Hardware
    has_gpu: whether trials run on GPUs, so that their precision follows from the GPU
    """
    before = dict(sweep.meta)
    threads = _threads(sweep, num_threads)
    precision = None if has_gpu or has_estimator(sweep.config) else _precision(sweep, threads)
    if sweep.meta != before:
        save_config(sweep)
    return Hardware(threads, precision, num_gpus)


def _threads(sweep: Sweep, usual: int) -> int:
    if "num_threads" not in sweep.meta:  # a sweep of an earlier version has them in the facts of its trials
        devices = [re.fullmatch(r"cpu \((\d+) threads\)", str(t.extra.get("device"))) for t in sweep.trials()]
        found = {int(device[1]) for device in devices if device}
        sweep.meta["num_threads"] = found.pop() if len(found) == 1 else usual
    num_threads = int(sweep.meta["num_threads"])
    if num_threads != usual:
        log.warning(
            "threads: the trials keep the %d CPU threads that the sweep began with; here each would have %d",
            num_threads,
            usual,
        )
    return num_threads


def _precision(sweep: Sweep, num_threads: int) -> str | None:
    """Return the precision of `trainer.precision: auto`; None if the configuration names one."""
    from ferhpo.training.hardware.cpu_precision import cpu_precision, has_amx

    if str(sweep.config["trainer"].get("precision")) != "auto":
        return None
    if "cpu_precision" not in sweep.meta:
        if sweep.trials():  # of an earlier version, which asked for AMX only
            precision = "bf16" if has_amx() else "32"
        else:
            precision, why = cpu_precision(num_threads)
            steps.info("training in %s: %s", "bf16" if precision == "bf16" else "float32", why)
        sweep.meta["cpu_precision"] = precision
    return str(sweep.meta["cpu_precision"])
