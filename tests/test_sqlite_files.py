"""What SQLite would do with the files beside a database of anyone: play journals, wait for pipes, delete files."""

import os
import shutil
import sqlite3
import struct
from argparse import Namespace
from contextlib import closing

import pytest

from ferhpo.addresses import trust
from ferhpo.addresses.sqlite import BESIDE, content_fault, files_fault, opened_sqlite
from ferhpo.cli.servers import _pass_on, ui
from ferhpo.errors import SweepError
from ferhpo.tracking import TrackingSettings, store, trust_fault

MAGIC = bytes.fromhex("d9d505f920a163d7")


@pytest.fixture
def copied(tmp_path, empty_store):
    """A default store, and a file of the user beside its folder."""
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "out").mkdir()
    shutil.copy(empty_store, tmp_path / "out" / "mlflow.db")
    return TrackingSettings(output_dir=tmp_path / "out")


def write_journal(path, victim):
    """Write a journal without pages that names a file. SQLite deletes the file when it opens the database."""
    name, page = os.fsencode(victim), struct.unpack(">H", path.read_bytes()[16:18])[0]
    header = (MAGIC + struct.pack(">IIIII", 0, 0x1234, path.stat().st_size // page, 512, page)).ljust(512, b"\0")
    end = struct.pack(">I", 0x40000000 // page + 1) + name + struct.pack(">II", len(name), sum(name)) + MAGIC
    path.with_name(f"{path.name}-journal").write_bytes(header + end)


@pytest.mark.parametrize("way", [trust_fault, lambda s: files_fault(s.sqlite_path), "named", "link", "opened"])
def test_no_journal_deletes_a_file(copied, tmp_path, way):
    write_journal(copied.sqlite_path, tmp_path / "victim")
    if way == "opened":
        with pytest.raises(sqlite3.OperationalError, match="SQLite would delete"):
            opened_sqlite(copied.sqlite_path, 1, read_only=False).__enter__()
        return
    if way == "named":
        trust.trust_address("tracking.uri", copied.shown_uri)
    if way == "link":
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "mlflow.db").symlink_to(copied.sqlite_path)
        copied = TrackingSettings(output_dir=tmp_path / "other")
    fault = (trust_fault if isinstance(way, str) else way)(copied)
    assert "mlflow.db-journal beside it names a file that SQLite would delete; remove this journal" in fault
    assert (tmp_path / "victim").read_text() == "mine"


def test_sqlite_does_delete_the_file(copied, tmp_path):
    """Without the check: what the tests above are about."""
    write_journal(copied.sqlite_path, tmp_path / "victim")
    with closing(sqlite3.connect(copied.sqlite_path)) as database:
        database.execute("SELECT * FROM sqlite_master").fetchone()
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
@pytest.mark.parametrize("end", BESIDE)
def test_files_beside_a_database_are_files(copied, tmp_path, end, kind):
    beside = copied.sqlite_path.with_name(f"mlflow.db{end}")
    {"pipe": os.mkfifo, "link": lambda path: path.symlink_to(tmp_path / "victim"), "folder": os.mkdir}[kind](beside)
    assert f"mlflow.db{end} beside it is not a regular file; remove it" in trust_fault(copied)


def test_a_database_that_is_a_pipe_or_of_holes_is_not_opened(copied):
    copied.sqlite_path.unlink()
    os.mkfifo(copied.sqlite_path)
    assert "it is not a regular file" in trust_fault(copied)
    copied.sqlite_path.unlink()
    with copied.sqlite_path.open("wb") as file:
        file.truncate(40_000_000_000)
    assert "of which nearly all are empty" in trust_fault(copied)


def test_a_database_that_a_kill_left_half_written_is_repaired(copied, tmp_path):
    with closing(sqlite3.connect(copied.sqlite_path)) as database:
        database.execute("PRAGMA cache_size = 1")
        database.executemany("INSERT INTO params VALUES (?, ?, ?)", ((f"{n}", "x" * 900, "r") for n in range(200)))
        (tmp_path / "killed").mkdir()
        for end in ("", "-journal"):
            shutil.copy(f"{copied.sqlite_path}{end}", tmp_path / "killed" / f"mlflow.db{end}")
    settings = TrackingSettings(output_dir=tmp_path / "killed")
    assert settings.sqlite_path.read_bytes() != copied.sqlite_path.read_bytes()
    assert trust_fault(settings) == ""
    with opened_sqlite(settings.sqlite_path, 1) as database:
        assert database.execute("SELECT count(*) FROM params").fetchone() == (0,)


@pytest.mark.parametrize("type_of_row", ["table", "index"])
def test_a_view_under_another_name_is_a_view(tmp_path, type_of_row):
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute("CREATE TABLE experiments (a)")
        database.execute("CREATE VIEW v AS SELECT 1")
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_master SET type = ?, rootpage = 2 WHERE name = 'v'", (type_of_row,))
        database.commit()
    assert content_fault(tmp_path / "a.db") != ""


def test_values_of_a_database_are_bounded(tmp_path):
    sqlite3.connect(tmp_path / "a.db").close()
    (tmp_path / "a.db").touch()
    with opened_sqlite(tmp_path / "a.db", 1) as database, pytest.raises(sqlite3.Error, match="too big"):
        database.execute("SELECT hex(zeroblob(450000000))").fetchone()


def test_a_new_database_deletes_only_its_own_files(tmp_path):
    """The name of a database is no pattern; and no journal of a database that is gone is played into it."""
    (tmp_path / ".ssh_config.new").write_text("mine")
    (tmp_path / ".*.newer").write_text("mine")
    (tmp_path / "*-journal").write_text("left over")
    (tmp_path / ".*.new-journal").write_text("left over")
    settings = TrackingSettings(output_dir=tmp_path, uri=f"sqlite:///{tmp_path}/*")
    trust.trust_address(trust.STORE, settings.shown_uri)
    store.connect(settings)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".ssh_config.new", ".*.newer", "*", "*.lock"}


@pytest.mark.parametrize(
    "place", ["/etc", "s3://bucket/a", "http://127.0.0.2:8099/a", "mlflow-artifacts://evil.example/a"]
)
def test_the_ui_shows_no_artifacts_elsewhere(copied, place, monkeypatch):
    client = store.connect(copied)
    run = client.create_run(client.create_experiment("a", copied.artifact_root))
    monkeypatch.setattr("ferhpo.cli.servers.subprocess.Popen", lambda *args, **more: pytest.fail("it is served"))
    for own in (run.info.artifact_uri, "mlflow-artifacts:/1/a", place):
        with closing(sqlite3.connect(copied.sqlite_path)) as database:
            database.execute("UPDATE runs SET artifact_uri = ?", (own,))
            database.commit()
        with pytest.raises(
            SweepError if own == place else pytest.fail.Exception, match=r"nothing is read there|served"
        ):
            ui(Namespace(output_dir=str(copied.output_dir), host="127.0.0.1", port=5000))
    trust.trust_address("tracking.uri", copied.shown_uri)
    with pytest.raises(pytest.fail.Exception, match="it is served"):
        ui(Namespace(output_dir=str(copied.output_dir), host="127.0.0.1", port=5000))


def test_what_the_server_of_the_ui_says_is_escaped(capfd):
    _pass_on([b"INFO: all is well\n", b"version \x1b]0;PWNED\x07\xff\tis unknown\r\n"])
    assert capfd.readouterr().err == "version \\x1b]0;PWNED\\x07\ufffd\tis unknown\n"


def test_a_relative_name_is_the_name_of_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trust.trust_address("tracking.uri", "sqlite:///out/m.db")
    assert trust.is_trusted("tracking.uri", f"sqlite:///{tmp_path}/out/m.db")
    assert not trust.is_trusted("tracking.uri", "sqlite:////out/m.db")
