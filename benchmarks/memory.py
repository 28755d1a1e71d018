"""Memory of four concurrent trials on FER2013: whether there is one copy of the images, and what the processes take.

    python benchmarks/memory.py [--data fer2013.csv] [--systems ferhpo ray-reuse optuna-processes] [--quick]

Each system trains the workload `real` of peers.py, one trial in each of four slots. Every second, the proportional set
size (PSS) of the started process and its descendants is read from /proc: a page that several processes map counts
once, in equal parts. Shown is the second in which all processes together took most:

    all processes     their PSS in total
    shared images     the part of it in /dev/shm, where Ray keeps the images for all workers, those of test included
    mapped by         processes that have mapped at least half of the images there: the trials', and Ray's own
    driver            the started process alone
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
from peer_parts.prepare import SIZES, prepare
from peer_parts.report import conditions, results_path, write
from peers import SYSTEMS, finished_epochs, start

MEGABYTE = 1e6
SHOWN = ["ferhpo", "ray-reuse", "optuna-processes"]


@dataclass(frozen=True)
class Sample:
    """PSS in MB of one moment; the meanings are those of the table."""

    everything: float
    shared: float
    mappers: int
    driver: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", default=SHOWN, choices=[k for k, v in SYSTEMS.items() if not v.hydra])
    parser.add_argument("--slots", type=int, default=4, help="trials at a time, each on one thread")
    parser.add_argument("--data", type=Path, help="FER2013, e.g. fer2013.csv (default: as many drawn images)")
    parser.add_argument("--quick", action="store_true", help="fewer images, to see that everything runs")
    parser.add_argument("--write", type=Path, help="default: benchmarks/results/[quick/]memory.md")
    args = parser.parse_args()
    size = replace(SIZES["real"][args.quick], trials=args.slots)
    conditions_at_start = conditions(None, os.getloadavg()[0])
    lines = [
        "| system | all processes, MB | shared images, MB | mapped by | driver, MB |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        scratch = Path(name)
        workload, data_options = prepare(size, args.data, "32", args.slots, 1, scratch)
        image_bytes = np.load(workload.images)["images"].nbytes
        for system in args.systems:
            process = start(system, workload, data_options, sys.executable, scratch)
            try:
                samples = list(watch(process, image_bytes))
            except KeyboardInterrupt:
                os.killpg(process.pid, signal.SIGKILL)
                raise
            num_epochs = len(finished_epochs(scratch / "run"))
            if process.returncode or num_epochs != size.trials:
                printed = (scratch / "output.txt").read_text(errors="replace").strip()
                sys.exit(f"{system}: exit status {process.returncode}, {num_epochs} epochs: {printed[-1500:]}")
            most = max(samples, key=lambda sample: sample.everything)
            lines.append(
                f"| {SYSTEMS[system].title} | {most.everything:.0f} | {most.shared:.0f} | {most.mappers} | "
                f"{most.driver:.0f} |"
            )
            print(lines[-1], flush=True)
    write(
        args.write or results_path("memory", args.quick),
        f"Memory of {args.slots} concurrent trials{' (quick: a test, not a measurement)' if args.quick else ''}",
        [
            f"`{' '.join(['python benchmarks/memory.py', *sys.argv[1:]])}`, {time.strftime('%Y-%m-%d')}. Images of "
            f"training and validation: {image_bytes / MEGABYTE:.1f} MB.",
            "",
            *conditions_at_start,
            "",
            *lines,
        ],
    )


def watch(process, image_bytes):
    """Yield a sample each second until the process ends."""
    driver = psutil.Process(process.pid)
    while process.poll() is None:
        total = shared = own = 0.0
        mappers = 0
        with suppress(psutil.NoSuchProcess):
            for one in [driver, *driver.children(recursive=True)]:
                with suppress(psutil.Error, OSError):
                    pss, shared_pss, shared_rss = read_smaps(one.pid)
                    total, shared = total + pss, shared + shared_pss
                    mappers += shared_rss > image_bytes / 2
                    if one == driver:
                        own = pss
            yield Sample(total / MEGABYTE, shared / MEGABYTE, mappers, own / MEGABYTE)
        time.sleep(1)


def read_smaps(pid: int) -> tuple[int, int, int]:
    """Return bytes of a process: PSS, and PSS and RSS of its mappings of /dev/shm."""
    pss = shared_pss = shared_rss = 0
    is_shared = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, *values = line.split()
        if not key.endswith(":"):  # the first line of a mapping: its addresses, ..., its file
            is_shared = len(values) >= 5 and values[4].startswith("/dev/shm/")
        elif key == "Pss:":
            pss += int(values[0]) * 1024
            shared_pss += is_shared * int(values[0]) * 1024
        elif key == "Rss:":
            shared_rss += is_shared * int(values[0]) * 1024
    return pss, shared_pss, shared_rss


if __name__ == "__main__":
    main()
