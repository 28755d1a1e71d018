"""The fuzzer: mutate copies of valid files, read them, and count the outcomes: loaded, refused with a message, or a bug.

A round depends only on the name of the target and its number, which a failure reports, so that it can run again alone.
"""

import random
import resource
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ferhpo.errors import FerhpoError
from tests.fuzz.mutations import mutate_tree

LIMIT_SECONDS = 30  # CPU time
WAIT_SECONDS = 240  # wall time; a machine may be busy, and a read may block forever
LIMIT_BYTES = 3 * 2**30  # address space, in addition to that of the process before the round


@dataclass(frozen=True)
class Target:
    """A reader to fuzz.

    make: writes valid files to a folder
    read: reads them and returns a value to compare
    spoil: changes something in the folder and returns a description
    must_be_same: whether files that load must give the same value as the valid files
    named: returns the text that a message must contain
    """

    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    spoil: Callable[[random.Random, Path], str] = mutate_tree
    must_be_same: bool = False
    named: Callable[[Path], str] = str


@dataclass
class Tally:
    """The outcomes of a target.

    counts: loaded with the same value, loaded with another value, refused
    bugs: rounds with any other outcome, with traceback
    """

    counts: Counter[str] = field(default_factory=Counter)
    bugs: list[str] = field(default_factory=list)


class Hang(BaseException):
    """A read that does not end."""


@contextmanager
def limits() -> Iterator[None]:
    """End a read that takes too much time or memory with an exception that no reader handles as a fault of the data."""

    def stop(*_: Any) -> None:
        raise Hang(f"no end after {LIMIT_SECONDS} s of work, or {WAIT_SECONDS} s")

    timers = {signal.SIGALRM: (signal.ITIMER_REAL, WAIT_SECONDS), signal.SIGPROF: (signal.ITIMER_PROF, LIMIT_SECONDS)}
    before = {number: signal.signal(number, stop) for number in timers}
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + LIMIT_BYTES, hard))
    left = {timer: signal.setitimer(timer, seconds) for timer, seconds in timers.values()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for timer, seconds in left.items():  # the timeout of pytest continues
            signal.setitimer(timer, *seconds)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def fuzz(name: str, target: Target, rounds: range) -> Tally:
    """Mutate and read a copy of the valid files of the target, once per number in `rounds`."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="ferhpo-fuzz-") as top:
        valid = Path(top) / "valid" / "data"
        valid.mkdir(parents=True)
        target.make(valid)
        shutil.copytree(valid.parent, Path(top) / "good", symlinks=True)
        good = target.read(Path(top) / "good" / "data")  # a copy: reading a checkpoint goes on with it
        for number in rounds:
            folder = Path(top) / f"round{number}" / "data"
            shutil.copytree(valid.parent, folder.parent, symlinks=True)
            rng = random.Random(f"{name} {number}")
            done = [target.spoil(rng, folder) for _ in range(rng.choice((1, 1, 2)))]
            where = f"{name} round {number} ({'; '.join(done)})"
            try:
                with limits():
                    same = target.read(folder) == good
                tally.counts["loaded the same" if same else "loaded otherwise"] += 1
                if target.must_be_same and not same:
                    tally.bugs.append(f"{where}: loaded, and is another thing than was written")
            except FerhpoError as error:
                tally.counts["refused"] += 1
                if target.named(folder) not in str(error):
                    tally.bugs.append(f"{where}: the message does not name {target.named(folder)}: {error}")
            except (Exception, Hang):
                tally.bugs.append(f"{where}\n{traceback.format_exc()}")
            finally:
                shutil.rmtree(folder.parent)
    return tally
