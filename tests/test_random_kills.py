"""Sweeps whose drivers, workers and MLflow server are killed at random moments: `make test-faults`.

Each round is drawn from its number (tests/faults/rounds.py) and ends with the same checks (tests/faults/checks.py). A
round that fails keeps its folder, and `--fault-rounds NUMBER` repeats it.
"""

import shutil
import signal
import time
from dataclasses import asdict

import pytest

from tests.faults import checks, summary
from tests.faults.place import Place
from tests.faults.player import Player
from tests.faults.rounds import draw

pytestmark = [pytest.mark.full, pytest.mark.faults, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def place():
    before = signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # so that `timeout` leaves nothing running either
    place = Place()
    yield place
    place.close()
    signal.signal(signal.SIGTERM, before)


def pytest_generate_tests(metafunc):
    if "number" in metafunc.fixturenames:
        first, _, last = metafunc.config.getoption("fault_rounds").partition("-")
        metafunc.parametrize("number", range(int(first), int(last or first) + 1))


def test_whatever_is_killed_nothing_is_lost_or_doubled(number, place, tmp_path, request, record_property):
    log = request.config.getoption("fault_log")
    if summary.read(log).get(number, {}).get("passed"):
        pytest.skip("passed before")
    drawn = draw(number)
    start = time.monotonic()
    player = Player(drawn, place, tmp_path)
    played = player.play()
    counts, check_complaints, num_reports = {}, [], 0
    if not played.complaints:
        if checks.upload_the_rest(tmp_path / "mlruns") and drawn.finish:
            player.resume()  # a sweep that ended while its server was down registers its model now
        counts, check_complaints = checks.check(drawn, played.seen, tmp_path / "mlruns")
        num_reports = sum(len(trial.reports) for trial in played.seen[-1])
    complaints = [*played.complaints, *check_complaints]
    if "Traceback" in player.log.read_text():
        complaints.append("a driver printed a traceback")
    row = asdict(drawn) | {
        "faults": played.faults,
        "statuses": played.statuses,
        "seconds": round(time.monotonic() - start, 1),
        "num_ended": len(played.seen[-1]) if played.seen else 0,
        "num_reports": num_reports,
        "counts": counts,
        "complaints": complaints,
        "passed": not complaints,
    }
    summary.append(log, row)
    record_property("fault_round", row)
    message = "\n  ".join([f"round {number}, in {tmp_path}:", *complaints, f"round: {row}"])
    assert not complaints, f"{message}\n{player.log.read_text()[-4000:]}"
    shutil.rmtree(tmp_path)
