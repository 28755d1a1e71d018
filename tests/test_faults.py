"""Obstacles to a sweep: store, disk, name, another driver. Each gives one error message and damages nothing."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ferhpo
from ferhpo import cli
from ferhpo.config import ComputeSettings
from ferhpo.disk import check_disk
from ferhpo.driver.ray_start import RayStart
from ferhpo.errors import ConfigError, FerhpoError, StorageError, SweepError, TrackingError
from ferhpo.storage.meta import META
from ferhpo.storage.sweep import create_sweep, save_config
from ferhpo.tracking.store import connect
from tests.conftest import TINY
from tests.servers import assert_whole_in_mlflow


@pytest.fixture
def closed_port():
    """A port of this machine on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextlib.contextmanager
def small_disk(folder, num_bytes, options=""):
    """Mount a real file system of this size at `folder`."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}{options}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def composed():
    return ferhpo.compose("demo", [*TINY, "name=mine", "num_trials=2", "tracking=none"])


@pytest.fixture
def existing(composed, tmp_path):
    """A sweep that was created and has no trial yet."""
    return create_sweep(replace(composed, config={**composed.config, "output_dir": str(tmp_path / "mlruns")}))


STEPS = (
    "checking the MLflow store: ",
    "reading the data set",
    "training in float32: ",
)  # what a command says before it refuses


@pytest.fixture
def no_ray(monkeypatch):
    """Fail if Ray is started: the error must come before that."""
    from ferhpo.tuning import sweep

    def start(compute):
        raise AssertionError("Ray was started")

    monkeypatch.setattr(sweep, "RayStart", start)


def refused(capsys, *arguments):
    """Return the error message of a command that exits with status 2."""
    assert cli.main([*map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert all(line.startswith(STEPS) or line.endswith(": checking the configuration") for line in out.splitlines()), (
        out
    )
    return err.rstrip("\n")


@pytest.mark.parametrize("verb", ["sweep", "train"])
def test_a_store_that_cannot_be_reached_at_start(verb, capsys, tiny, tmp_path, closed_port, no_ray):
    message = refused(capsys, verb, "demo", *tiny, f"tracking.uri=http://127.0.0.1:{closed_port}")
    assert message == (
        f"tracking.uri is http://127.0.0.1:{closed_port}: no response within 5 s (connection refused); start the "
        "server, or set tracking.required=false to record to the spool and upload later with `ferhpo sync NAME`"
    )
    assert list(tmp_path.iterdir()) == [], "nothing was made"


@pytest.mark.full
def test_a_store_that_is_not_required_costs_a_warning_and_the_records_wait(warm, tiny, tmp_path, closed_port):
    """The sweep ends normally; `ferhpo sync` uploads everything once there is a store."""
    uri = f"http://127.0.0.1:{closed_port}"
    options = [f"tracking.uri={uri}", "tracking.required=false", "name=away", "trainer.max_epochs=1"]
    result = ferhpo.train("demo", [*tiny, *options])
    assert result.counts == {"COMPLETE": 1}
    assert result.unshipped > 0
    assert result.warnings == [
        f"tracking.uri is {uri}: no response within 5 s (connection refused); records stay in the sweep's folder "
        "until the store is reachable"
    ]
    sweep = ferhpo.load_sweep("away", tmp_path / "mlruns")
    sweep.config["tracking"]["uri"] = None
    save_config(sweep)
    assert ferhpo.sync("away", str(tmp_path / "mlruns")) >= result.unshipped


def test_weights_that_do_not_fit_are_said_once_before_any_trial(capsys, tmp_path, no_ray):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(1)}, path)
    space = ["space.model.arch={choices:[resnet18,resnet34]}", "space.optim.options=[sgd,adam]"]
    options = [f"output_dir={tmp_path / 'mlruns'}", "model=torchvision", f"model.weights={path}", *space]
    fault = f"model.weights is {path}, which belongs to another network: bn1.bias is missing"
    assert refused(capsys, "sweep", "demo", *options) == f"demo: {fault}"
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pth"], "nothing was made"


@pytest.mark.parametrize("verb", ["sweep", "train"])
def test_an_output_folder_below_a_file(verb, capsys, tmp_path, no_ray):
    (tmp_path / "file").touch()
    message = refused(capsys, verb, "demo", *TINY, f"output_dir={tmp_path}/file/mlruns")
    assert message == (
        f"{tmp_path}/file cannot be written (Not a directory); free space on the disk, or set output_dir to a writable folder"
    )


@pytest.mark.parametrize(("verb", "tracking"), [("sweep", "mlflow"), ("sweep", "none"), ("train", "mlflow")])
def test_a_full_disk_at_start(verb, tracking, capsys, tmp_path, no_ray):
    with small_disk(tmp_path / "disk", 64 * 1024) as disk:
        message = refused(capsys, verb, "demo", *TINY, f"output_dir={disk}/mlruns", f"tracking={tracking}")
        assert message == (
            f"{disk} cannot be written (No space left on device); free space on the disk, or set output_dir to a writable "
            "folder"
        )
        assert list(disk.iterdir()) == []


def test_a_disk_that_is_read_only(capsys, tmp_path, no_ray, existing):
    with small_disk(tmp_path / "disk", 2**20, ",ro") as disk:
        message = refused(capsys, "sweep", "demo", *TINY, f"output_dir={disk}/mlruns")
        assert message.startswith(
            f"{disk} cannot be written (Read-only file system); free space on the disk, or set output"
        )


def test_what_is_refused_for_space_at_start_begins_once_there_is_some(tmp_path):
    with small_disk(tmp_path / "disk", 2 * 2**20) as disk:
        (disk / "ballast").write_bytes(bytes(2 * 2**20 - 8192))
        composed = ferhpo.compose("demo", [f"output_dir={disk}/mlruns"])
        with pytest.raises(StorageError, match=r"mlruns/demo cannot be written \(No space left on device\)"):
            create_sweep(composed)
        assert [path for path in (disk / "mlruns").rglob("*") if path.is_file()] == [], "no half file is left"
        (disk / "ballast").unlink()
        check_disk(disk)
        assert create_sweep(composed).name == "demo"


@pytest.mark.full
def test_a_disk_that_fills_up_in_a_training_ends_it_and_resume_goes_on(capsys, tmp_path):
    """The checkpoints of one epoch fit on the disk, those of the next do not fit next to them."""
    with small_disk(tmp_path / "disk", 4 * 2**20) as disk:
        options = [f"output_dir={disk}", "tracking=none", "name=big", "model.width_multiplier=2"]
        message = refused(capsys, "train", "demo", *TINY[:3], "trainer.max_epochs=3", *options)
        assert re.fullmatch(rf"{disk}/big/trials/0000/\w+\.ckpt cannot be written: No space left on device.*", message)
        (trial,) = ferhpo.load_sweep("big", disk).trials()
        assert (trial.state, len(trial.epochs)) == ("RUNNING", 1)
        subprocess.run(["mount", "-o", "remount,size=32m", str(disk)], check=True)
        result = ferhpo.train("big", [f"output_dir={disk}"], resume=True)
        assert result.counts == {"COMPLETE": 1}
        (after,) = result.sweep.trials()
        assert after.epochs[: len(trial.epochs)] == trial.epochs
        assert [row["epoch"] for row in after.epochs] == [1, 2, 3]


@pytest.mark.full
def test_a_disk_that_fills_up_in_a_sweep_ends_it_and_resume_goes_on(warm, tmp_path):
    with small_disk(tmp_path / "disk", 3 * 2**20) as disk:
        first, second = tmp_path / "first.txt", tmp_path / "second.txt"
        options = [*TINY, f"output_dir={disk}", "num_trials=12", "scheduler=none", "trainer.max_epochs=2"]
        options += ["compute.num_cpus=2", "compute.gpus_per_trial=0", "tracking=none", "model.width_multiplier=1"]
        assert warm.run("sweep", "demo", *options, log=first) == 2, first.read_text()
        assert "Traceback" not in first.read_text()
        assert re.fullmatch(
            rf"((trial \d+: )?{disk}/demo/.* cannot be written.*(No space left on device|disk full).*|"
            rf"{disk}/demo has [\d.]+ MB of free space, and the next trials may need [\d.]+ MB)"
            r"; free some space and resume",
            first.read_text().strip().splitlines()[-1],  # a warning precedes it if there was a little space first
        )
        before = ferhpo.load_sweep("demo", disk).trials()
        # How many trials end before the disk is full depends on which two run at the same time.
        assert {"RUNNING"} <= {trial.state for trial in before} <= {"COMPLETE", "RUNNING"}
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        resume = ["--resume", "demo", f"output_dir={disk}", f"num_trials={len(before) + 1}"]
        assert warm.run("sweep", *resume, log=second) == 0, second.read_text()
        after = ferhpo.load_sweep("demo", disk).trials()
        assert {trial.state for trial in after} == {"COMPLETE"}
        assert len(after) == len(before) + 1
        assert [
            trial for trial in after if trial.number < len(before) and before[trial.number].state == "COMPLETE"
        ] == [trial for trial in before if trial.state == "COMPLETE"]


def test_a_name_that_exists_offers_resume(capsys, existing, no_ray):
    folder = existing.folder.parent
    for verb in ("sweep", "train"):
        message = refused(capsys, verb, "demo", "name=mine", f"output_dir={folder}")
        assert message == (
            f"sweep mine already exists in {folder}. Resume with: ferhpo sweep --resume mine output_dir={folder}; "
            "or start a new one with --new (mine-2) or name=..."
        )


def test_a_training_that_exists_is_resumed_by_train(capsys, existing, no_ray):
    meta = json.loads((existing.folder / META).read_text())
    (existing.folder / META).write_text(json.dumps({**meta, "kind": "train"}))
    message = refused(capsys, "train", "demo", "name=mine", f"output_dir={existing.folder.parent}")
    assert f" Resume with: ferhpo train --resume mine output_dir={existing.folder.parent}; or start" in message


def test_a_sweep_is_resumed_by_the_verb_that_made_it(capsys, existing, no_ray):
    message = refused(capsys, "train", "--resume", "mine", f"output_dir={existing.folder.parent}")
    assert message == (f"mine is a sweep. Resume with: ferhpo sweep --resume mine output_dir={existing.folder.parent}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optim.lr=0.1",
            "optim.lr cannot change in a resumed sweep, whose trials must be comparable; only these can: "
            "num_trials, keep_checkpoints, budget, compute, tracking",
        ),
        ("num_trials=0", "num_trials is 0; it must be a whole number of 1 or more"),
        (
            "num_trials=[",
            "override 'num_trials=[' cannot be parsed: a bracket is not closed; write lists as [1, 2] and sections as "
            "{low: 1, high: 2}",
        ),
        (
            "tracking=none",
            "tracking is a config group and cannot be replaced here; set single keys, e.g. tracking.uri=...",
        ),
        ("compute.max_concurent=1", "compute.max_concurent matches no key; did you mean compute.max_concurrent?"),
        ("compute.max_concurrent=0", "compute.max_concurrent is 0; it must be 1 or more, or null"),
    ],
)
def test_a_resume_that_is_refused_changes_nothing(override, message, existing, no_ray):
    before = (existing.folder / META).read_bytes()
    with pytest.raises(ConfigError) as caught:
        ferhpo.sweep("mine", [f"output_dir={existing.folder.parent}", override], resume=True)
    assert caught.value.faults[0] == message
    more = [text.partition(", run: ")[0] for text in caught.value.faults[1:]]
    instead = ["to train its best trials again with these settings", "to search on from its trials"]
    assert more == (instead if override == "optim.lr=0.1" else [])
    assert (existing.folder / META).read_bytes() == before


def test_a_second_driver_is_refused_with_the_first_ones_host_and_process(capsys, existing, no_ray):
    program = (
        "import sys; from pathlib import Path; from ferhpo.storage.lock import FolderLock\n"
        "lock = FolderLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(existing.folder)]
    before = (existing.folder / META).read_bytes()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        message = refused(capsys, "sweep", "--resume", "mine", f"output_dir={existing.folder.parent}", "num_trials=9")
        since = json.loads((existing.folder / "driver.lock").read_text())["since"]
        first.stdin.close()
    assert message == (
        f"sweep mine is being run by process {first.pid} on {socket.gethostname()} since {since}; "
        "wait for it, or stop that process"
    )
    assert (existing.folder / META).read_bytes() == before, "the second driver changed nothing"


def test_of_two_that_start_one_name_together_one_is_refused(composed, tmp_path, monkeypatch):
    """The other one creates the sweep between the check of the folder and the writing."""
    config = {**composed.config, "output_dir": str(tmp_path), "name": "one"}

    def state():
        monkeypatch.setattr("ferhpo.storage.provenance.git_state", dict)
        create_sweep(replace(composed, config={**config, "seed": 77}))
        return {}

    monkeypatch.setattr("ferhpo.storage.provenance.git_state", state)
    with pytest.raises(SweepError, match="sweep one already exists"):
        create_sweep(replace(composed, config=config))
    assert ferhpo.load_sweep("one", tmp_path).config["seed"] == 77
    assert [path.name for path in (tmp_path / "one").iterdir()] == [META]


@pytest.mark.full
def test_a_training_that_fails_is_failed_in_study_and_store(tiny, tmp_path, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("a mistake in user code")

    monkeypatch.setattr("ferhpo.training.steps.module.Classifier.training_step", broken)
    result = ferhpo.train("demo", [*tiny, "name=broken"])
    (trial,) = result.sweep.trials()
    assert (result.counts, trial.state) == ({"FAILED": 1}, "FAILED")
    assert trial.reason.startswith("RuntimeError: a mistake in user code\nTraceback")
    assert_whole_in_mlflow(connect(result.sweep.tracking), result.sweep)


@pytest.mark.parametrize(
    ("raised", "state", "status"),
    [(KeyboardInterrupt, "STOPPED", "KILLED"), pytest.param(ValueError, "FAILED", "FAILED", marks=pytest.mark.full)],
)
def test_whatever_ends_a_sweep_early_leaves_no_run_running(tiny, monkeypatch, raised, state, status):
    def broken(*arguments):
        raise raised

    monkeypatch.setattr("ferhpo.tuning.finish.Counter", broken)
    with pytest.raises(raised) as caught:
        ferhpo.train("demo", [*tiny, "name=early"])
    assert getattr(caught.value, "__notes__", []) == (
        [f"Resume with: ferhpo train --resume early {tiny[-1]}"] if state == "STOPPED" else []
    )
    sweep = ferhpo.load_sweep("early", Path(tiny[-1].partition("=")[2]))
    client = connect(sweep.tracking)
    runs = {run.info.run_name: run for run in client.search_runs(["1"])}
    assert {name: run.info.status for name, run in runs.items()} == {"early": status, "early-000": "FINISHED"}
    assert runs["early"].data.tags["ferhpo.state"] == state


def test_a_ray_that_cannot_be_imported_is_an_error_and_does_not_hang(monkeypatch):
    def broken(compute):
        raise ImportError("no module ray")

    monkeypatch.setattr("ferhpo.driver.ray_cluster.start_ray", broken)
    with pytest.raises(ImportError, match="no module ray"), RayStart(ComputeSettings()) as start:
        start.result()


def test_a_sweep_that_has_not_come_to_a_trial_is_listed(capsys, existing):
    folder = str(existing.folder.parent)
    for arguments in (["runs"], ["runs", "mine"], ["doctor"]):
        assert cli.main([*arguments, "--output-dir", folder, "--json"]) == 0
        json.loads(capsys.readouterr().out)
    assert existing.trials() == existing.leaderboard() == []
    assert existing.best() is None


def test_a_sweep_folder_without_a_record_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SweepError, match=r"there is no sweep empty in .*; there are none yet"):
        ferhpo.load_sweep("empty", tmp_path)


def test_promote_of_a_sweep_without_a_store_is_named(existing):
    with pytest.raises(TrackingError, match=r"tracking\.uri is none; the model registry needs an MLflow store"):
        ferhpo.promote("mine", output_dir=str(existing.folder.parent))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:9", "Connection refused"),
        ("no-such-host.invalid:6379", "Name or service not known"),
    ],
)
def test_a_cluster_that_is_away_is_said_at_once_and_leaves_no_sweep(tiny, tmp_path, address, reason):
    with pytest.raises(
        FerhpoError,
        match=rf"compute.address is {re.escape(address)}: cannot connect to a Ray cluster there \({reason}\); start",
    ):
        ferhpo.sweep("demo", [*tiny, f"compute.address={address}"])
    assert not (tmp_path / "mlruns" / "demo").exists()
