"""The check of a store before a sweep: accounts, proxies, artifacts, deleted experiments, names of models."""

import json
import shutil
import sqlite3

import pytest

from ferhpo.errors import ConfigError, TrackingError
from ferhpo.tracking import Tracker, TrackingSettings, check_store, sync
from ferhpo.tracking.store import connect, remedy_of
from tests.servers import Proxy, Server, running
from tests.test_tracking import WAIT_SECONDS, runs_of


@pytest.fixture
def settings(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return TrackingSettings(output_dir=tmp_path)


@pytest.fixture
def front():
    """A server that responds with `front.response` only."""
    proxy = Proxy(None)
    with running(proxy):
        yield proxy


RESPONSES = [
    (
        401,
        "text/plain",
        b"You are not authenticated.",
        "the server wants an account; give it with tracking.uri=http://US",
    ),
    (401, "application/json", b'{"detail": "who?"}', "the server wants an account"),
    (403, "text/plain", b"Permission denied", "this account may not do that; use an account that may edit"),
    (407, "text/html", b"<html>proxy</html>", "the proxy in HTTPS_PROXY refuses; correct it, or add the server's host"),
    (404, "text/html", b"<html>nothing here</html>", "this is not the address of an MLflow server, or a login page"),
    (200, "text/html", b"<html>log in</html>", "this is not the address of an MLflow server, or a login page"),
    (
        503,
        "text/html",
        b"<html>no</html>",
        "if the proxy in HTTPS_PROXY cannot reach the server, add its host to NO_PROXY",
    ),
]


@pytest.mark.parametrize(("status", "kind", "body", "remedy"), RESPONSES)
def test_accounts_and_proxies_are_named_with_a_remedy(tmp_path, front, monkeypatch, status, kind, body, remedy):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    front.response = status, kind, body
    with pytest.raises(TrackingError) as caught:
        check_store(TrackingSettings(output_dir=tmp_path, uri=front.url))
    assert f"tracking.uri is {front.url}: the server responds with an error (" in str(caught.value)
    assert f"; {remedy}" in str(caught.value)
    told = check_store(TrackingSettings(output_dir=tmp_path, uri=front.url, required=False))
    assert f"; {remedy}" in told


def test_a_proxy_that_cannot_be_reached_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(
        TrackingError, match=r"the proxy in HTTP_PROXY refuses; correct it, or add the server's host to"
    ):
        check_store(TrackingSettings(output_dir=tmp_path, uri="http://mlflow.invalid:5000"))
    assert "CERT_PATH" in remedy_of(
        OSError("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] x'")
    )
    assert remedy_of(OSError("boring")) == ""


def test_a_sqlite_store_whose_artifacts_cannot_be_written_is_refused(tmp_path, settings):
    (tmp_path / "artifacts").write_text("")
    with pytest.raises(
        TrackingError, match=r"artifacts cannot be written to .*/artifacts \(not a directory\); correct"
    ):
        check_store(settings)
    (tmp_path / "artifacts").unlink()
    assert check_store(settings) is None
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db"}, "nothing is left"
    client = connect(settings)
    client.create_experiment("ferhpo", str(tmp_path / "file" / "own"))
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match=r"artifacts cannot be written to .*/file/own \(not a directory\)"):
        check_store(settings)


def test_a_deleted_experiment_is_found_at_the_start(settings):
    client = connect(settings)
    experiment = client.create_experiment("ferhpo", settings.artifact_root)
    assert check_store(settings) is None
    client.delete_experiment(experiment)
    with pytest.raises(TrackingError, match=r"tracking\.experiment is ferhpo; this experiment was deleted; restore it"):
        check_store(settings)
    client.restore_experiment(experiment)
    assert check_store(settings) is None


@pytest.mark.parametrize("name", ["a/b", "a:b", "", " ", "..", "it's", "x" * 251, "a\nb", " a", 7])
def test_a_name_that_the_registry_refuses_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=r"tracking: tracking\.registered_model_name is .*; it "):
        TrackingSettings(output_dir=tmp_path, registered_model_name=name)


def test_the_name_of_a_long_sweep_is_refused_with_its_remedy(settings):
    with pytest.raises(TrackingError, match=r"it has 307 characters; .*; set tracking\.registered_model_name=\.\.\."):
        check_store(settings, settings.registered_name("x" * 300))


def record(folder, settings):
    tracker = Tracker(folder, settings)
    tracker.open_sweep("demo", {}, {}, "")
    tracker.open_trial(0, {}, {})
    tracker.start()
    assert tracker.flush(WAIT_SECONDS) == 0
    return tracker


def test_a_sweeps_run_that_a_person_deleted_is_restored_for_its_trials(tmp_path, settings, caplog):
    tracker = record(tmp_path / "demo", settings)
    client = connect(settings)
    for action in ("open", "log", "close"):
        client.delete_run(tracker.run_id(None))
        if action == "open":
            tracker.open_trial(1, {}, {})
        elif action == "log":
            tracker.log_metrics(None, {"best": 1.0})
        else:
            tracker.close_trial(0, "COMPLETE")
            tracker.close_trial(1, "COMPLETE")
            tracker.close_sweep("COMPLETE", "done")
        assert tracker.flush(WAIT_SECONDS) == 0
        assert "the sweep's run in MLflow was deleted; it is restored, because its trials belong to it" in caplog.text
        caplog.clear()
    tracker.close(5)
    _, runs = runs_of(settings)
    assert {name: run.info.status for name, run in runs.items()} == dict.fromkeys(
        ["demo", "demo-000", "demo-001"], "FINISHED"
    )
    assert runs["demo"].data.metrics == {"best": 1.0}
    assert not (tmp_path / "demo" / "rejected.jsonl").exists()


def test_a_resume_restores_the_sweeps_run_and_makes_no_second_one(tmp_path, settings):
    tracker = record(tmp_path / "demo", settings)
    parent = tracker.run_id(None)
    tracker.close(5)
    connect(settings).delete_run(parent)
    again = record(tmp_path / "demo", settings)
    again.open_trial(1, {}, {})
    again.close(WAIT_SECONDS)
    _, runs = runs_of(settings)
    assert set(runs) == {"demo", "demo-000", "demo-001"}
    assert {run.data.tags.get("mlflow.parentRunId", parent) for run in runs.values()} == {parent}


def test_folds_never_hang_under_a_trials_run_that_was_deleted(tmp_path, settings):
    tracker = record(tmp_path / "demo", settings)
    connect(settings).delete_run(tracker.run_id(0))
    tracker.log_fold(0, 0, [{"epoch": 1, "val_acc": 0.5}], {}, None)
    assert tracker.flush(WAIT_SECONDS) == 0
    tracker.close(5)
    assert set(runs_of(settings)[1]) == {"demo"}
    entries = [json.loads(line) for line in (tmp_path / "demo" / "rejected.jsonl").read_text().splitlines()]
    assert [(entry["kind"], entry["reason"]) for entry in entries] == [("fold", "the run of its trial was deleted")]


@pytest.mark.full
def test_records_wait_while_an_experiment_is_deleted(tmp_path, settings, caplog):
    tracker = record(tmp_path / "demo", settings)
    client = connect(settings)
    client.delete_experiment(tracker.experiment_id)
    tracker.log_epoch(0, 1, {"val_acc": 0.5})
    tracker.open_trial(1, {}, {})
    tracker.close_trial(1, "COMPLETE")
    assert tracker.flush(2) == 3
    assert tracker.last_error.startswith("tracking.experiment is ferhpo; this experiment was deleted; restore it")
    tracker.close(0)
    assert not (tmp_path / "demo" / "rejected.jsonl").exists(), "nothing is lost"
    with pytest.raises(TrackingError, match="this experiment was deleted; restore it"):
        sync(tmp_path / "demo", settings)
    client.restore_experiment(tracker_experiment(settings))
    sync(tmp_path / "demo", settings)
    _, runs = runs_of(settings)
    assert runs["demo-000"].data.metrics == {"val_acc": 0.5}
    assert set(runs) == {"demo", "demo-000", "demo-001"}


def tracker_experiment(settings):
    database = sqlite3.connect(settings.sqlite_path)
    row = database.execute("SELECT experiment_id FROM experiments WHERE name = 'ferhpo'").fetchone()
    database.close()
    return str(row[0])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    with running(server):
        yield server


@pytest.mark.full
def test_a_real_server_is_asked_for_everything_and_keeps_nothing(tmp_path, server):
    proxy = Proxy(server)
    with running(proxy):
        settings = TrackingSettings(output_dir=tmp_path, uri=proxy.url, experiment="checked")
        assert check_store(settings, "ferhpo-x") is None
        assert proxy.requests["ferhpo-check.txt"] == 2, "written and removed"
        client = connect(settings)
        experiment = client.get_experiment_by_name("checked")
        assert client.search_runs([experiment.experiment_id]) == []
        assert client.search_registered_models() == []
        assert not list(server.folder.rglob("ferhpo-check.txt"))

        def refuse_artifacts(method, path):
            is_artifact = "mlflow-artifacts" in path and method == "PUT"
            proxy.response = (403, "text/plain", b"may not") if is_artifact else None
            return 0.0

        proxy.hold = refuse_artifacts
        with pytest.raises(
            TrackingError, match=r"artifacts cannot be written to mlflow-artifacts:/\d+ \(.*this account"
        ):
            check_store(settings)

        def without(end, response):
            def hold(method, path):
                proxy.response = response if path.endswith(end) else None
                return 0.0

            return hold

        proxy.hold = without("logged-models/search", (404, "text/html", b"<html>404</html>"))
        with pytest.raises(TrackingError, match=r"the server cannot search models \(.*\); use a server of MLflow 3"):
            check_store(settings)
        denied = json.dumps({"error_code": "PERMISSION_DENIED", "message": "no"}).encode()
        proxy.hold = without("set-experiment-tag", (403, "application/json", denied))
        with pytest.raises(
            TrackingError, match=r"error to: change an experiment \(PERMISSION_DENIED.*\); this account may"
        ):
            check_store(settings)


@pytest.mark.full
def test_artifacts_of_a_server_on_another_machine_are_refused_at_the_start(tmp_path, server, monkeypatch):
    """Its artifacts are a folder of that machine, which this one does not have."""
    settings = TrackingSettings(output_dir=tmp_path, uri=server.url, experiment="far")
    connect(settings).create_experiment("far", "file:///srv/no-such-folder/mlflow/far")
    with pytest.raises(TrackingError, match=r"mlflow/far, which is not on this server; nothing is written there"):
        check_store(settings)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setattr("ferhpo.tracking.check.LOOPBACK", ())
    with pytest.raises(
        TrackingError, match=r"written to /srv/no-such-folder/mlflow/far \(it does not exist on this mach"
    ):
        check_store(settings)
