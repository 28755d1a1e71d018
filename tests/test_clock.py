"""Recorded time never runs backward, whatever the clock of the machine does."""

import json
import time
from datetime import datetime

import pytest

from ferhpo.clock import Clock
from ferhpo.storage.study.journal import JOURNAL
from ferhpo.tracking.spool import SPOOL, Spool
from tests.test_study import open_study

HOUR_NS = 3600 * 10**9


class FakeTime:
    """A clock that a test can set, and the steady time beside it."""

    def __init__(self):
        self.wall_ns, self.steady_ns = 10**18, 5 * 10**9

    def clock(self) -> Clock:
        return Clock(lambda: self.wall_ns, lambda: self.steady_ns)

    def pass_by(self, ns, set_by=0):
        self.steady_ns += ns
        self.wall_ns += ns + set_by


def test_a_clock_that_is_set_back_continues_by_the_steady_time():
    fake = FakeTime()
    clock = fake.clock()
    first = clock.now_ns()
    fake.pass_by(10, set_by=-HOUR_NS)
    assert clock.now_ns() == first + 10
    fake.pass_by(20)
    assert clock.now_ns() == first + 30
    fake.pass_by(5, set_by=2 * HOUR_NS)
    assert clock.now_ns() == fake.wall_ns, "a clock that is ahead is believed"


def test_a_clock_starts_from_the_time_of_another_machine():
    fake = FakeTime()
    clock = fake.clock()
    clock.not_before(fake.wall_ns + HOUR_NS)
    clock.not_before(fake.wall_ns - HOUR_NS)
    fake.pass_by(7)
    assert clock.now_ns() == 10**18 + HOUR_NS + 7


@pytest.fixture
def shifted(monkeypatch):
    """Shift the clock of the machine by `shifted["ns"]`."""
    shift, wall_ns = {"ns": 0}, time.time_ns
    monkeypatch.setattr(Clock.__init__, "__defaults__", (lambda: wall_ns() + shift["ns"], time.monotonic_ns))
    return shift


def test_the_records_for_mlflow_are_in_the_order_of_their_times(tmp_path, shifted):
    for process in range(3):  # each resume is on a machine whose clock is behind
        shifted["ns"] = -process * HOUR_NS
        spool = Spool(tmp_path)
        spool.read(0, 1000)  # as the tracker does
        for _ in range(3):
            spool.append("metrics", {"number": 0, "step": 0, "values": {}})
            shifted["ns"] -= HOUR_NS
        spool.close()
    times = [json.loads(line)["time_ms"] for line in (tmp_path / SPOOL).read_text().splitlines()]
    assert times == sorted(times)
    assert times[-1] - times[0] < 60_000, "they differ by what has passed, not by what the clock was set"


def test_the_times_of_trials_never_run_backward(tmp_path, shifted):
    for _ in range(3):
        study = open_study(tmp_path / "s", "random")
        number = study.ask().number
        shifted["ns"] -= HOUR_NS
        study.record_epoch(number, 1, {"val_acc": 0.5}, "CONTINUE")
        study.finish(number, "COMPLETE")
        study.close()
        shifted["ns"] -= HOUR_NS
    logs = [json.loads(line) for line in (tmp_path / "s" / JOURNAL).read_text().splitlines()]
    texts = [log[key] for log in logs for key in ("datetime_start", "datetime_complete") if log.get(key)]
    times = [datetime.fromisoformat(text) for text in texts]
    assert len(times) == 6
    assert times == sorted(times)
    assert (times[-1] - times[0]).total_seconds() < 60
