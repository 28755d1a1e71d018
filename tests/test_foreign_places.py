"""Where a sweep file, a link and a copied folder may lead: to no place, file or run that is not their own."""

import json
import shutil

import pytest

from ferhpo.addresses.secrets import as_given
from ferhpo.config.compose import compose
from ferhpo.driver.ray_tune import _clear
from ferhpo.errors import ConfigError, SweepError
from ferhpo.storage.sweep import create_sweep
from ferhpo.tracking import TrackingSettings, sync
from ferhpo.tracking.store import connect, trust_fault
from tests.reports.made_sweeps import demo
from tests.test_tracking import everything, record_sweep
from tests.test_trust import DEMO, faults_of, sweep_file


@pytest.fixture
def current(tmp_path, monkeypatch):
    """The current folder, in a folder of the user."""
    folder = tmp_path / "current"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


@pytest.mark.parametrize("place", ["~/.ssh", "~", "..", "a/../..", ".git", "runs/.vim", "/srv/runs", "out", "out/runs"])
def test_a_sweep_file_writes_below_the_current_folder_only(current, tmp_path, place):
    (current / "out").symlink_to(tmp_path)
    file = sweep_file(current / "sweeps" / "a.yaml", output_dir=place)
    assert any(fault.startswith("output_dir is ") and "to the command line" in fault for fault in faults_of(file))
    assert faults_of(file, [f"output_dir={place}"]) == [], "the user named it"
    sweep_file(current / "ferhpo.d" / "b.yaml", output_dir=place)
    assert faults_of("b") == [], "in the user's folder"


@pytest.mark.parametrize("place", ["runs", "runs/today", "mlruns"])
def test_a_sweep_file_may_choose_a_folder_below_the_current_one(current, place):
    assert faults_of(sweep_file(current / "sweeps" / "a.yaml", output_dir=place)) == []


@pytest.mark.parametrize("name", [".vimrc", "authorized_keys", "plugin/mlflow.db", "__init__.py", "mlflow.db-wal"])
def test_a_file_chooses_no_name_for_a_store(tmp_path, name):
    """Another program might read what MLflow writes into it."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert "it is not a database of MLflow yet" in trust_fault(TrackingSettings(tmp_path, f"sqlite:///{path}"))
    assert trust_fault(TrackingSettings(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}")) == ""


def test_a_store_in_a_hidden_folder_is_named_by_the_user(current, tmp_path, empty_store):
    """Artifacts of any name would be beside it, where a program may read them."""
    (tmp_path / ".vim" / "plugin").mkdir(parents=True)
    (current / "mlruns").symlink_to(tmp_path / ".vim" / "plugin")
    shutil.copy(empty_store, current / "mlruns" / "mlflow.db")
    settings = TrackingSettings(current, f"sqlite:///{current / 'mlruns' / 'mlflow.db'}")
    assert "in a hidden folder" in trust_fault(settings)
    file = sweep_file(current / "sweeps" / "a.yaml", num_trials=3)
    assert any("a link to " in fault and "hidden folder" in fault for fault in faults_of(file))
    assert faults_of(file, ["output_dir=mlruns"]) == []


def test_the_default_folder_may_be_a_link_to_a_larger_disk(current, tmp_path):
    (tmp_path / "scratch").mkdir()
    (current / "mlruns").symlink_to(tmp_path / "scratch")
    assert faults_of(sweep_file(current / "sweeps" / "a.yaml", num_trials=3)) == []


def test_the_default_store_is_no_link(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").symlink_to(tmp_path / "authorized_keys")
    assert trust_fault(TrackingSettings(tmp_path / "runs")) != ""


@pytest.mark.parametrize("name", ["a\nssh-ed25519 AAAA", "a\tb", "a\u2028b", "\x1b[31m"])
def test_the_name_of_an_experiment_is_one_line(name):
    with pytest.raises(ConfigError, match="a name without / and control characters"):
        TrackingSettings(experiment=name, output_dir="mlruns")


@pytest.mark.parametrize("uri", ["http://[::1", "http://[evil", "http://a\uff20b", "postgresql://[x/y"])
def test_an_address_that_is_none_is_a_fault(uri):
    with pytest.raises(ConfigError, match=r"tracking\.uri is"):
        TrackingSettings(uri=uri, output_dir="mlruns")


def test_a_reference_to_the_address_copies_no_password(current):
    """What ferhpo.d/ says of the store, and a stranger's file repeats elsewhere."""
    uri = "https://ann:hunter2@mlflow.example"
    sweep_file(current / "ferhpo.d" / "ours.yaml", tracking={"uri": uri, "experiment": "of ${tracking.uri}"})
    config = compose("ours").config
    assert "hunter2" not in json.dumps(config)
    assert as_given(config["tracking"]["uri"]) == uri


@pytest.mark.parametrize("entry", ["notes.txt", "ray", "report", "code", "study.jsonl"])
def test_a_new_sweep_takes_no_folder_that_has_anything(tmp_path, entry):
    composed = demo(())
    composed.config.update({"name": "project", "output_dir": str(tmp_path)})
    kept = tmp_path / "project" / entry / "src.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    with pytest.raises(SweepError, match=rf"has {entry} and no sweep\.json"):
        create_sweep(composed)
    assert kept.read_text() == "mine"
    shutil.rmtree(tmp_path / "project")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / ".sweep.json.0123").touch()  # a kill while it was written
    assert create_sweep(composed).folder.name == "project"


def test_tune_finds_nothing_from_elsewhere(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "ray").symlink_to(tmp_path / "other")
    _clear(tmp_path / "ray")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    (tmp_path / "ray" / "tune").mkdir(parents=True)
    _clear(tmp_path / "ray")
    _clear(tmp_path / "ray")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


SECRET = "oauth_token: hunter2\n"


@pytest.mark.parametrize("link", ["sampler/ev.yaml", "sampler", "metrics/ev.yaml", "config.yaml", "other.yaml", ""])
@pytest.mark.parametrize("root", ["sweeps", "conf"])
def test_no_link_gives_a_sweep_the_content_of_another_file(current, tmp_path, root, link):
    elsewhere = tmp_path / "private"
    elsewhere.mkdir()
    for name in ("ev", "other", *(["config"] if link else [])):  # with a config.yaml, it is another program's folder
        (elsewhere / f"{name}.yaml").write_text(SECRET)
    place = current / root / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(elsewhere / place.name if place.suffix else elsewhere)
    file = sweep_file((current / root if link else tmp_path) / "mine.yaml", **DEMO)
    (fault,) = faults_of(file)
    assert "it leads to " in fault
    assert "--config-dir" in fault
    assert "hunter2" not in fault


def test_a_link_within_the_folder_is_followed(current):
    sweep_file(current / "sweeps" / "a.yaml", num_trials=3)
    (current / "sweeps" / "b.yaml").symlink_to("a.yaml")
    (current / "sweeps" / ".#a.yaml").symlink_to("me@host.1:2")  # of an editor
    assert faults_of("b") == []


def test_a_sweep_writes_into_no_run_of_another(tmp_path, empty_store):
    """Its spool.shipped.json names that run, and says that it may be a duplicate."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    settings = TrackingSettings(output_dir=tmp_path)
    record_sweep(tmp_path / "users", settings, range(2)).close(0)
    sync(tmp_path / "users", settings)
    ids = json.loads((tmp_path / "users" / "spool.shipped.json").read_text())
    before = everything(settings)
    record_sweep(tmp_path / "strangers", settings, range(2)).close(0)
    sync(tmp_path / "strangers", settings)
    position = tmp_path / "strangers" / "spool.shipped.json"
    content = json.loads(position.read_text())
    content.update(runs=ids["runs"], in_doubt=["0", "1", ""])
    position.write_text(json.dumps(content))
    with (tmp_path / "strangers" / "spool.jsonl").open("a") as file:
        for seq, (op, fields) in enumerate(
            [
                ("metrics", {"number": 0, "step": 99, "values": {"val_acc": 0.99}}),
                ("tags", {"number": None, "tags": {"evil": "yes"}}),
                ("close", {"number": 1, "state": "FAILED", "tags": {}}),
            ],
            content["seq"] + 1,
        ):
            file.write(json.dumps({"seq": seq, "time_ms": 1, "op": op, **fields}) + "\n")
    sync(tmp_path / "strangers", settings)
    users = set(ids["runs"].values())
    after = everything(settings)
    for table in ("runs", "metrics", "tags", "params"):
        of_user = [[row for row in rows[table] if any(run in row for run in users)] for rows in (before, after)]
        assert of_user[0], table
        assert of_user[0] == of_user[1], table


def test_a_duplicate_with_results_is_not_deleted(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    settings = TrackingSettings(output_dir=tmp_path)
    record_sweep(tmp_path / "a", settings, range(1)).close(0)
    sync(tmp_path / "a", settings)
    position = tmp_path / "a" / "spool.shipped.json"
    content = json.loads(position.read_text())
    client = connect(settings)
    tags = {"ferhpo.trial": f"{content['sweep_id']}/0"}
    second = client.create_run(content["experiment_id"], tags=tags).info.run_id
    empty = client.create_run(content["experiment_id"], tags=tags).info.run_id
    client.log_metric(second, "val_acc", 0.5)
    content["in_doubt"] = ["0"]
    position.write_text(json.dumps(content))
    with (tmp_path / "a" / "spool.jsonl").open("a") as file:
        close = {"op": "close", "number": 0, "state": "COMPLETE", "tags": {}}
        file.write(json.dumps({"seq": content["seq"] + 1, "time_ms": 1, **close}) + "\n")
    sync(tmp_path / "a", settings)
    stages = [client.get_run(run).info.lifecycle_stage for run in (second, empty)]
    assert stages == ["active", "deleted"]
