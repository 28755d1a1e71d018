"""Fixtures that many tests share: a tiny sweep on drawn faces, in a temporary folder. And the options of the rounds of
random kills (test_random_kills.py)."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from ferhpo.addresses import trust
from ferhpo.components import own_code

# As in an activated environment: messages name the command as `ferhpo`.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
# One thread a process: tests share two cores with Ray's workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No key of whoever runs the tests signs or is trusted.
os.environ["FERHPO_KEYS_DIR"] = str(Path(tempfile.gettempdir()) / "ferhpo-tests-have-no-keys")

TINY = [
    "data.num_train=140",
    "data.num_val=70",
    "data.num_test=14",
    "model.width_multiplier=0.02",
    "trainer.batch_size=32",
    "trainer.max_epochs=3",
    "tracking.report=false",
]


def pytest_addoption(parser):
    group = parser.getgroup("random kills")
    group.addoption("--fault-rounds", default="0-4", help="numbers of the rounds, as 17 or 0-199 (default: 0-4)")
    group.addoption(
        "--fault-log", help="a file with a JSON line a round; rounds that passed there are not played again"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "faults: random kills (make test-faults)")


def pytest_collection_modifyitems(items):
    """Files with long tests first: what is left for the end then takes both processes."""
    long = {item.path for item in items if item.get_closest_marker("full")}
    items.sort(key=lambda item: item.path not in long)


def pytest_terminal_summary(terminalreporter, config):
    reports = [report for name in ("passed", "failed") for report in terminalreporter.getreports(name)]
    rows = [dict(report.user_properties).get("fault_round") for report in reports if report.when == "call"]
    rows = {row["number"]: row for row in rows if row is not None}
    if rows or config.getoption("fault_log"):
        from tests.faults import summary

        terminalreporter.section("random kills")
        for line in summary.lines({**summary.read(config.getoption("fault_log")), **rows}.values()):
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def interpreter():
    from tests.processes import Interpreter

    interpreter = Interpreter()
    yield interpreter
    interpreter.close()


@pytest.fixture(scope="module")
def warm(interpreter):
    """Starts `ferhpo` commands without the ten seconds of imports; a test file's Ray workers start so too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in interpreter.environment.items():
            patch.setenv(name, value)
        yield interpreter


@pytest.fixture(autouse=True)
def no_trust():
    """What a test allows, no other test may call."""
    yield
    own_code.forget()
    trust.forget()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """The database of an MLflow store without experiments. Creating its tables takes seconds."""
    from ferhpo.tracking import TrackingSettings
    from ferhpo.tracking.store import connect

    settings = TrackingSettings(output_dir=tmp_path_factory.mktemp("store"))
    connect(settings)
    return settings.sqlite_path


@pytest.fixture
def tiny(tmp_path):
    """Overrides that make any sweep on drawn faces take seconds, with everything it writes under tmp_path."""
    return [*TINY, f"output_dir={tmp_path / 'mlruns'}"]
