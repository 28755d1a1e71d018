"""Every benchmark that needs no GPU, one after the other; each writes a file into benchmarks/results.

    python benchmarks/all.py [--data fer2013.csv] [--rounds 1]     hours on two cores
    python benchmarks/all.py --quick                               tiny sizes, into benchmarks/results/quick

A benchmark that fails does not stop the others; the exit status is 1 if any failed. Not among them: recipes.py, which
needs FER2013 and takes long, same_trials.py, which measures nothing, and gpu.py (make gpu).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peer_parts.prepare import SIZES, write_csv
from peer_parts.report import conditions, results_path, write

from ferhpo.data import synthetic

BENCHMARKS = Path(__file__).resolve().parent
# Name, command, and what --quick adds to it; DATA is the path of FER2013 or of a drawn file of its form
PRINTING = [
    ("one-trial", "one_trial.py --threads 1", "--network tiny --images 640 --epochs 2 --pairs 1"),
    ("step-overhead", "step_overhead.py", "--rounds 1"),
    ("optimizers", "optimizers.py", ""),
    ("checkpoint-cost", "checkpoint_cost.py", ""),
    ("read-csv", "read_csv.py DATA", "--runs 1"),
    ("trivial-trials", "trivial_trials.py", "--trials 8"),
    ("driver-cost", "driver_cost.py", "--trials 200"),
    ("resume", "resume.py", "--trials 50 --epochs 3"),
    ("tracking-cost", "tracking.py cost", "--pairs 1 --epochs 2 --train 140"),
    ("tracking-shipping", "tracking.py shipping", "--seconds 5"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, help="FER2013; without it, faces are drawn")
    parser.add_argument("--rounds", type=int, default=1, help="of peers.py")
    args = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        data = args.data or Path(scratch) / "fer2013.csv"
        if not args.data:
            size = (280, 70, 70) if args.quick else (28_709, 3589, 3589)
            write_csv(synthetic.load(*size), data)
        for name, command, quick in PRINTING:
            shown = f"{command} {quick}".strip() if args.quick else command
            conditions_at_start, arguments = (
                conditions(None, os.getloadavg()[0]),
                shown.replace("DATA", str(data)).split(),
            )
            print(f"{name}: python benchmarks/{shown}", flush=True)
            done = subprocess.run(
                [sys.executable, BENCHMARKS / arguments[0], *arguments[1:]], capture_output=True, text=True
            )
            if done.returncode:
                failed.append(name)
                print(f"{name} failed: {done.stderr[-1500:]}", flush=True)
                continue
            lines = [
                f"`python benchmarks/{shown}`, {time.strftime('%Y-%m-%d')}",
                "",
                *conditions_at_start,
                "",
                "```",
                *done.stdout.rstrip().splitlines(),
                "```",
            ]
            write(results_path(name, args.quick), name, lines)
    quick = ["--quick"] if args.quick else []
    given = ["--data", args.data] if args.data and not args.quick else []
    programs = {"memory": ["memory.py", *quick, *given]}
    for workload in SIZES:
        rounds = ["--rounds", str(args.rounds), *(given if workload == "real" else [])]
        programs[f"peers-{workload}"] = ["peers.py", "--workload", workload, *quick, *rounds]
    for name, arguments in programs.items():
        print(f"{name}: python benchmarks/{' '.join(map(str, arguments))}", flush=True)
        if subprocess.run([sys.executable, BENCHMARKS / arguments[0], *arguments[1:]]).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
