"""Stores that stop, fail, respond slowly, lose responses and refuse values. The store is MLflow over PostgreSQL."""

import json
import random
import re
import signal
from contextlib import suppress

import pytest

import ferhpo
from ferhpo import cli
from ferhpo.errors import FerhpoError, TrackingError
from ferhpo.tracking import Tracker, TrackingSettings, is_held, num_unshipped, sync
from ferhpo.tracking.store import connect
from tests.conftest import TINY
from tests.servers import Postgres, Proxy, Server, assert_whole_in_mlflow, running, wait_until

pytestmark = [pytest.mark.full, pytest.mark.timeout(1500)]
HTML = "text/html", b"<html><body>Please log in.</body></html>"
SWEEP = [
    "name=troubled",
    "data.num_train=1400",  # an epoch takes about a second
    "data.num_val=140",
    "data.num_test=14",
    "compute.num_cpus=2",
    "compute.gpus_per_trial=0",
    "tracking.report=false",
]


@pytest.fixture(scope="module")
def postgres():
    database = Postgres()
    with running(database):
        yield database


@pytest.fixture(scope="module")
def server(postgres, tmp_path_factory):
    """One server for all tests of this module, because it starts slowly; each test has its own experiment."""
    server = Server(tmp_path_factory.mktemp("server"), postgres.uri)
    with running(server):
        yield server


@pytest.fixture
def proxy(server):
    proxy = Proxy(server)
    with running(proxy):
        yield proxy


def trials_of(folder):
    try:
        return ferhpo.load_sweep("troubled", folder).trials()
    except FerhpoError:  # the sweep does not exist yet
        return []


def wait_for_epochs(number, driver, folder, log):
    """Wait until a running sweep has recorded `number` epochs in total."""
    wait_until(lambda: driver.poll() is not None or sum(len(t.epochs) for t in trials_of(folder)) >= number, 200)
    assert driver.poll() is None, log.read_text()


def test_a_sweep_whose_store_fails_in_every_way_is_complete_in_mlflow(warm, postgres, server, proxy, tmp_path):
    """PostgreSQL stops and starts under the running server, the server is killed and restarted, it responds with 500,
    it loses responses, and it refuses the metrics of trial 1. Only these are rejected.
    """
    folder, log = tmp_path / "mlruns", tmp_path / "log.txt"
    proxy.refuse_trial = 1
    proxy.lose = ["runs/create", "runs/create", "runs/log-batch", "runs/update", "config.yaml"]
    options = [*SWEEP, f"output_dir={folder}", f"tracking.uri={proxy.url}", "tracking.experiment=fails"]
    driver = warm.start("sweep", "demo", *options, "num_trials=8", "trainer.max_epochs=5", log=log)
    try:
        wait_for_epochs(2, driver, folder, log)
        postgres.stop()
        wait_for_epochs(5, driver, folder, log)
        postgres.start()
        wait_for_epochs(7, driver, folder, log)
        proxy.response = 500, "application/json", b'{"error_code": "INTERNAL_ERROR", "message": "trouble"}'
        wait_for_epochs(10, driver, folder, log)
        proxy.response = None
        proxy.lose += ["runs/create", "runs/log-batch", "runs/update"]
        wait_for_epochs(12, driver, folder, log)
        server.stop()
        wait_for_epochs(15, driver, folder, log)
        server.start()
        assert driver.wait(300) == 0, log.read_text()
    finally:
        driver.kill()
    sweep = ferhpo.load_sweep("troubled", folder)
    assert num_unshipped(sweep.folder, TrackingSettings.from_config(sweep.config["tracking"], folder)) == 0
    assert proxy.lose == []
    client = connect(TrackingSettings(output_dir=folder, uri=server.url))
    assert_whole_in_mlflow(client, sweep, "fails", missing={1})
    output = log.read_text()
    assert "Traceback" not in output
    assert "Registered ferhpo-troubled version 1" in output
    refused = [json.loads(line) for line in (sweep.folder / "rejected.jsonl").read_text().splitlines()]
    assert {(entry["run"], entry["kind"]) for entry in refused} == {("1", "metric")}
    kept = {(entry["key"], entry["value"]) for entry in refused}
    assert {("val_acc", row["val_acc"]) for row in sweep.trials()[1].epochs} <= kept
    assert len(re.findall("tracking: cannot upload", output)) == 1, "one warning for a run, not one for each value"
    assert f"MLflow refused {len(refused)} values or files; they are kept in" in output.replace("\n", " ")


def test_a_slow_store_slows_no_epoch_and_sync_uploads_what_a_killed_driver_left(warm, proxy, tmp_path, capsys):
    """Each response takes two seconds; the driver is killed before its last records are uploaded."""
    folder, log = tmp_path / "mlruns", tmp_path / "log.txt"
    proxy.delay_seconds = 2.0
    options = [*SWEEP, f"output_dir={folder}", f"tracking.uri={proxy.url}", "tracking.experiment=slow"]
    driver = warm.start("sweep", "demo", *options, "num_trials=9", "trainer.max_epochs=4", log=log)
    try:
        wait_until(lambda: driver.poll() is not None or sum(t.state != "RUNNING" for t in trials_of(folder)) >= 4, 200)
        assert driver.poll() is None, log.read_text()
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    finally:
        driver.kill()
    sweep = ferhpo.load_sweep("troubled", folder)
    trials = sweep.trials()
    for trial in [t for t in trials if t.state != "RUNNING"][2:]:  # the first two include the start of their worker
        trained = sum(row["epoch_seconds"] for row in trial.epochs)
        assert trial.seconds < trained + 2.0 * len(trial.epochs), "epochs waited for the store's responses"
    interrupted = {trial.number for trial in trials if trial.state == "RUNNING"}
    assert interrupted
    unshipped = num_unshipped(sweep.folder, TrackingSettings.from_config(sweep.config["tracking"], folder))
    assert unshipped > 10
    for arguments in (["doctor"], ["runs"], ["runs", "troubled"]):
        assert cli.main([*arguments, "--output-dir", str(folder)]) == 0
        output = " ".join(capsys.readouterr().out.split())
        assert f"{unshipped} records" in output or arguments == ["runs"]
        assert str(unshipped) in output
        assert "ferhpo sync troubled" in output

    proxy.delay_seconds = 0.0
    assert cli.main(["sync", "troubled", "--output-dir", str(folder)]) == 0
    assert re.match(r"\d+ records uploaded to MLflow", capsys.readouterr().out)
    client = connect(TrackingSettings(output_dir=folder, uri=proxy.url))
    assert_whole_in_mlflow(client, sweep, "slow")
    runs = runs_in(client, "slow")
    assert runs["troubled"].info.status == "KILLED"
    reasons = {run.data.tags["ferhpo.reason"] for run in runs.values() if run.info.status == "KILLED"}
    assert reasons == {"its driver was killed; can be resumed"}


def test_a_sweep_with_a_slow_store_says_what_is_left_and_sync_registers_the_model(proxy, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "mlruns"
    monkeypatch.setattr("ferhpo.tuning.finish.SHIP_SECONDS", 2.0)
    options = [*TINY, f"output_dir={folder}", f"tracking.uri={proxy.url}", "tracking.experiment=end", "name=ended"]
    proxy.delay_seconds = 2.0
    assert cli.main(["train", "demo", *options, "trainer.max_epochs=1"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert re.search(r"\d+ records are not in MLflow yet\. Upload them with: ferhpo sync ended", told)
    assert "Registered" not in told
    proxy.delay_seconds = 0.0
    wait_until(lambda: not is_held(folder / "ended"))
    assert cli.main(["sync", "ended", "--output-dir", str(folder)]) == 0
    assert "Registered ferhpo-ended version 1. Promote it with: ferhpo promote ended" in capsys.readouterr().out
    record = ferhpo.load_sweep("ended", folder)
    assert_whole_in_mlflow(connect(TrackingSettings(output_dir=folder, uri=proxy.url)), record, "end")
    assert ferhpo.promote("ended", output_dir=str(folder), gates="none").version == 1


def open_tracker(proxy, folder, experiment):
    """Return a tracker that uploads through the proxy, and a client of the same store."""
    settings = TrackingSettings(output_dir=folder, uri=proxy.url, experiment=experiment)
    tracker = Tracker(folder / "demo", settings)
    tracker.open_sweep("demo", {}, {}, "")
    tracker.start()
    return tracker, connect(settings)


def runs_in(client, experiment):
    """Return the runs of an experiment by name."""
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=1000)
    assert len({run.info.run_name for run in found}) == len(found), "a run exists twice"
    return {run.info.run_name.partition(" (")[0]: run for run in found}


ERROR_RESPONSES = {  # the reason that the shipper logs: the response
    "500 error": (500, "application/json", b'{"error_code": "INTERNAL_ERROR", "message": "no"}'),
    "not in a valid json format": (200, *HTML),
    "error code 404": (404, *HTML),
    "INTERNAL_ERROR: Response: {'detail': 'who?'}": (401, "application/json", b'{"detail": "who?"}'),
}


def test_error_responses_are_outages_and_nothing_is_lost(proxy, tmp_path, caplog):
    tracker, client = open_tracker(proxy, tmp_path, "answers")
    tracker.open_trial(0, {}, {})
    for number, (reason, response) in enumerate(ERROR_RESPONSES.items(), start=1):
        assert tracker.flush(60) == 0
        wait_until(lambda first=number == 1: first or "is available again" in caplog.text)
        caplog.clear()
        proxy.response = response
        tracker.open_trial(number, {}, {})
        tracker.log_epoch(0, number, {"val_acc": number / 10})
        wait_until(lambda: any("records are kept in" in message for message in caplog.messages))
        assert tracker.last_error == reason
        proxy.response = None
        tracker.close_trial(number, "COMPLETE")
    tracker.close_trial(0, "COMPLETE")
    tracker.close_sweep("COMPLETE", "")
    assert tracker.flush(60) == 0
    assert tracker.close(5) == 0
    runs = runs_in(client, "answers")
    assert {name: run.info.status for name, run in runs.items()} == dict.fromkeys(
        ["demo", *(f"demo-00{number}" for number in range(5))], "FINISHED"
    )
    points = client.get_metric_history(runs["demo-000"].info.run_id, "val_acc")
    assert [(point.step, point.value) for point in points] == [(n, n / 10) for n in (1, 2, 3, 4)]
    assert not (tmp_path / "demo" / "rejected.jsonl").exists()


def test_a_lost_response_duplicates_nothing(proxy, tmp_path):
    """For every kind of call, the server does the work, and the connection breaks before it responds."""
    calls = ["experiments/create", "runs/create", "runs/log-batch", "runs/update", "runs/log-inputs", "a.txt"]
    proxy.lose = [*calls, "runs/create", "set-experiment-tag"]
    tracker, client = open_tracker(proxy, tmp_path, "lost")
    tracker.set_view("demo", "val_acc", "max", [])
    for number in range(2):
        tracker.open_trial(number, {"optim.lr": 0.1}, {})
        tracker.log_dataset(number, "faces", "d" * 64, "drawn", {}, "training")
        for epoch in range(1, 4):
            tracker.log_epoch(number, epoch, {"val_acc": number + epoch / 10})
        tracker.log_text(number, "a", "a.txt")
        tracker.close_trial(number, "COMPLETE")
    tracker.close_sweep("COMPLETE", "")
    wait_until(lambda: tracker.flush(10) == 0, 90)
    assert tracker.close(5) == 0
    assert proxy.lose == []
    runs = runs_in(client, "lost")
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert sorted(runs) == ["demo", "demo-000", "demo-001"]
    for number in range(2):
        run = runs[f"demo-00{number}"]
        points = client.get_metric_history(run.info.run_id, "val_acc")
        assert [(point.step, point.value) for point in points] == [(e, number + e / 10) for e in (1, 2, 3)]
        assert len(run.inputs.dataset_inputs) == 1


def test_a_run_that_the_server_creates_late_is_deleted(proxy, tmp_path, monkeypatch):
    """After a timeout the client creates the run with a second call, before the server handles the first one."""
    delays = iter([4.0])
    tracker, client = open_tracker(proxy, tmp_path, "late")
    assert tracker.flush(30) == 0
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")  # MLflow reads it at each call
    proxy.hold = lambda method, path: next(delays, 0.0) if path.endswith("runs/create") else 0.0
    tracker.open_trial(0, {}, {})
    tracker.log_epoch(0, 1, {"val_acc": 0.5})
    assert tracker.flush(30) == 0
    experiment_id = client.get_experiment_by_name("late").experiment_id
    wait_until(lambda: len(client.search_runs([experiment_id])) == 3)  # the parent run, and two of trial 0
    delays = iter([4.0])
    tracker.log_fold(0, 0, [{"epoch": 1, "val_acc": 0.5}], {"fold_val_acc": 0.5}, None)
    assert tracker.flush(30) == 0
    wait_until(lambda: len(client.search_runs([experiment_id])) == 5)
    tracker.close_trial(0, "COMPLETE")
    tracker.close_sweep("COMPLETE", "")
    assert tracker.close(30) == 0
    runs = runs_in(client, "late")
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert sorted(runs) == ["demo", "demo-000", "demo-000-fold0"]
    assert runs["demo-000"].data.metrics == {"val_acc": 0.5}


def test_a_file_too_large_for_a_proxy_does_not_stop_the_upload(proxy, tmp_path):
    tracker, client = open_tracker(proxy, tmp_path, "large")
    proxy.max_body_bytes = 100_000
    tracker.open_trial(0, {}, {})
    (tmp_path / "demo" / "best.ckpt").write_bytes(bytes(200_000))
    tracker.log_artifact(0, tmp_path / "demo" / "best.ckpt", "checkpoint")
    tracker.log_text(0, "x" * 200_000, "large.txt")
    tracker.log_epoch(0, 1, {"val_acc": 0.5})
    tracker.close_trial(0, "COMPLETE")
    assert tracker.flush(30) == 0
    tracker.close(1)
    assert runs_in(client, "large")["demo-000"].data.metrics == {"val_acc": 0.5}
    refused = [json.loads(line) for line in (tmp_path / "demo" / "rejected.jsonl").read_text().splitlines()]
    assert [(entry["path"], entry["reason"]) for entry in refused] == [
        ("best.ckpt", "too large for the server"), ("large.txt", "too large for the server"),
    ]  # fmt: skip


def test_a_store_that_fails_at_one_call_in_eight_gets_everything(proxy, tmp_path):
    """A batch takes dozens of calls, of which some fail each time, so batches must become smaller."""
    tracker, client = open_tracker(proxy, tmp_path, "flaky")
    for number in range(8):
        tracker.open_trial(number, {}, {})
        tracker.log_epoch(number, 1, {"val_acc": number / 10})
        tracker.close_trial(number, "COMPLETE")
    rng = random.Random(0)

    def busy(method, path):
        proxy.response = (503, "text/plain", b"busy") if rng.random() < 1 / 8 else None
        return 0.0

    tracker.close(0)
    proxy.hold = busy
    num_uploaded = 0
    while num_uploaded == 0:
        with suppress(TrackingError):  # five failures without a record uploaded in between
            num_uploaded = sync(
                tmp_path / "demo", TrackingSettings(output_dir=tmp_path, uri=proxy.url, experiment="flaky")
            )
    proxy.hold, proxy.response = lambda method, path: 0.0, None
    runs = runs_in(client, "flaky")
    assert len(runs) == 9
    assert {run.info.status for name, run in runs.items() if name != "demo"} == {"FINISHED"}
    assert {name: run.data.metrics for name, run in runs.items() if name != "demo"} == {
        f"demo-00{number}": {"val_acc": number / 10} for number in range(8)
    }
