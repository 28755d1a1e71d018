"""How long FER2013's CSV takes to read and cache, and to read again from the cache; and how much memory.

    python benchmarks/read_csv.py PATH [--runs 3]

Each reading is a fresh process with a cache of its own. The time of Python's start and of `import numpy` is told apart.
Targets: first reading under 20 s and 1.5 GB, from the cache under 1 s.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHILD = "--child"


def read_once(path: str, cache_dir: str) -> None:
    """Load in this process and print: seconds of imports, seconds of loading, peak memory in MB, digest."""
    started = time.perf_counter()
    import numpy  # noqa: F401 - timed apart

    from ferhpo.data import fer2013

    imported = time.perf_counter()
    data = fer2013.load(path, cache_dir=cache_dir)
    loaded = time.perf_counter()
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss counts bytes on macOS, KiB on Linux
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(imported - started, loaded - imported, peak_mb, data.digest)


def measure(path: str, cache_dir: str) -> tuple[float, float, float, float, str]:
    """Read in a fresh process; return its wall seconds, import seconds, load seconds, peak MB and the digest."""
    command = [sys.executable, __file__, CHILD, path, cache_dir]
    started = time.perf_counter()
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    wall_seconds = time.perf_counter() - started
    import_seconds, load_seconds, peak_mb = map(float, words[:3])
    return wall_seconds, import_seconds, load_seconds, peak_mb, words[3]


def main() -> None:
    if sys.argv[1:2] == [CHILD]:
        read_once(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="fer2013.csv")
    parser.add_argument("--runs", type=int, default=3, help="how often each reading is repeated")
    options = parser.parse_args()
    first, again = [], []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as cache_dir:
            first.append(measure(options.path, cache_dir))
            again.append(measure(options.path, cache_dir))
    digests = {run[4] for run in first + again}
    megabytes = Path(options.path).stat().st_size / 1e6
    print(f"{options.path}: {megabytes:.0f} MB, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"medians of {options.runs} runs, each in a fresh process; digest {', '.join(sorted(digests))}\n")
    print(f"{'':<14}{'load s':>9}{'import s':>10}{'process s':>11}{'peak MB':>9}")
    for name, runs in (("first reading", first), ("from the cache", again)):
        wall, imports, load, peak = (statistics.median(run[place] for run in runs) for place in range(4))
        print(f"{name:<14}{load:>9.2f}{imports:>10.2f}{wall:>11.2f}{peak:>9.0f}")
    if len(digests) > 1:
        sys.exit("the digests differ: the cache does not give what was read")


if __name__ == "__main__":
    main()
