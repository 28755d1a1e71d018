"""Run the fuzzer: `python -m tests.fuzz.run 2000` runs 2000 rounds of each target and prints the counts.

`python -m tests.fuzz.run 2000 --only merged sfew --from 500` runs rounds 500 to 2499 of some targets.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings

from tests.fuzz.fuzzing import Tally, fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Print one line per target, then the bugs; the exit status is 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int)
    parser.add_argument("--only", nargs="+", choices=sorted(TARGETS), default=list(TARGETS))
    parser.add_argument("--from", dest="first", type=int, default=0)
    args = parser.parse_args()
    os.environ["FERHPO_CACHE_DIR"] = tempfile.mkdtemp(prefix="ferhpo-fuzz-cache-")
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    total = Tally()
    seen: set[str] = set()
    for name in args.only:
        begin = time.perf_counter()
        tally = fuzz(name, TARGETS[name], range(args.first, args.first + args.rounds))
        total.counts += tally.counts
        total.bugs += tally.bugs
        shown = ", ".join(f"{count:,} {what}" for what, count in sorted(tally.counts.items()))
        print(f"{name:20} {args.rounds:,} rounds: {shown}, {len(tally.bugs):,} bugs", flush=True)
        print(f"{'':20} {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
        for bug in tally.bugs:
            if _kind(bug) not in seen:  # one of each kind
                seen.add(_kind(bug))
                print(f"\n{bug}", flush=True)
    shown = ", ".join(f"{count:,} {what}" for what, count in sorted(total.counts.items()))
    print(f"{'all':20} {args.rounds * len(args.only):,} rounds: {shown}, {len(total.bugs):,} bugs")
    return 1 if total.bugs else 0


def _kind(bug: str) -> str:
    """Return the type of the exception and the last line of ferhpo in its traceback."""
    lines = bug.strip().splitlines()
    ours = [line for line in lines if "/src/ferhpo/" in line]
    return f"{lines[-1].partition(':')[0]} {ours[-1] if ours else ''}"


if __name__ == "__main__":
    sys.exit(main())
