"""A disk that refuses, even the clean-up: one message and no traceback. Reading needs no permission to write."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ferhpo import cli, disk
from ferhpo.cli.doctor import doctor
from ferhpo.driver.processes.watchdog import Watch
from ferhpo.driver.retention import Keeper
from ferhpo.errors import StorageError
from ferhpo.storage.lock import FolderLock
from ferhpo.tracking.spool import Spool
from tests.reports.made_sweeps import made_sweep
from tests.test_study import open_study


def refuse(number):
    """Return a function that fails as a disk does."""

    def refused(*args, **options):
        raise OSError(number, os.strerror(number), str(args[0]) if args and isinstance(args[0], Path) else None)

    return refused


@pytest.fixture(params=[errno.ENOSPC, errno.EROFS, errno.EIO], ids=["full", "read-only", "broken"])
def number(request):
    return request.param


def test_a_study_that_can_neither_be_written_nor_cut(tmp_path, monkeypatch, number):
    study = open_study(tmp_path / "s", "random")
    trial = study.ask().number
    with monkeypatch.context() as patch:
        patch.setattr("optuna.storages.journal.JournalFileBackend.append_logs", refuse(number))
        patch.setattr(os, "truncate", refuse(number))
        with pytest.raises(StorageError, match=rf"study\.jsonl cannot be written \({os.strerror(number)}\); free"):
            study.record_epoch(trial, 1, {"val_acc": 0.5}, "CONTINUE")
    study.close()
    open_study(tmp_path / "s", "random").close()


def test_a_spool_that_can_neither_be_written_nor_cut(tmp_path, monkeypatch, number):
    spool = Spool(tmp_path)
    monkeypatch.setattr(os, "write", refuse(number))
    monkeypatch.setattr(os, "ftruncate", refuse(number))
    with pytest.raises(StorageError, match=r"spool\.jsonl cannot be written"):
        spool.append("metrics", {})
    monkeypatch.undo()
    spool.close()


def test_a_file_whose_half_cannot_be_removed_either(tmp_path, monkeypatch, number):
    monkeypatch.setattr(Path, "replace", refuse(number))
    monkeypatch.setattr(Path, "unlink", refuse(errno.EPERM))
    with pytest.raises(OSError, match=os.strerror(number)):
        disk.write_json(tmp_path / "a.json", {})
    with pytest.raises(StorageError, match=rf"cannot be written \({os.strerror(number)}\)"):
        made_sweep(tmp_path, [])


def test_a_checkpoint_whose_half_cannot_be_removed_either(tmp_path, monkeypatch, number):
    from ferhpo.training import checkpoint

    monkeypatch.setattr(Path, "write_bytes", refuse(number))
    monkeypatch.setattr(Path, "unlink", refuse(errno.EPERM))
    with pytest.raises(StorageError, match=rf"last\.ckpt cannot be written: {os.strerror(number)}"):
        checkpoint._write(tmp_path / "last.ckpt", {})


def test_a_lock_that_cannot_name_its_holder(tmp_path, monkeypatch):
    with Path("/dev/full").open("w"):
        (tmp_path / "driver.lock").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"cannot be (written|locked) \("):
        FolderLock(tmp_path)


def test_a_trace_that_cannot_be_removed_is_no_failure_of_the_trial(tmp_path, monkeypatch, number):
    watch = Watch(tmp_path, 60.0)
    watch.start()
    monkeypatch.setattr(Path, "unlink", refuse(number))
    watch.close()


def test_checkpoints_that_cannot_be_removed_are_said_once(tmp_path, monkeypatch, caplog, number):
    made = made_sweep(tmp_path, ["COMPLETE"] * 4, overrides=["keep_checkpoints=1"])
    for trial in range(4):
        made.trial_folder(trial).mkdir(parents=True)
        (made.trial_folder(trial) / "best.ckpt").write_text("")
    keeper = Keeper(made, lambda trial: True)
    monkeypatch.setattr(Path, "unlink", refuse(number))
    keeper.tidy(made.trials())
    keeper.tidy(made.trials())
    (message,) = caplog.messages
    assert message.startswith("disk: checkpoints that the sweep no longer needs cannot be removed (")
    assert os.strerror(number) in message
    monkeypatch.setattr(Keeper, "free_bytes", None, raising=False)
    keeper.free_bytes = refuse(number)
    with pytest.raises(StorageError, match="cannot be written"):
        keeper.check_space(1)


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_that_cannot_be_used_is_named(tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, str(tmp_path / "away"))
    with pytest.raises(
        StorageError, match=rf"the temporary folder .*away cannot be written \(No such.*set {variable} to"
    ):
        disk.check_temporary()
    monkeypatch.setenv(variable, str(tmp_path))
    disk.check_temporary()
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse(errno.ENOSPC))
    with pytest.raises(StorageError, match=r"cannot be written \(No space left on device\); free space there, or set"):
        disk.check_temporary()


def test_a_sweep_checks_the_temporary_folder_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "away"))
    for verb in ("sweep", "train"):
        assert cli.main([verb, "demo", f"output_dir={tmp_path / 'runs'}"]) == 2
        assert f"the temporary folder {tmp_path / 'away'} cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_doctor_makes_nothing_and_says_what_is_missing(tmp_path, monkeypatch):
    assert doctor(str(tmp_path / "none"))["store"]["state"] == "does not exist yet; the first sweep creates it"
    assert doctor(str(tmp_path))["store"]["state"] == "does not exist yet; the first sweep creates it"
    monkeypatch.setattr("ferhpo.cli.doctor.find_spec", lambda name: None)
    assert doctor(str(tmp_path))["store"]["state"].startswith("MLflow is not installed; install it")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mlflow.db").write_text("not a database at all, which is longer than a header of SQLite, and so on")
    assert doctor(str(tmp_path))["store"]["state"].startswith("the database cannot be read (file is not a database")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


SCRIPT = """
import sys, traceback
from ferhpo.cli import main
folder = sys.argv[1]
for verb in ("doctor", "runs", "runs made", "evaluate made", "report made", "sync made", "promote made"):
    print("VERB", verb, "->", main([*verb.split(), "--output-dir", folder]), flush=True)
for verb in ("check demo", "sweep --resume made", "sweep demo", "train demo"):
    print("VERB", verb, "->", main([*verb.split(), f"output_dir={folder}"]), flush=True)
"""
AS_ANOTHER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]  # root without its privileges
is_root = os.getuid() == 0


@pytest.mark.full
@pytest.mark.skipif(is_root and shutil.which("setpriv") is None, reason="root may read everything")
@pytest.mark.parametrize("kind", ["read-only", "folder", "sweep", "files"])
def test_the_folder_of_another_user_is_answered_without_a_traceback(tmp_path, kind):
    folder = tmp_path / "runs"
    made = made_sweep(folder, ["COMPLETE", "RUNNING"])
    paths = [folder, *folder.rglob("*")]
    closed = {"read-only": [], "folder": [folder], "sweep": [made.folder], "files": [p for p in paths if p.is_file()]}
    for path in reversed(paths):
        mode = (0o700 if path.is_dir() else 0o600) if path in closed[kind] else 0o755
        if is_root:
            os.chown(path, 65534, 65534)
            path.chmod(mode)
        else:
            path.chmod(0 if path in closed[kind] else 0o555)
    command = [*(AS_ANOTHER if is_root else []), sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
    for path in paths:
        path.chmod(0o755)
    output = done.stdout + done.stderr
    assert "Traceback" not in output, output
    assert done.stdout.count("VERB") == 11, output
    assert "VERB check demo -> 0" in done.stdout
    assert "VERB sweep --resume made -> 2" in done.stdout
    if kind == "read-only":
        assert "VERB runs made -> 0" in done.stdout
        assert "VERB doctor -> 0" in done.stdout
    assert sorted(folder.rglob("*")) == sorted(paths[1:]), "nothing was made"
    assert not [path for path in folder.rglob("*") if path.name == "mlflow.db"]


@pytest.mark.full
def test_a_user_without_a_home_folder_runs_a_sweep(tmp_path):
    """As in many containers: Ray wants to keep a token there, matplotlib its fonts, ferhpo its cache."""
    ferhpo = shutil.which("ferhpo", path=str(Path(sys.executable).parent))
    small = ["data.num_train=140", "data.num_val=70", "data.num_test=14", "trainer.max_epochs=1", "num_trials=1"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "XDG_", "FERHPO_"))}
    environment["HOME"] = "/proc/none"
    done = subprocess.run(
        [ferhpo, "sweep", "demo", *small], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    assert "Registered ferhpo-demo version 1" in done.stdout
    assert "/proc/none" not in done.stdout + done.stderr
