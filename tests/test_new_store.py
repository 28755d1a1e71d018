"""A new SQLite store: a copy of an empty one in the cache, which is the same as one that MLflow makes."""

import os
import sqlite3
from contextlib import closing

import pytest

from ferhpo.disk import write_json
from ferhpo.tracking import TrackingSettings
from ferhpo.tracking.store import connect, open_experiment


def new_store(folder):
    folder.mkdir()
    settings = TrackingSettings(output_dir=folder)
    client = connect(settings)
    return settings, client


def content(path):
    with closing(sqlite3.connect(path)) as database:
        return [line for line in database.iterdump() if "'Default'" not in line]  # which has its time of creation


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("FERHPO_CACHE_DIR", str(folder))
    return folder


def test_a_copy_from_the_cache_is_what_mlflow_makes(tmp_path, cache):
    first, _ = new_store(tmp_path / "first")
    (template,) = cache.glob("mlflow-*.db")
    before = template.read_bytes()
    second, client = new_store(tmp_path / "second")
    assert content(first.sqlite_path) == content(second.sqlite_path)
    assert len(content(first.sqlite_path)) > 50
    assert template.read_bytes() == before
    assert [path.name for path in cache.iterdir()] == [template.name]
    default = client.get_experiment("0")
    assert default.name == "Default"
    run = client.create_run(open_experiment(client, second))
    client.log_metric(run.info.run_id, "val_acc", 0.5)
    assert client.get_run(run.info.run_id).data.metrics == {"val_acc": 0.5}


@pytest.mark.parametrize("damage", ["empty", "text", "half", "used", "other"])
def test_what_is_no_empty_database_of_mlflow_is_made_again(tmp_path, cache, damage):
    first, client = new_store(tmp_path / "first")
    (template,) = cache.glob("mlflow-*.db")
    whole = template.read_bytes()
    if damage == "used":
        client.create_experiment("somebody's")
        template.write_bytes(first.sqlite_path.read_bytes())
    elif damage == "other":
        template.unlink()
        with closing(sqlite3.connect(template)) as database:
            database.execute("CREATE TABLE experiments (experiment_id INTEGER)")
            database.commit()
    else:
        template.write_bytes({"empty": b"", "text": b"no database", "half": whole[: len(whole) // 2]}[damage])
    _, client = new_store(tmp_path / "second")
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    with closing(sqlite3.connect(template)) as database:
        assert database.execute("SELECT count(*) FROM experiments").fetchone() == (0,)


def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path, cache):
    cache.write_text("a file in its place")
    settings, _ = new_store(tmp_path / "first")
    assert content(settings.sqlite_path)


def test_nothing_is_written_through_a_link_in_the_place_of_a_temporary_file(tmp_path, cache):
    """A folder from elsewhere may have a link for every process id."""
    new_store(tmp_path / "first")
    folder, victim = tmp_path / "second", tmp_path / "victim"
    folder.mkdir()
    for name in (f"..mlflow.db.new.{os.getpid()}", f".sweep.json.{os.getpid()}", ".mlflow.db.new"):
        (folder / name).symlink_to(victim)
    settings = TrackingSettings(output_dir=folder)
    connect(settings)
    write_json(folder / "sweep.json", {"id": "1"})
    assert not victim.exists()
    assert not settings.sqlite_path.is_symlink()
    assert not (folder / "sweep.json").is_symlink()
    assert {path.name for path in folder.iterdir() if not path.is_symlink()} == {
        "mlflow.db", "mlflow.db.lock", "sweep.json",
    }  # fmt: skip
