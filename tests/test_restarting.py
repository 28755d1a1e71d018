"""A trial whose checkpoint is damaged, e.g. by a power loss, restarts, reports it, and ends with the same result."""

from pathlib import Path

import pytest
import torch

from ferhpo.components.build import instantiate
from ferhpo.config.compose import compose
from ferhpo.driver.ledger import Ledger
from ferhpo.errors import StorageError
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.tracking import Tracker, TrackingSettings
from ferhpo.trial.run import run_trial
from tests.simulated_sweep import make_sweep

SMALL = ["data.num_train=35", "data.num_val=14", "data.num_test=0", "data.image_size=24", "model.num_blocks=2"]


@pytest.fixture(scope="module")
def config():
    return compose("demo", [*SMALL, "model.width_multiplier=0.05", "trainer.max_epochs=2"]).config


@pytest.fixture(scope="module")
def data(config):
    return instantiate(config["data"], "data")


def weights(folder):
    network = torch.load(folder / "best.ckpt", weights_only=True)["network"]
    return {name: tensor.numpy().tobytes() for name, tensor in network.items()}


@pytest.fixture(scope="module")
def whole(config, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert run_trial(config, data, folder, 7, lambda epoch, row: None).state == "COMPLETE"
    return weights(folder)


@pytest.mark.parametrize(
    "damaged", ["last.ckpt", *(pytest.param(name, marks=pytest.mark.full) for name in ("best.ckpt", "next_best.ckpt"))]
)
def test_a_damaged_checkpoint_costs_the_epochs_and_not_the_trial(config, data, whole, tmp_path, damaged):
    def stop(epoch, row):
        raise SystemExit

    facts, epochs = [], []
    with pytest.raises(SystemExit):
        run_trial(config, data, tmp_path, 7, stop, facts.append)
    (tmp_path / damaged).write_bytes(b"PK" + bytes(1000))
    outcome = run_trial(config, data, tmp_path, 7, lambda epoch, row: epochs.append(epoch), facts.append)
    assert outcome.state == "COMPLETE"
    assert epochs == [1, 2]
    assert weights(tmp_path) == whole
    assert "restarted" not in facts[0]
    assert f"restarted: {tmp_path / damaged} is damaged (" in facts[1]["restarted"]
    assert (tmp_path / "damaged.ckpt").exists()


def test_a_trial_that_began_again_says_so(tmp_path, caplog):
    sweep = make_sweep(tmp_path, "sweep")
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, sweep.objective)
    tracker = Tracker(sweep.folder, TrackingSettings(output_dir=tmp_path))
    tracker.open_sweep("sweep", {}, {}, "")
    ledger = Ledger(sweep, study, tracker, 2)
    ledger.start(ledger.next_trial().number)
    ledger.report_facts(0, {"macs": 5})  # from the previous worker
    ledger.report_facts(0, {"macs": 5, "restarted": "begun again: last.ckpt is damaged (no zip)"})
    ledger.ended(0, "COMPLETE")
    tracker.close(0)
    study.close()
    assert caplog.messages == ["trial 0: begun again: last.ckpt is damaged (no zip)"]
    assert sweep.trials()[0].extra["restarted"] == "begun again: last.ckpt is damaged (no zip)"
    assert '"ferhpo.restarted": "begun again: last.ckpt is damaged (no zip)"' in (
        (sweep.folder / "spool.jsonl").read_text().replace('":"', '": "')
    )


def test_a_disk_that_does_not_answer_makes_no_trial_begin_again(config, data, tmp_path, monkeypatch):
    """A shared folder may fail for a moment: the sweep ends, and a resume continues from the checkpoint."""
    assert run_trial(config, data, tmp_path / "trial", 7, lambda epoch, row: None).state == "COMPLETE"
    before = (tmp_path / "trial" / "last.ckpt").read_bytes()

    def stale(path):
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", stale)
        with pytest.raises(StorageError, match=r"last\.ckpt cannot be read: Stale file handle"):
            run_trial(config, data, tmp_path / "trial", 7, lambda epoch, row: None)
    assert (tmp_path / "trial" / "last.ckpt").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/trial cannot be created: Not a directory"):
        run_trial(config, data, tmp_path / "file" / "trial", 7, lambda epoch, row: None)


@pytest.mark.full
@pytest.mark.parametrize("way", ["replace", "exists"])
def test_a_disk_that_refuses_at_a_rename_ends_the_sweep_and_not_the_trial(config, data, tmp_path, monkeypatch, way):
    original = getattr(Path, way)

    def stale(path, *arguments):
        if path.name == ("next_best.ckpt" if way == "replace" else "last.ckpt"):
            raise OSError(116, "Stale file handle")
        return original(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Path, way, stale)
        with pytest.raises(StorageError, match=r"t\.ckpt cannot be accessed: Stale file handle"):
            run_trial(config, data, tmp_path, 7, lambda epoch, row: None)
    assert run_trial(config, data, tmp_path, 7, lambda epoch, row: None).state == "COMPLETE"
