"""What ferhpo does on a GPU, in numbers: `make gpu` runs all of it after the tests of tests/gpu.

    python benchmarks/gpu.py --part all [--out gpu_results] [--data fer2013.csv] [--small] [--seconds 60]

ceilings  what the device can do at most: copies, products, launches
table     a training step of three networks, by settings, beside a hand-written loop
epoch     where the time of an epoch goes: training, validation, checkpoint, report
share     sweeps whose trials share the card, also under MPS
fused     several networks in one program
winner    vulpe2021_winner on FER2013, in full
recipe    a strong ResNet on FER2013

Each part is a process of its own with a time limit, and fails alone. It prints a line for each measurement and appends
it to OUT/PART.jsonl at once. A row with `failed` or `skipped` says why there is no number. The exit status is 1 if any
part failed.
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LIMITS = {
    "ceilings": 60,
    "table": 240,
    "epoch": 90,
    "share": 300,
    "fused": 180,
    "winner": 300,
    "recipe": 300,
}  # seconds
RESERVE = 0.85  # of the limit; after that, a part begins nothing more
STOP_SECONDS = 20.0  # for a part to stop Ray and MPS


def run_part(part: str, args: argparse.Namespace) -> bool:
    """Run a part in a process of its own; return whether none of its rows has failed."""
    limit = args.seconds or LIMITS[part]
    path = args.out / f"{part}.jsonl"
    path.unlink(missing_ok=True)
    print(f"== {part}, at most {limit:g} s", flush=True)
    start = time.perf_counter()
    command = [sys.executable, __file__, *sys.argv[1:], "--child", part]
    process = subprocess.Popen(command, start_new_session=True, env={**os.environ, "FUSED_SMALL": str(int(args.small))})
    try:
        status: int | None = process.wait(limit)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        end(process)
    reason = f"no end within {limit:g} s" if status is None else f"exit status {status}" if status else ""
    if reason:
        with path.open("a") as file:
            file.write(json.dumps({"part": part, "failed": reason}) + "\n")
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    failed = [row for row in rows if "failed" in row]
    print(f"== {part}: {len(rows)} rows, {len(failed)} failed, {time.perf_counter() - start:.0f} s", flush=True)
    return bool(rows) and not failed


def end(process: subprocess.Popen[Any]) -> None:
    """End a part and the processes that it has started."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(sent)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run_here(part: str, args: argparse.Namespace) -> None:
    from gpu_parts.common import Rows

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what is open is closed
    data = None if args.data is None else args.data.resolve()
    rows = Rows(part, args.out, args.small, RESERVE * (args.seconds or LIMITS[part]), data)
    if rows.device.type == "cpu" and not args.small:
        rows.write(failed="torch finds no CUDA device; --small tries the benchmarks on a CPU")
        return
    try:
        importlib.import_module(f"gpu_parts.{part}").run(rows)
    except Exception as error:
        rows.write(failed=f"{type(error).__name__}: {str(error)[:300]}")
        raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*LIMITS, "all"], default="all")
    parser.add_argument("--out", type=Path, default=Path("gpu_results"), help="folder for the rows")
    parser.add_argument("--data", type=Path, help="FER2013, for winner and recipe")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try it on a CPU")
    parser.add_argument("--seconds", type=float, help="time limit of each part; by default its own")
    parser.add_argument("--child", choices=LIMITS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.child:
        run_here(args.child, args)
        return
    done = [run_part(part, args) for part in (LIMITS if args.part == "all" else [args.part])]
    sys.exit(0 if all(done) else 1)


if __name__ == "__main__":
    main()
