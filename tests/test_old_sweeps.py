"""Sweep folders written by earlier versions still work: they are read, resumed, evaluated, reported.

tests/old/sweeps-0.1.0.tar.xz holds `killed`, a training whose process was killed after six epochs, and `done`, a sweep of three
trials, both of `demo` with tiny networks and tracking=none, as version 0.1.0 wrote them.
"""

import json
import tarfile
from pathlib import Path

import pytest

import ferhpo
from ferhpo import cli

NUM_EPOCHS = 12
ARCHIVE = Path(__file__).parent / "old" / "sweeps-0.1.0.tar.xz"


@pytest.fixture
def old(tmp_path, monkeypatch):
    """The output folder of the archive, where the archive was unpacked."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    for path in tmp_path.glob("mlruns/*/sweep.json"):
        meta = json.loads(path.read_text())
        config = meta["composed"]["config"]
        config["output_dir"] = str(tmp_path / "mlruns")
        if meta["kind"] == "train":
            config["trainer"]["max_epochs"] = NUM_EPOCHS  # it was started with 200, to be killed in time
        path.write_text(json.dumps(meta))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mlruns"


def test_a_killed_training_is_resumed(old):
    before = ferhpo.load_sweep("killed", old).trials()[0]
    assert (before.state, len(before.epochs)) == ("RUNNING", 6)
    result = ferhpo.train("killed", [f"output_dir={old}"], resume=True)
    (trial,) = result.sweep.trials()
    assert (trial.state, len(trial.epochs)) == ("COMPLETE", NUM_EPOCHS)
    assert trial.epochs[:6] == before.epochs
    assert [row["epoch"] for row in trial.epochs] == list(range(1, NUM_EPOCHS + 1))


@pytest.mark.full
def test_a_finished_sweep_is_read_evaluated_and_reported(old, capsys):
    assert ferhpo.list_sweeps(old)[0]["counts"] == {"COMPLETE": 1, "PRUNED": 2}
    best = ferhpo.load_sweep("done", old).best()
    found = ferhpo.evaluate("done", output_dir=old)
    assert found.scores.all.acc == pytest.approx(best.value)
    assert cli.main(["runs", "done", "--output-dir", str(old)]) == 0
    assert f"{best.value:.4f}" in capsys.readouterr().out
    assert ferhpo.report("done", output_dir=old).stat().st_size > 10_000
