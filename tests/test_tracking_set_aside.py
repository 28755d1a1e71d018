"""Records that can never be uploaded do not stop the others, and nothing outside a sweep's folder is uploaded."""

import json
import math
import os
import shutil

import pytest

from ferhpo.tracking import Tracker, TrackingSettings, num_unshipped, rejected_text, sync
from ferhpo.tracking.spool import Spool
from ferhpo.tracking.upload import shipper
from ferhpo.tracking.upload.files import fault_of_name, fault_of_path
from ferhpo.tracking.upload.runs import RunWriter
from ferhpo.tracking.upload.shipped import Shipped
from tests.test_tracking import WAIT_SECONDS, runs_of

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def settings(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return TrackingSettings(output_dir=tmp_path)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(shipper, "_PAUSES_OF_A_RECORD", (0.0, 0.0))


def rejected(folder):
    path = folder / "rejected.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def record(folder, settings, **values):
    tracker = Tracker(folder, settings)
    tracker.open_sweep("demo", {}, {}, "")
    tracker.open_trial(0, {"optim.lr": 0.1}, {})
    return tracker


def test_files_that_cannot_be_stored_are_set_aside_and_uploaded_by_sync(tmp_path, settings, caplog):
    """The folder of artifacts cannot be written, the database can."""
    folder = tmp_path / "demo"
    (tmp_path / "artifacts").write_text("a file where the folder of artifacts should be")
    tracker = record(folder, settings)
    for number in range(3):
        tracker.log_text(0, "a", f"a{number}.txt")
    tracker.log_epoch(0, 1, {"val_acc": 0.5})
    tracker.close_trial(0, "COMPLETE")
    tracker.start()
    assert tracker.flush(WAIT_SECONDS) == 0, "the records behind them are uploaded"
    assert not tracker.is_shipped(0), "its files are still needed"
    tracker.close(5)
    client, runs = runs_of(settings)
    assert runs["demo-000"].data.metrics == {"val_acc": 0.5}
    assert runs["demo-000"].info.status == "FINISHED"
    assert [(entry["seq"], entry["path"], entry["set_aside"]) for entry in rejected(folder)] == [
        (3, "a0.txt", True), (4, "a1.txt", True), (5, "a2.txt", True),
    ]  # fmt: skip
    text = rejected_text(folder, "ferhpo sync demo")
    assert text.startswith("3 records could not be uploaded (")
    assert text.endswith("try again with: ferhpo sync demo")
    assert len([message for message in caplog.messages if "cannot upload" in message]) == 1, (
        "one warning for one reason"
    )

    assert sync(folder, settings) == 1, "the end of the sweep's run"
    assert len(rejected(folder)) == 3
    (tmp_path / "artifacts").unlink()
    assert sync(folder, settings) == 3
    assert rejected_text(folder, "ferhpo sync demo") == ""
    assert len(client.list_artifacts(runs["demo-000"].info.run_id)) == 3
    assert Tracker(folder, settings).is_shipped(0)


@pytest.mark.full
def test_a_store_that_takes_nothing_sets_nothing_aside(tmp_path, settings, monkeypatch):
    folder = tmp_path / "demo"
    tracker = record(folder, settings)
    tracker.start()
    assert tracker.flush(WAIT_SECONDS) == 0
    (tmp_path / "mlflow.db").rename(tmp_path / "away.db")
    (tmp_path / "mlflow.db").mkdir()  # no database can be opened there
    monkeypatch.setattr(RunWriter, "_write", lambda self, record: (_ for _ in ()).throw(OSError("down")))
    monkeypatch.setattr(RunWriter, "accepts_others", lambda self: False)
    tracker.log_epoch(0, 1, {"val_acc": 0.5})
    assert tracker.flush(4) == 1
    assert rejected(folder) == []
    monkeypatch.undo()
    (tmp_path / "mlflow.db").rmdir()
    (tmp_path / "away.db").rename(tmp_path / "mlflow.db")
    assert tracker.flush(WAIT_SECONDS) == 0
    tracker.close(5)


def test_values_that_cannot_be_encoded_do_not_stop_the_others(tmp_path, settings):
    folder = tmp_path / "demo"
    tracker = record(folder, settings)
    tracker.set_tags(0, {"odd": "a\udcffb\0c", "good": "x"})
    tracker.log_text(0, "caf\udce9 ok 😀", "a.txt")
    tracker.log_epoch(0, 1, {"val_acc": 0.5, "inf": math.inf, "nan": math.nan, "k" * 300: 1.0, "../x": 2.0})
    tracker.log_epoch(0, 2**70, {"val_acc": 0.6})
    tracker.open_trial(1, {"long": "y" * 10_000, "a!b": 1}, {"long": "z" * 10_000})
    tracker.close_trial(1, "COMPLETE")
    tracker.close_trial(0, "COMPLETE")
    tracker.close_sweep("COMPLETE", "n" * 100_000)
    tracker.start()
    assert tracker.close(WAIT_SECONDS) == 0
    client, runs = runs_of(settings)
    run = runs["demo-000"]
    assert run.data.tags["odd"] == "a\\udcffb\\x00c"
    assert run.data.tags["good"] == "x"
    assert run.data.metrics["val_acc"] == 0.5
    assert math.isnan(run.data.metrics["nan"])
    assert run.data.metrics["inf"] > 1e308
    text = client.download_artifacts(run.info.run_id, "a.txt", str(tmp_path))
    assert (tmp_path / "a.txt").read_text() == "caf\\udce9 ok 😀", text
    assert {one.info.status for one in runs.values()} == {"FINISHED"}
    assert sorted((entry["kind"], entry["key"][:4]) for entry in rejected(folder)) == [
        ("metric", "../x"), ("metric", "kkkk"), ("metric", "val_"), ("param", "a!b"),
    ]  # fmt: skip


def test_a_trial_whose_run_cannot_be_created_is_set_aside_whole_and_comes_with_sync(
    tmp_path, settings, monkeypatch
):  # fmt: skip
    folder = tmp_path / "demo"
    tracker = record(folder, settings)
    tracker.open_trial(1, {"a": 1}, {"t": "x"})
    tracker.log_epoch(1, 1, {"val_acc": 0.7})
    tracker.close_trial(1, "COMPLETE")
    tracker.close_trial(0, "COMPLETE")
    tracker.close_sweep("COMPLETE", "")
    open_run = RunWriter._open_run

    def refuse(self, run, record):
        if run == "1":
            raise OSError("no luck")
        open_run(self, run, record)

    monkeypatch.setattr(RunWriter, "_open_run", refuse)
    tracker.start()
    assert tracker.close(WAIT_SECONDS) == 0
    assert set(runs_of(settings)[1]) == {"demo", "demo-000"}
    assert [entry["reason"] for entry in rejected(folder)] == ["no luck", *["its run was not created"] * 2]
    monkeypatch.undo()
    assert sync(folder, settings) == 3
    run = runs_of(settings)[1]["demo-001"]
    assert (run.info.status, run.data.metrics, run.data.params) == ("FINISHED", {"val_acc": 0.7}, {"a": "1"})
    assert rejected(folder) == []


def test_a_later_value_is_not_undone_by_sync(tmp_path, settings, monkeypatch):
    folder = tmp_path / "demo"
    tracker = record(folder, settings)
    tracker.set_tags(0, {"t": "old"})
    tracker.set_tags(0, {"t": "new"})
    tracker.start()
    assert tracker.close(WAIT_SECONDS) == 0
    (folder / "rejected.jsonl").write_text(
        json.dumps({"seq": 3, "kind": "tag", "run": "0", "key": "t", "value": "old", "reason": "r"}) + "\nnot json\n7\n"
    )
    assert sync(folder, settings) == 3  # the entry, and the runs that were still open
    assert runs_of(settings)[1]["demo-000"].data.tags["t"] == "new"
    assert rejected(folder) == []


SHIPPED = [
    "", "{", "[1]", "7", "null", '"text"', "{}", '{"store": 7, "experiment": "ferhpo"}', "[" * 100_000,
    {"seq": "x"}, {"seq": -1}, {"offset": 10**9}, {"offset": 3}, {"seq": 1}, {"seq": 9}, {"runs": {"": 7}}, {"runs": []},
    {"models": "m"}, {"in_doubt": [1]}, {"sweep_id": 7}, {"future": {"any": 1}},
]  # fmt: skip


def test_a_damaged_position_is_the_start_of_the_spool(tmp_path):
    settings = TrackingSettings(output_dir=tmp_path)
    folder = tmp_path / "demo"
    record(folder, settings).close(0)
    path = folder / "spool.shipped.json"
    whole = Shipped(path, settings.shown_uri, "ferhpo", seq=2, offset=(folder / "spool.jsonl").stat().st_size)
    whole.save()
    saved = json.loads(path.read_text())
    assert num_unshipped(folder, settings) == 0
    for content in SHIPPED:
        path.write_text(content if isinstance(content, str) else json.dumps({**saved, **content}))
        tracker = Tracker(folder, settings)
        is_valid = content == {"future": {"any": 1}}
        assert tracker.unshipped == (0 if is_valid else 2), content
        assert num_unshipped(folder, settings) in (0, 1, 2)
        tracker.close(0)
    path.unlink()
    path.mkdir()
    assert num_unshipped(folder, settings) == 2


def test_records_after_a_damaged_position_are_uploaded_once(tmp_path, settings):
    folder = tmp_path / "demo"
    record(folder, settings).close(0)
    sync(folder, settings)
    path = folder / "spool.shipped.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "offset": 3, "future": 1}))
    assert sync(folder, settings) == 4
    assert num_unshipped(folder, settings) == 0
    assert set(runs_of(settings)[1]) == {"demo", "demo-000"}


def test_sync_uploads_only_files_inside_the_folder(tmp_path, settings):
    folder = tmp_path / "demo"
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    tracker = record(folder, settings)
    (folder / "inside.txt").write_text("inside")
    tracker.log_artifact(0, secret)  # recorded by ferhpo itself: copied into the folder
    tracker.close_trial(0, "COMPLETE")
    tracker.close(0)
    (folder / "link").symlink_to(secret)
    (folder / "model").mkdir()
    (folder / "model" / "weights").symlink_to(secret)
    (folder / "up").symlink_to(tmp_path)
    (folder / "circle").symlink_to(folder / "circle")
    (folder / "near").symlink_to(folder / "inside.txt")
    os.mkfifo(folder / "pipe")
    spool = Spool(folder)
    bad = [
        str(secret),
        "../secret.txt",
        "x/../../secret.txt",
        "link",
        "model",
        "up/secret.txt",
        "circle",
        "pipe",
        "a\0b",
    ]
    for path in [*bad, "near", "inside.txt"]:
        spool.append("artifact", {"number": 0, "path": path, "folder": ""})
    for path, place in (("inside.txt", "../../evil"), ("inside.txt", "/evil")):
        spool.append("artifact", {"number": 0, "path": path, "folder": place})
    spool.append("text", {"number": 0, "text": "evil", "file": "../../../evil.txt"})
    spool.append("fold", {
        "number": 0, "fold": 0, "epochs": [], "once": {}, "path": str(secret), "user": "u",
    })  # fmt: skip
    spool.append("model", {"number": 0, "path": "../secret.txt"})
    spool.close()
    sync(folder, settings)
    client, runs = runs_of(settings)
    names = sorted(file.path for file in client.list_artifacts(runs["demo-000"].info.run_id))
    assert names == ["inside.txt", "near", "secret.txt"]
    assert client.list_artifacts(runs["demo-000-fold0"].info.run_id) == []
    assert not list(tmp_path.rglob("*evil*"))
    refused = [entry["path"] for entry in rejected(folder)]
    assert refused == [*bad, "inside.txt", "inside.txt", "../../../evil.txt", str(secret), "../secret.txt"]
    assert all("secret" not in path.read_text() for path in (tmp_path / "artifacts").rglob("*") if path.name == "link")


def test_faults_of_files_are_named(tmp_path):
    assert "outside the sweep's folder" in fault_of_path(tmp_path, "../x")
    assert fault_of_path(tmp_path, "x") == "the file was removed before it was uploaded"
    assert fault_of_name("a/b.txt") == fault_of_name("") == ""
    assert fault_of_name("a/../b") != ""
