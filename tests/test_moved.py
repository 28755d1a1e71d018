"""An output folder that is moved, renamed or copied: the folder in which a sweep is found is its folder."""

import json
import shutil
import sqlite3
from dataclasses import replace

import pytest

from ferhpo.addresses import trust
from ferhpo.errors import SweepError, TrackingError
from ferhpo.storage.provenance import differences
from ferhpo.storage.sweep import load_sweep, note_environment, save_config
from ferhpo.tracking import Tracker, TrackingSettings, check_store, num_unshipped, refuse_lost_store, sync
from ferhpo.tracking.registry import versions
from ferhpo.tracking.store import connect
from ferhpo.tuning.preflight import Prepared, prepare, resumed
from tests.simulated_sweep import make_sweep
from tests.test_tracking import runs_of


@pytest.fixture
def output(tmp_path, empty_store):
    """An output folder with a sweep and its store."""
    folder = tmp_path / "before"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


def record(sweep):
    tracker = Tracker(sweep.folder, sweep.tracking)
    tracker.open_sweep(sweep.name, {}, {}, "")
    tracker.open_trial(0, {}, {})
    tracker.log_text(0, "a", "a.txt")
    tracker.close(0)
    sync(sweep.folder, sweep.tracking)


def locations(path):
    database = sqlite3.connect(path)
    rows = database.execute("SELECT artifact_location FROM experiments WHERE name = 'ferhpo'").fetchall()
    rows += database.execute("SELECT artifact_uri FROM runs").fetchall()
    rows += database.execute("SELECT artifact_location FROM logged_models").fetchall()
    database.close()
    return [row[0] for row in rows]


@pytest.mark.parametrize("way", ["moved", "copied", "moved by an earlier version"])
def test_a_moved_output_folder_continues_in_its_own_store(output, tmp_path, way):
    record(make_sweep(output, "s"))
    after = tmp_path / "deep" / "after"
    if way == "copied":
        shutil.copytree(output, after)
    else:
        after.parent.mkdir()
        output.rename(after)
    if way.endswith("version"):
        database = sqlite3.connect(after / "mlflow.db")
        database.execute("DELETE FROM experiment_tags WHERE key = 'ferhpo.artifact_root'")
        database.commit()
        database.close()
    sweep = load_sweep("s", after)
    assert sweep.config["output_dir"] == str(after)
    assert sweep.tracking.sqlite_path == after / "mlflow.db"
    assert num_unshipped(sweep.folder, sweep.tracking) == 0, "nothing is uploaded a second time"
    before = sorted(str(path) for path in tmp_path.rglob("*") if "before" in path.parts)
    assert check_store(sweep.tracking, "ferhpo-s") is None
    assert all(location.startswith(str(after / "artifacts")) for location in locations(after / "mlflow.db"))
    tracker = Tracker(sweep.folder, sweep.tracking)
    tracker.log_text(0, "b", "b.txt")
    tracker.close(0)
    assert sync(sweep.folder, sweep.tracking) == 1
    client, runs = runs_of(sweep.tracking)
    assert len(runs) == 2
    files = [file.path for file in client.list_artifacts(runs["s-000"].info.run_id)]
    assert files == ["a.txt", "b.txt"]
    assert sorted(str(path) for path in tmp_path.rglob("*") if "before" in path.parts) == before, (
        "nothing at the old place"
    )


def test_a_sweep_that_is_moved_without_its_store_is_uploaded_to_the_one_there(output, tmp_path, empty_store):
    sweep = make_sweep(output, "s")
    record(sweep)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(empty_store, other / "mlflow.db")
    sweep.folder.rename(other / "renamed")
    moved = load_sweep("renamed", other)
    assert moved.config["name"] == "renamed"
    assert sync(moved.folder, moved.tracking) == 5
    assert set(runs_of(moved.tracking)[1]) == {"s", "s-000"}


def test_a_lost_store_is_not_replaced_by_an_empty_one(output):
    sweep = make_sweep(output, "s")
    record(sweep)
    (output / "mlflow.db").unlink()
    with pytest.raises(
        TrackingError, match=r"mlflow\.db: this file does not exist any more, and it had records of this"
    ):
        refuse_lost_store(sweep.folder, sweep.tracking)
    with pytest.raises(TrackingError, match="cannot read x: there is no MLflow store at sqlite"):
        versions(sweep.tracking, "x")
    assert check_store(replace(sweep.tracking, required=False), read_only=True) == "the database does not exist yet"
    assert not (output / "mlflow.db").exists()
    (sweep.folder / "spool.shipped.json").unlink()
    refuse_lost_store(sweep.folder, sweep.tracking)


def test_the_store_of_a_sweep_inside_its_folder_moves_with_it(tmp_path):
    sweep = make_sweep(tmp_path / "before", "s")
    sweep = load_sweep(sweep.folder)  # the configuration of `make_sweep` is shared
    sweep.config["tracking"]["uri"] = f"sqlite:///{tmp_path}/before/own/m.db"
    save_config(sweep)
    (tmp_path / "before").rename(tmp_path / "after")
    assert load_sweep("s", tmp_path / "after").tracking.uri == f"sqlite:///{tmp_path}/after/own/m.db"


def test_artifacts_elsewhere_stay_there(output, tmp_path):
    """An experiment that someone else made in this store keeps its place, if the user names the store."""
    settings = TrackingSettings(output_dir=output)
    elsewhere = tmp_path / "elsewhere" / "artifacts"
    elsewhere.mkdir(parents=True)
    connect(settings).create_experiment("ferhpo", str(elsewhere))
    trust.trust_address("tracking.uri", settings.shown_uri)
    record(make_sweep(output, "s"))
    assert len(list(elsewhere.rglob("a.txt"))) == 1
    assert locations(output / "mlflow.db")[0] == str(elsewhere)


def test_a_resume_takes_moved_data_if_they_are_the_same(tmp_path):
    sweep = make_sweep(tmp_path, "s", "data=fer2013", f"data.path={tmp_path}/old.csv")
    found = resumed("s", [f"output_dir={tmp_path}", f"data.path={tmp_path}/new.csv"], "sweep")
    assert found.config["data"]["path"] == f"{tmp_path}/new.csv"
    with pytest.raises(Exception, match=r"data\.usage cannot change|data\.split cannot change in a resumed sweep"):
        resumed("s", [f"output_dir={tmp_path}", "data.split=stratified"], "sweep")
    found.meta["data"] = {"digest": "a" * 64, "split_name": "published"}
    prepared = Prepared(found.composed, found.run_config, found, [])

    class Data:
        digest, source = "b" * 64, "new.csv"

    with pytest.raises(
        SweepError, match=r"the data set is new\.csv, with digest bbbbbbbbbbbb; sweep s was started with"
    ):
        prepared.open("sweep", Data)
    Data.digest = "a" * 64
    assert prepared.open("sweep", Data) is found
    assert sweep.id == found.id


def test_a_resume_under_other_versions_says_what_differs_and_keeps_both(tmp_path):
    sweep = make_sweep(tmp_path, "s")
    assert note_environment(sweep) == []
    now = sweep.meta["versions"]["torch"]
    sweep.meta["versions"]["torch"] = "1.0"
    sweep.meta["git"] = {"commit": "f" * 40, "dirty": "false"}
    changes = note_environment(sweep)
    assert changes[0] == f"torch {now} (before: 1.0)"
    assert changes[1].endswith("(before: ffffffffffff)")
    assert sweep.meta["versions"]["torch"] == now
    assert sweep.meta["earlier"][0]["versions"]["torch"] == "1.0"
    old = {"versions": {"a": "1", "b": "2"}, "git": {"commit": "c", "dirty": "false"}}
    new = {"versions": {"a": "1", "d": "3"}, "git": {"commit": "c", "dirty": "true"}}
    assert differences(old, new) == [
        "b not installed (before: 2)", "d 3 (before: not installed)", "git commit c with changes"
    ]  # fmt: skip
    assert differences({}, {"versions": {}, "git": {}}) == []


def test_the_tags_of_runs_have_both_versions_after_a_resume(tmp_path):
    from ferhpo.publish.sweep_run import environment_tags
    from ferhpo.publish.trial_runs import TrialRuns

    sweep = make_sweep(tmp_path, "s")

    class Trial:
        number, seed, sample, config = 0, 0, {}, sweep.config

    for version in ("1.0", "2.0", "2.0"):
        sweep.meta["versions"] = {"torch": version}
        tracker = Tracker(sweep.folder, sweep.tracking)
        tracker.open_sweep("s", {}, environment_tags(sweep, tracker, None), "")

        def describe(trial, tracker=tracker):
            tracker.set_tags(0, environment_tags(sweep, tracker, 0))
            tracker.log_dataset(0, "d", "d", "d", {}, "training")

        TrialRuns(sweep, tracker, describe).open(Trial)
        tracker.close(0)
    records = [json.loads(line) for line in (sweep.folder / "spool.jsonl").read_text().splitlines()]
    tags = [record["tags"] for record in records if record["op"] in ("open_sweep", "tags")]
    picked = [{key: text for key, text in each.items() if "torch" in key} for each in tags]
    first = {"ferhpo.version.torch": "1.0"}
    both = {"ferhpo.version.torch": "2.0", "ferhpo.earlier.version.torch": "1.0"}
    assert picked == [first, first, both, both, {"ferhpo.version.torch": "2.0"}]


def test_a_resume_after_a_move_prepares_in_the_new_place(output, tmp_path):
    record(make_sweep(output, "s"))
    output.rename(tmp_path / "after")
    prepared = prepare("s", [f"output_dir={tmp_path / 'after'}"], "sweep", resume=True, new=False, config_dir=None)
    assert prepared.run_config.tracking.output_dir == tmp_path / "after"
    assert prepared.existing.folder == tmp_path / "after" / "s"
    assert not output.exists()
