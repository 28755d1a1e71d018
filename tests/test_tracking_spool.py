"""The spool: incomplete lines, full disks, two writers. Tracking settings, and the check of a store before a sweep."""

import json
import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import pytest
from hypothesis import strategies as st

from ferhpo.addresses.trust import trust_address
from ferhpo.errors import ConfigError, StorageError, TrackingError
from ferhpo.tracking import Tracker, TrackingSettings, check_store, param_text, redact
from ferhpo.tracking.spool import Spool
from ferhpo.tracking.upload.shipped import Shipped

VALUES = st.one_of(st.text(max_size=20), st.floats(), st.integers(), st.none(), st.dictionaries(st.text(), st.text()))


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(values=st.lists(VALUES, max_size=6), cut=st.floats(0, 1))
def test_a_spool_truncated_at_any_byte_reopens_with_its_complete_records(tmp_path_factory, values, cut):
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder)
    for value in values:
        spool.append("op", {"value": value})
    whole, size = spool.read(0, 100)
    spool.close()
    os.truncate(spool.path, int(cut * size))

    reopened = Spool(folder)
    kept, end = reopened.read(0, 100)
    assert repr(kept) == repr(whole[: len(kept)])  # repr: NaN is not equal to itself
    assert end == spool.path.stat().st_size
    assert len(kept) == reopened.last_seq
    if cut == 1:
        assert len(kept) == len(values)
    assert reopened.append("next", {})["seq"] == len(kept) + 1
    assert [record["seq"] for record in reopened.read(0, 100)[0]] == list(range(1, len(kept) + 2))
    reopened.close()


def test_a_long_incomplete_line_is_removed(tmp_path):
    spool = Spool(tmp_path)
    spool.append("text", {"text": "a" * 200_000})
    spool.append("text", {"text": "b" * 200_000})
    spool.close()
    os.truncate(spool.path, spool.path.stat().st_size - 7)
    reopened = Spool(tmp_path)
    assert reopened.last_seq == 1
    assert reopened.path.read_bytes().endswith(b'a"}\n')
    reopened.close()


def test_a_full_disk_is_a_storage_error_and_leaves_no_incomplete_line(tmp_path, monkeypatch):
    spool = Spool(tmp_path)
    spool.append("op", {})
    before = spool.path.read_bytes()
    real_write = os.write
    # A full disk that accepts half of a line is simulated in the system call.
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[: len(data) // 2]))
    with pytest.raises(StorageError, match=r"spool\.jsonl cannot be written \(disk full\); free some space and resume"):
        spool.append("op", {"value": "lost"})
    monkeypatch.undo()
    assert spool.path.read_bytes() == before
    assert spool.append("op", {})["seq"] == 2
    spool.close()


def test_a_second_writer_is_refused(tmp_path):
    spool = Spool(tmp_path)
    with pytest.raises(TrackingError, match="is in use by a running sweep or ferhpo sync, which uploads its records"):
        Spool(tmp_path)
    spool.close()
    Spool(tmp_path).close()


def test_a_damaged_line_in_the_middle_is_an_error_with_its_offset(tmp_path):
    spool = Spool(tmp_path)
    for _ in range(3):
        spool.append("op", {})
    lines = spool.path.read_bytes().splitlines(keepends=True)
    spool.path.write_bytes(lines[0] + b"}{\n" + lines[2])
    with pytest.raises(TrackingError, match=f"the line at byte {len(lines[0])} is damaged .*; delete this line"):
        spool.read(0, 10)
    spool.close()


def test_an_upload_position_for_another_store_is_ignored(tmp_path):
    Shipped(tmp_path / "spool.shipped.json", "sqlite:////a.db", "ferhpo", seq=5, offset=99, runs={"": "r"}).save()
    assert Shipped.load(tmp_path, "sqlite:////a.db", "ferhpo").seq == 5
    assert Shipped.load(tmp_path, "sqlite:////b.db", "ferhpo").seq == 0
    assert Shipped.load(tmp_path, "sqlite:////a.db", "other").runs == {}
    (tmp_path / "spool.shipped.json").write_text("")
    assert Shipped.load(tmp_path, "sqlite:////a.db", "ferhpo").seq == 0


def test_an_epoch_is_recorded_once_even_after_reopening(tmp_path):
    settings = TrackingSettings(output_dir=tmp_path)
    for epochs in (range(1, 4), range(2, 6)):
        tracker = Tracker(tmp_path / "s", settings)
        tracker.open_sweep("s", {}, {}, "")
        tracker.open_trial(0, {}, {})
        for epoch in epochs:
            tracker.log_epoch(0, epoch, {"val_acc": epoch / 10})
        tracker.close(0)
    records = [json.loads(line) for line in (tmp_path / "s" / "spool.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records if r["op"] == "metrics"] == [1, 2, 3, 4, 5]
    assert len({r["sweep_id"] for r in records if r["op"] == "open_sweep"}) == 1


def test_recording_an_epoch_takes_less_than_two_milliseconds(tmp_path):
    """A driver may get more than 20 epochs per second, and recording must not slow it down."""
    tracker = Tracker(tmp_path / "s", TrackingSettings(output_dir=tmp_path))
    tracker.open_sweep("s", {}, {}, "")
    tracker.open_trial(0, {}, {})
    start = time.perf_counter()
    for epoch in range(1000):
        tracker.log_epoch(0, epoch, {f"metric_{i}": 0.5 for i in range(9)})
    assert time.perf_counter() - start < 2
    assert tracker.unshipped == 1002
    tracker.close(0)


def test_uri_none_records_nothing(tmp_path):
    tracker = Tracker(tmp_path / "s", TrackingSettings(output_dir=tmp_path, uri="none"))
    tracker.open_sweep("s", {"a": 1}, {}, "")
    tracker.open_trial(0, {}, {})
    tracker.log_epoch(0, 1, {"val_acc": 0.5})
    tracker.log_artifact(0, tmp_path / "file")
    tracker.close_trial(0, "COMPLETE")
    tracker.close_sweep("COMPLETE", "")
    tracker.start()
    assert tracker.flush(1) == tracker.close(1) == tracker.unshipped == 0
    assert tracker.run_id(0) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"uri": "./mlruns"},
            "tracking.uri is ./mlruns; MLflow 3.13 and later refuse file stores; use sqlite:///<abs",
        ),
        ({"uri": "file:///tmp/x"}, "tracking.uri is file:///tmp/x; MLflow 3.13 and later refuse file stores"),
        ({"uri": "sqlite://"}, "tracking.uri is sqlite://; a database in memory is lost at exit"),
        ({"uri": "ftp://a"}, "tracking.uri is ftp://a; its scheme must be one of http, https, sqlite"),
        ({"uri": "http://"}, "tracking.uri is http://; it has no host; use e.g. http://127.0.0.1:5000"),
        ({"models": "some"}, "tracking.models is some; it must be one of all, best, none"),
        (
            {"experiment": ""},
            "tracking.experiment is ''; it must be a name without / and control characters, e.g. ferhpo",
        ),
        ({"required": "yes"}, "tracking.required is 'yes'; it must be true or false"),
        ({"urii": "x"}, "tracking.urii matches no key; tracking has: experiment, models, registered_model_name, "),
    ],
)
def test_invalid_settings_are_errors(tmp_path, section, message):
    with pytest.raises(ConfigError) as caught:
        TrackingSettings.from_config(section, tmp_path)
    assert str(caught.value).startswith(f"tracking: {message}")


def test_all_faults_are_in_one_error(tmp_path):
    with pytest.raises(ConfigError, match=r"tracking: 2 faults\n  tracking.uri is .*\n  tracking.models is x"):
        TrackingSettings(output_dir=tmp_path, uri="mlruns", models="x")


def test_addresses_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert TrackingSettings(output_dir=Path("out")).store_uri == f"sqlite:///{tmp_path}/out/mlflow.db"
    relative = TrackingSettings(output_dir=Path("out"), uri="sqlite:///here/m.db")
    assert relative.store_uri == f"sqlite:///{tmp_path}/here/m.db"
    assert relative.artifact_root == f"{tmp_path}/here/artifacts"
    assert TrackingSettings(output_dir=Path("out"), uri="http://h:1/").artifact_root is None
    assert TrackingSettings(output_dir=Path("out")).registered_name("demo") == "ferhpo-demo"
    assert TrackingSettings(output_dir=Path("out"), registered_model_name="faces").registered_name("demo") == "faces"
    assert (
        TrackingSettings(output_dir=Path("out"), uri="mysql+pymysql://h/d").artifact_root == f"{tmp_path}/out/artifacts"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg2://ann:s3cret@db:5432/ml", "postgresql+psycopg2://***@db:5432/ml"),
        ("https://token@host/x and http://b:p@q@h", "https://***@host/x and http://***@h"),
        ("mysql://h/d?user=a&password=s3cret&x=1", "mysql://h/d?user=a&password=***&x=1"),
        ("http://127.0.0.1:5000/#/a?viewStateShareKey=abc", "http://127.0.0.1:5000/#/a?viewStateShareKey=abc"),
    ],
)
def test_redact(text, shown):
    assert redact(text) == shown


def test_no_password_reaches_the_folder(tmp_path):
    uri = "postgresql+psycopg2://ann:s3cret@127.0.0.1:1/ml"
    tracker = Tracker(tmp_path / "s", TrackingSettings(output_dir=tmp_path, uri=uri))
    tracker.open_sweep("s", {"tracking.uri": uri}, {"uri": uri}, f"recorded in {uri}")
    tracker.open_trial(0, {"list": [uri]}, {})
    tracker.log_text(0, uri, "a.txt")
    tracker.close_trial(0, "FAILED", {"ferhpo.reason": f"cannot reach {uri}"})
    tracker.close_sweep("FAILED", uri)
    tracker._shipper.shipped.save()
    tracker.close(0)
    for path in (tmp_path / "s").iterdir():
        assert "s3cret" not in path.read_text(), path


def test_parameters_are_short_text():
    assert [param_text(v) for v in (0.123456, 1e-7 / 3, 5, True, None, "a b", [1, 2])] == [
        "0.1235", "3.333e-08", "5", "true", "null", "a b", "[1, 2]",
    ]  # fmt: skip


def test_an_unreachable_server_is_an_error_with_its_address(tmp_path):
    settings = TrackingSettings(output_dir=tmp_path, uri="http://ann:s3cret@127.0.0.1:9")
    with pytest.raises(TrackingError) as caught:
        check_store(settings)
    assert str(caught.value) == (
        "tracking.uri is http://***@127.0.0.1:9: no response within 5 s (connection refused); start the server, or set "
        "tracking.required=false to record to the spool and upload later with `ferhpo sync NAME`"
    )
    settings = TrackingSettings(output_dir=tmp_path, uri="http://127.0.0.1:9", required=False)
    assert check_store(settings) == "no response within 5 s (connection refused)"


def test_an_unreachable_database_is_an_error_within_seconds(tmp_path):
    settings = TrackingSettings(output_dir=tmp_path, uri="postgresql+psycopg2://ann:s3cret@127.0.0.1:9/ml")
    trust_address("tracking.uri", settings.uri)
    start = time.perf_counter()
    with pytest.raises(
        TrackingError, match=r"^tracking\.uri is postgresql\+psycopg2://\*\*\*@127\.0\.0\.1:9/ml: no response"
    ):
        check_store(settings)
    assert time.perf_counter() - start < 10


def test_a_missing_database_driver_is_an_error(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        uri = f"postgresql+nodriver://ann:s3cret@127.0.0.1:{listening.getsockname()[1]}/ml"
        trust_address("tracking.uri", uri)
        with pytest.raises(
            TrackingError, match=r"the driver for this database is not installed \(.*; correct"
        ) as caught:
            check_store(TrackingSettings(output_dir=tmp_path, uri=uri))
    assert "s3cret" not in str(caught.value)


def test_a_sqlite_store_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is no database, but a text that is long enough to be looked at")
    with pytest.raises(
        TrackingError, match=r"the database cannot be written \(file is not a database\); correct tracking"
    ):
        check_store(TrackingSettings(output_dir=tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match=r"the database cannot be written \(.*; correct tracking.uri"):
        check_store(TrackingSettings(output_dir=tmp_path / "file" / "out"))
    assert check_store(TrackingSettings(output_dir=tmp_path / "new")) is None


def test_records_are_on_disk_before_the_store_has_them(tmp_path, monkeypatch):
    """Otherwise a power failure could leave the store ahead of the file, and a resume would record epochs twice."""
    tracker = Tracker(tmp_path, TrackingSettings(output_dir=tmp_path))
    tracker.open_sweep("demo", {}, {}, "")
    order = []
    shipper = tracker._shipper
    monkeypatch.setattr(shipper.spool, "sync_to_disk", lambda: order.append("disk"))
    shipper._writer = SimpleNamespace(write=lambda records, stopped: order.append("store") or True)
    shipper.upload()
    assert order == ["disk", "store"]
