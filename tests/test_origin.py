"""What a sweep that was copied from somebody may not choose: a server and the files that would be sent to it."""

import json
import stat

import pytest

from ferhpo import cli
from ferhpo.config.input.origin import MARK, SECRET, is_own
from ferhpo.errors import ConfigError, SweepError
from ferhpo.storage.commands import command, resume_command
from ferhpo.storage.sweep import load_sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tuning.preflight import resumed
from tests.reports.made_sweeps import made_sweep
from tests.test_trust import edit

SERVER = "http://127.0.0.2:8122"


@pytest.fixture(autouse=True)
def secret(tmp_path, monkeypatch):
    monkeypatch.setenv("FERHPO_KEYS_DIR", str(tmp_path / "keys"))
    return tmp_path / "keys" / SECRET


@pytest.fixture
def sweep(tmp_path):
    return made_sweep(tmp_path / "runs", ["COMPLETE", "RUNNING"])


def resume(sweep, *overrides):
    return resumed(sweep.name, [*overrides, f"output_dir={sweep.folder.parent}"], "sweep")


CHOSEN = [
    ({"data": {"path": "/home/me/private"}}, "data.path is '/home/me/private'"),
    ({"model": {"weights": "/home/me/private.pt"}}, "model.weights is '/home/me/private.pt'"),
    (
        {"space": {"model": {"weights": {"choices": ["none", "/home/me/private.pt"]}}}},
        "space.model.weights.choices is ",
    ),
    ({"data": {"parts": [{"path": "/home/me/private"}]}}, "data.parts.0.path is '/home/me/private'"),
]


@pytest.mark.parametrize(("sections", "named"), CHOSEN, ids=[named for _, named in CHOSEN])
def test_a_copied_sweep_sends_no_file_that_it_chooses(sweep, sections, named):
    edit(sweep, **sections, tracking={"uri": SERVER})
    with pytest.raises(ConfigError) as caught:
        resume(sweep)
    (fault,) = [fault for fault in caught.value.faults if named in fault]
    assert f"would be sent to {SERVER}, and this user did not start the sweep here" in fault
    assert f"add tracking.uri={SERVER} to the command line" in fault
    resume(sweep, f"tracking.uri={SERVER}")


def test_what_the_user_names_is_read(sweep):
    edit(sweep, data={"path": "/home/me/private"}, tracking={"uri": SERVER})
    assert resume(sweep, "data.path=/home/me/faces").config["data"]["path"] == "/home/me/faces"


def test_a_listed_sample_is_no_way_around(sweep):
    path = sweep.folder / "sweep.json"
    meta = json.loads(path.read_text())
    meta["listed"] = [{"sample": {"confirm.candidate": 0, "model.weights": "/home/me/private.pt"}, "seed": 1}]
    meta["composed"]["config"]["tracking"]["uri"] = SERVER
    path.write_text(json.dumps(meta))
    with pytest.raises(ConfigError, match=r"model\.weights is '/home/me/private\.pt'"):
        resume(sweep)


def test_a_confirmation_of_a_copied_sweep_neither(sweep, capsys):
    edit(sweep, data={"path": "/home/me/private"}, tracking={"uri": SERVER})
    assert cli.main(["confirm", sweep.name, "--output-dir", str(sweep.folder.parent)]) == 2
    assert "this user did not start the sweep here" in capsys.readouterr().err


def test_a_confirmation_takes_no_sample_that_the_space_does_not_have(sweep, capsys):
    """What a stranger wrote into the study would become a listed sample of a sweep of one's own."""
    journal = sweep.folder / "study.jsonl"
    trial = sweep.trials()[0]
    path = next(draw.path for draw in sweep.space().draws if not draw.repeat)
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    samples = [
        value for record in records for value in record.values() if isinstance(value, dict) and "sample" in value
    ]
    assert samples
    assert path in trial.sample
    for attributes in samples:
        attributes["sample"][path] = "/home/me/private.pt"
    journal.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert cli.main(["confirm", sweep.name, "--output-dir", str(sweep.folder.parent)]) == 2
    assert "which the space does not have; the study was edited" in capsys.readouterr().err
    assert not (sweep.folder.parent / f"{sweep.name}-confirm").exists()


def test_ones_own_sweep_is_resumed_without_a_word(tmp_path, secret, monkeypatch):
    """It was started with a server and a file that the user named; the mark says so until the settings change."""
    from ferhpo.storage.sweep import create_sweep, save_config

    made = made_sweep(tmp_path / "runs", ["COMPLETE"])
    config = made.config
    config["name"] = "own"
    config["data"]["path"], config["tracking"]["uri"] = "/home/me/private", SERVER
    own = create_sweep(made.composed)
    assert is_own(own.meta)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    again = resume(own, "data.path=/home/me/moved")
    save_config(again)
    assert is_own(load_sweep(own.folder).meta)
    resume(load_sweep(own.folder))
    edit(own, data={"path": "/home/me/other"})
    with pytest.raises(ConfigError, match="this user did not start the sweep here"):
        resume(own)
    edit(own, data={"path": "/home/me/moved"})
    resume(own)
    monkeypatch.setenv("FERHPO_KEYS_DIR", str(tmp_path / "of another user"))
    with pytest.raises(ConfigError, match="this user did not start the sweep here"):
        resume(own)


def test_a_folder_of_keys_that_cannot_be_written_stops_no_sweep(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FERHPO_KEYS_DIR", str(tmp_path / "file" / "keys"))
    made = made_sweep(tmp_path / "runs2", ["COMPLETE"])
    assert made.meta[MARK] == ""
    assert not is_own(made.meta)
    resume(made)


@pytest.mark.parametrize("key", ["model.weights", "seed", "trainer.callbacks", "confirm.sweep"])
def test_a_sample_has_only_what_the_space_varies(sweep, key):
    trial = sweep.trials()[0]
    edited = TrialRecord(0, trial.state, {**trial.sample, key: "/home/me/private.pt"}, 1, space=sweep.space)
    with pytest.raises(SweepError, match=f"the sample of trial 0 has {key}, which the space does not vary"):
        _ = edited.config
    assert trial.config["name"] == sweep.config["name"]


def test_a_sampled_text_is_a_choice_of_its_draw(sweep):
    trial = sweep.trials()[0]
    path = next(draw.path for draw in sweep.space().draws if not draw.repeat)
    edited = TrialRecord(0, trial.state, {**trial.sample, path: "/home/me/private.pt"}, 1, space=sweep.space)
    with pytest.raises(SweepError, match=r"has '/home/me/private\.pt' for .*, which the space does not have"):
        _ = edited.config


def test_no_printed_command_has_an_option_that_a_folder_or_a_recipe_chose(sweep, tmp_path):
    path = sweep.folder / "sweep.json"
    meta = json.loads(path.read_text())
    meta["composed"]["name"] = "--config-dir=evil"
    path.write_text(json.dumps(meta))
    with pytest.raises(ConfigError) as caught:
        resume(sweep, "optim.lr=0.1")
    printed = [fault for fault in caught.value.faults if "ferhpo sweep" in fault]
    assert printed
    assert all("ferhpo sweep ./--config-dir=evil " in fault for fault in printed)
    assert command("runs", tmp_path / "mlruns" / "--notify=x").startswith("ferhpo runs ./--notify=x ")
    assert "--resume ./--notify=x " in resume_command("sweep", tmp_path / "mlruns" / "--notify=x")
