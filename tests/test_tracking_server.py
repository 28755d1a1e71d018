"""Recording to a real MLflow server over HTTP, while it stops and restarts, and its UI in a browser."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest

from ferhpo.inference.export import export_model
from ferhpo.tracking import Tracker, TrackingSettings, check_store, sync, view_url
from ferhpo.tracking.fetch import download
from ferhpo.tracking.registered import aliases
from ferhpo.tracking.registry import register, versions
from ferhpo.tracking.store import connect
from tests.servers import Server, wait_until
from tests.test_tracking_models import CNN, CNN_CONFIG, GRAY, expected, make_checkpoint

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for all tests of this module, because it starts slowly; each test has its own experiment."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


def record_epochs(tracker, numbers, epochs):
    """Record epochs of trials, 100 a second."""
    for number in numbers:
        for epoch in epochs:
            tracker.log_epoch(number, epoch, {"val_acc": number + epoch / 100, "val_loss": 1.0 / (epoch + 1)})
            time.sleep(0.01)


def test_an_unreachable_server_causes_one_warning(server, tmp_path, caplog, capfd):
    settings = TrackingSettings(output_dir=tmp_path, uri=server.url, experiment="outage")
    assert check_store(settings) is None
    tracker = Tracker(tmp_path / "demo", settings)
    tracker.open_sweep("demo", {}, {}, "")
    tracker.start()
    for number in range(4):
        tracker.open_trial(number, {"optim.lr": 0.1}, {})
    record_epochs(tracker, range(4), range(25))
    wait_until(lambda: tracker.run_id(3) is not None)
    record_epochs(tracker, range(4), range(25, 30))
    server.stop()  # while records are uploaded

    start = time.perf_counter()
    record_epochs(tracker, range(4), range(30, 60))
    tracker.log_text(0, "written while the server was down", "note.txt")
    for number in range(4):
        tracker.close_trial(number, "COMPLETE")
    tracker.open_trial(4, {"optim.lr": 0.2}, {})
    assert time.perf_counter() - start < 3  # 120 epochs; the pauses between them take 1.2 s
    wait_until(lambda: tracker.last_error is not None)
    assert tracker.unshipped >= 125
    wait_until(lambda: tracker.last_error == "connection refused")
    assert tracker.flush(1) > 0
    assert sum("records are kept in" in message for message in caplog.messages) == 1

    server.start()
    assert tracker.flush(60) == 0
    assert tracker.last_error is None
    wait_until(
        lambda: sum("is available again" in message for message in caplog.messages) == 1
    )  # logged after the last record
    tracker.close_trial(4, "STOPPED")
    tracker.close_sweep("COMPLETE", "done")
    assert tracker.close(60) == 0

    client = connect(settings)
    experiment = client.get_experiment_by_name("outage")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["demo", *(f"demo-{i:03d}" for i in range(5))]
    for number in range(4):
        run_id = runs[f"demo-{number:03d}"].info.run_id
        history = client.get_metric_history(run_id, "val_acc")
        assert [(m.step, m.value) for m in history] == [(e, number + e / 100) for e in range(60)]
        assert runs[f"demo-{number:03d}"].info.status == "FINISHED"
    assert runs["demo-004"].info.status == "KILLED"
    fetched = client.download_artifacts(runs["demo-000"].info.run_id, "note.txt", str(tmp_path))
    assert Path(fetched).read_text() == "written while the server was down"
    assert not (tmp_path / "demo" / "rejected.jsonl").exists()
    assert capfd.readouterr().out == "", "MLflow must not print into a progress display"


def test_a_model_is_logged_and_registered_through_a_server(server, tmp_path):
    settings = TrackingSettings(output_dir=tmp_path, uri=server.url, experiment="models")
    tracker = Tracker(tmp_path / "demo", settings)
    tracker.open_sweep("demo", {}, {}, "")
    tracker.open_trial(0, {}, {})
    network, checkpoint = make_checkpoint(CNN_CONFIG, CNN, GRAY)
    tracker.log_model(0, export_model(checkpoint, CNN_CONFIG, tmp_path / "export", data_digest="d"))
    tracker.close_trial(0, "COMPLETE")
    tracker.start()
    assert tracker.flush(60) == 0
    model_id = tracker.model_id(0)
    tracker.close(5)
    (tmp_path / "demo" / "spool.shipped.json").unlink()
    sync(tmp_path / "demo", settings)
    assert register(settings, model_id, "faces", {"sweep": "demo"}, "text") == 1
    assert register(settings, model_id, "faces", {"sweep": "demo"}, "text") == 1
    aliases.move(settings, "faces", "champion", 1, None)
    assert [(v.number, v.aliases, v.model_id) for v in versions(settings, "faces")] == [(1, ("champion",), model_id)]
    images = np.random.default_rng(0).integers(0, 256, (7, 48, 48), dtype=np.uint8)
    model = mlflow.pyfunc.load_model(str(download(settings, "faces", "champion", tmp_path / "fetched")))
    np.testing.assert_allclose(model.predict(images), expected(network, GRAY, images), atol=1e-6)


RECORDER = """
import sys, time
from pathlib import Path
from ferhpo.tracking import Tracker, TrackingSettings
folder = Path(sys.argv[1])
tracker = Tracker(folder / "demo", TrackingSettings(output_dir=folder))
tracker.open_sweep("demo", {}, {}, "")
tracker.start()
for number in range(6):
    tracker.open_trial(number, {"optim.lr": number}, {})
    for epoch in range(30):
        tracker.log_epoch(number, epoch, {"val_acc": number + epoch / 100})
        time.sleep(0.01)
    tracker.close_trial(number, "COMPLETE")
tracker.close_sweep("COMPLETE", "")
sys.exit(tracker.close(60))
"""


def test_a_killed_recorder_duplicates_and_loses_nothing(tmp_path):
    settings = TrackingSettings(output_dir=tmp_path)
    connect(settings)  # creates the tables, so that each kill interrupts an upload
    position = tmp_path / "demo" / "spool.shipped.json"
    for num_uploaded in (20, 70, 130):
        process = subprocess.Popen([sys.executable, "-c", RECORDER, str(tmp_path)])
        wait_until(lambda least=num_uploaded: position.exists() and json.loads(position.read_text())["seq"] >= least)
        process.kill()
        process.wait()
    assert subprocess.run([sys.executable, "-c", RECORDER, str(tmp_path)]).returncode == 0
    client = connect(settings)
    runs = client.search_runs([client.get_experiment_by_name("ferhpo").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["demo", *(f"demo-{i:03d}" for i in range(6))]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        if run.data.params:
            number = int(run.data.params["optim.lr"])
            history = client.get_metric_history(run.info.run_id, "val_acc")
            assert [(m.step, m.value) for m in history] == [(e, number + e / 100) for e in range(30)]


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BROWSER_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_the_view_shows_the_trials_best_first(server, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    tracker = Tracker(tmp_path / "demo", TrackingSettings(output_dir=tmp_path, uri=server.url, experiment="view"))
    tracker.open_sweep("demo", {}, {}, "")
    tracker.set_view("demo", "val_acc", "max", ["optim.lr", "model.width"], ["val_loss"])
    for number in range(12):
        tracker.open_trial(number, {"optim.lr": 0.0123456 * (number + 1), "model.width": 32 * number}, {})
        record_epochs(tracker, [number], range(1, 3))
        tracker.log_metrics(number, {"best_val_acc": number / 20, "best_epoch": 2})
        tracker.close_trial(number, "PRUNED" if number % 2 else "COMPLETE")
    tracker.close_sweep("COMPLETE", "")
    tracker.start()
    assert tracker.flush(60) == 0
    address = view_url(server.url, tracker.experiment_id, tracker.sweep_id)
    tracker.close(10)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=BROWSER_FLAGS)
        page = browser.new_page(viewport={"width": 2400, "height": 900})
        page.goto(address)
        page.get_by_text("demo-011").first.wait_for(timeout=60_000)
        text = page.inner_text("body")
        rows = [word for word in text.split() if word.startswith("demo-")]
        page.goto(f"{address}&compareRunsMode=CHART")
        page.get_by_text("Parallel Coordinates").first.wait_for(timeout=60_000)
        browser.close()
    assert rows == [f"demo-{i:03d}" for i in range(11, -1, -1)]
    for column in ("best_val_acc", "best_epoch", "optim.lr", "model.width", "ferhpo.state"):
        assert column in text
    for value in ("0.55", "0.1481", "352", "PRUNED", "13 matching runs"):
        assert value in text
