"""Recording to a real SQLite store: what MLflow has afterwards, and that repeated uploads change nothing."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter

import pytest
from mlflow import MlflowClient

from ferhpo.errors import TrackingError
from ferhpo.tracking import Tracker, TrackingSettings, sync, view_url
from ferhpo.tracking.store import connect
from ferhpo.tracking.view import TAG_PREFIX

WAIT_SECONDS = 60


@pytest.fixture
def settings(tmp_path, empty_store):
    """Settings with an empty store in `tmp_path`."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return TrackingSettings(output_dir=tmp_path)


def record_sweep(folder, settings, trials=range(3)):
    """Record trials of four epochs, each with another final state; the parent run stays open. Returns the tracker."""
    tracker = Tracker(folder, settings)
    tracker.open_sweep("demo", {"sampler": "tpe", "optim.lr": 0.123456}, {"ferhpo.git_commit": "abc"}, "**started**")
    tracker.set_view("demo", "val_acc", "max", ["optim.lr"], ["val_loss"])
    for number in trials:
        tracker.open_trial(number, {"optim.lr": 0.01 * number + 0.00123456}, {"ferhpo.seed": str(number)})
        tracker.log_dataset(number, "faces", "a" * 64, "drawn", {"num_train": 100}, "training")
        for epoch in range(1, 5):
            tracker.log_epoch(number, epoch, {"val_acc": number + epoch / 10, "val_loss": float("nan")})
        tracker.log_metrics(number, {"best_val_acc": number + 0.4, "num_parameters": 1234})
        tracker.log_text(number, "a: 1\n", "config.yaml")
    states = ["COMPLETE", "PRUNED", "DIVERGED", "INFEASIBLE", "FAILED", "STOPPED"]
    for number in trials:
        tracker.close_trial(number, states[number], {"ferhpo.reason": "because"})
    return tracker


def everything(settings):
    """Return the content of the store for comparison, without the times at which MLflow changed it."""
    connection = sqlite3.connect(settings.sqlite_path)
    tables = ["runs", "metrics", "latest_metrics", "params", "tags", "datasets", "inputs", "input_tags", "experiments"]
    tables += ["experiment_tags", "logged_models", "logged_model_tags"]
    content = {}
    for table in tables:
        cursor = connection.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        keep = [i for i, name in enumerate(names) if name not in ("last_update_time", "last_updated_timestamp_ms")]
        content[table] = sorted(repr([row[i] for i in keep]) for row in cursor)
    connection.close()
    return content


def runs_of(settings):
    """Return a client, and the runs of the experiment by name."""
    client = connect(settings)
    experiment = client.get_experiment_by_name(settings.experiment)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    return client, {run.info.run_name: run for run in runs}


def test_the_store_is_not_asked_about_each_trial(tmp_path, settings, monkeypatch):
    """A run that was just created is known, and the run above it is looked at once for many."""
    asked = Counter()
    for name in ("get_run", "search_runs"):
        original = getattr(MlflowClient, name)

        def counted(self, *args, name=name, original=original, **options):
            asked[name] += 1
            return original(self, *args, **options)

        monkeypatch.setattr(MlflowClient, name, counted)
    tracker = record_sweep(tmp_path, settings, range(6))
    tracker.start()
    assert tracker.flush(WAIT_SECONDS) == 0
    tracker.close(1.0)
    assert asked["search_runs"] == 1, "for the run of the sweep"
    assert asked["get_run"] <= 3, "one look at the sweep's run in each upload"


def test_a_parent_run_that_is_deleted_between_two_uploads_is_restored(tmp_path, settings):
    tracker = record_sweep(tmp_path, settings, range(2))
    tracker.start()
    assert tracker.flush(WAIT_SECONDS) == 0
    client, runs = runs_of(settings)
    client.delete_run(runs["demo"].info.run_id)
    tracker.open_trial(5, {"optim.lr": 0.5}, {"ferhpo.seed": "5"})
    assert tracker.flush(WAIT_SECONDS) == 0
    tracker.close(1.0)
    assert {"demo", "demo-005"} <= set(runs_of(settings)[1])


def test_importing_tracking_does_not_import_mlflow():
    code = "import sys, ferhpo.tracking, ferhpo.tracking.registry; print({'mlflow', 'torch', 'ray'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_mlflow_has_the_whole_sweep(tmp_path, settings):
    tracker = record_sweep(tmp_path / "demo", settings, range(6))
    (tmp_path / "demo" / "best.ckpt").write_bytes(b"weights")
    tracker.log_artifact(0, tmp_path / "demo" / "best.ckpt", "checkpoints")
    tracker.close_sweep("COMPLETE", "**done**")
    assert tracker.run_id(0) is None
    tracker.start()
    assert tracker.flush(WAIT_SECONDS) == 0
    assert tracker.last_error is None

    client, runs = runs_of(settings)
    parent = runs["demo"]
    assert parent.data.tags["mlflow.note.content"] == "**done**"
    assert parent.data.params == {"sampler": "tpe", "optim.lr": "0.1235"}
    assert parent.info.run_id == tracker.run_id(None)
    statuses = {name: (run.info.status, run.data.tags["ferhpo.state"]) for name, run in runs.items()}
    assert statuses == {
        "demo": ("FINISHED", "COMPLETE"),
        "demo-000": ("FINISHED", "COMPLETE"),
        "demo-001 (pruned)": ("FINISHED", "PRUNED"),
        "demo-002 (diverged)": ("FAILED", "DIVERGED"),
        "demo-003 (infeasible)": ("FAILED", "INFEASIBLE"),
        "demo-004 (failed)": ("FAILED", "FAILED"),
        "demo-005": ("KILLED", "STOPPED"),
    }
    child = runs["demo-002 (diverged)"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["ferhpo.trial"] == f"{tracker.sweep_id}/2"
    assert child.data.params == {"optim.lr": "0.02123"}
    assert child.data.metrics["best_val_acc"] == 2.4
    history = client.get_metric_history(child.info.run_id, "val_acc")
    assert [(m.step, m.value) for m in history] == [(1, 2.1), (2, 2.2), (3, 2.3), (4, 2.4)]
    assert child.info.start_time <= history[0].timestamp <= child.info.end_time
    [data] = child.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("faces", "a" * 12)
    assert json.loads(data.dataset.profile)["digest"] == "a" * 64
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "training")]
    assert [f.path for f in client.list_artifacts(runs["demo-000"].info.run_id, "checkpoints")] == [
        "checkpoints/best.ckpt"
    ]
    assert (tmp_path / "artifacts" / child.info.run_id / "artifacts" / "config.yaml").read_text() == "a: 1\n"
    view = client.get_experiment(tracker.experiment_id).tags[TAG_PREFIX + tracker.sweep_id]
    assert json.loads(view)["state"].startswith("deflate;")
    assert view_url("http://h:1/", tracker.experiment_id, tracker.sweep_id) == (
        f"http://h:1/#/experiments/{tracker.experiment_id}/runs"
        f"?workflowType=machine_learning&viewStateShareKey={tracker.sweep_id}"
    )
    assert tracker.close(WAIT_SECONDS) == 0


def record_folds(folder, settings):
    """Record a trial of two folds; the second fold by another tracker, which logs the first one again."""
    checkpoint = folder / "trials" / "0000" / "fold0" / "best.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    for num_folds in (1, 2):
        tracker = Tracker(folder, settings)
        tracker.open_sweep("demo", {}, {}, "")
        tracker.open_trial(0, {}, {})
        for fold in range(num_folds):
            epochs = [{"epoch": epoch, "val_acc": fold + epoch / 10, "epoch_seconds": 2.0} for epoch in (1, 2)]
            kept = checkpoint if fold == 0 else None
            tracker.log_epoch(0, fold + 1, {"val_acc": 0.5 + fold / 100})
            tracker.log_fold(0, fold, epochs, {"fold_val_acc": fold + 0.2, "best_epoch": 2}, kept)
        if num_folds == 2:
            tracker.close_trial(0, "COMPLETE")
            tracker.close_sweep("COMPLETE", "")
        tracker.close(0)


def test_each_fold_has_one_run_below_its_trials_run(tmp_path, settings):
    folder = tmp_path / "demo"
    record_folds(folder, settings)
    assert sync(folder, settings) == 10
    client, runs = runs_of(settings)
    assert set(runs) == {"demo", "demo-000", "demo-000-fold0", "demo-000-fold1"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    trial = runs["demo-000"]
    means = client.get_metric_history(trial.info.run_id, "val_acc")
    assert [(point.step, point.value) for point in means] == [(1, 0.5), (2, 0.51)]
    for fold in (0, 1):
        run = runs[f"demo-000-fold{fold}"]
        assert run.data.tags["mlflow.parentRunId"] == trial.info.run_id
        assert run.data.tags["ferhpo.fold"] == str(fold)
        assert "ferhpo.sweep_id" not in run.data.tags, "the sweep's view shows trials"
        points = client.get_metric_history(run.info.run_id, "val_acc")
        assert [(p.step, p.value) for p in points] == [(1, fold + 0.1), (2, fold + 0.2)]
        assert points[1].timestamp - points[0].timestamp == 2000
        assert run.info.end_time - run.info.start_time == 4000
        assert run.data.metrics["fold_val_acc"] == fold + 0.2
        files = [file.path for file in client.list_artifacts(run.info.run_id, "checkpoint")]
        assert files == (["checkpoint/best.ckpt"] if fold == 0 else [])
    before = everything(settings)
    (folder / "spool.shipped.json").unlink()
    assert sync(folder, settings) == 10
    assert everything(settings) == before


@pytest.mark.parametrize("lost", ["half", "all"])
def test_uploading_again_changes_nothing(tmp_path, settings, lost):
    """A process is killed after an upload, before it has saved the upload position; or the position is deleted."""
    folder = tmp_path / "demo"
    tracker = record_sweep(folder, settings)
    tracker.close(0)
    position_file = folder / "spool.shipped.json"
    assert sync(folder, settings) == 30
    size = (folder / "spool.jsonl").stat().st_size
    if lost == "half":
        position = json.loads(position_file.read_text())
        lines = (folder / "spool.jsonl").read_bytes().splitlines(keepends=True)[:16]
        position["seq"], position["offset"] = 16, sum(map(len, lines))
        position["runs"] = {run: position["runs"][run] for run in ("", "0", "1")}  # trial 2 was not known yet
        assert 0 < position["offset"] < size
        position_file.write_text(json.dumps(position))
    else:
        position_file.unlink()
    before = everything(settings)
    assert len(before["metrics"]) == 3 * 10
    assert sync(folder, settings) == (14 if lost == "half" else 30)
    assert everything(settings) == before
    assert sync(folder, settings) == 0


def test_a_resumed_sweep_continues_its_runs(tmp_path, settings):
    tracker = record_sweep(tmp_path / "demo", settings, range(2))
    tracker.close_sweep("STOPPED", "interrupted")
    tracker.start()
    assert tracker.close(WAIT_SECONDS) == 0
    again = Tracker(tmp_path / "demo", settings)
    again.open_sweep("demo", {"sampler": "tpe", "optim.lr": 0.5, "new": 1}, {}, "resumed")
    again.open_trial(1, {"optim.lr": 0.01123456}, {})
    again.log_epoch(1, 4, {"val_acc": 99.0})  # recorded before: ignored
    again.log_epoch(1, 5, {"val_acc": 1.5})
    again.log_metrics(1, {"best_val_acc": 1.5, "num_parameters": 1234})
    again.start()
    assert again.flush(WAIT_SECONDS) == 0
    client, runs = runs_of(settings)
    assert len(runs) == 3
    assert runs["demo"].data.params == {"sampler": "tpe", "optim.lr": "0.1235", "new": "1"}
    assert runs["demo"].data.tags["ferhpo.changed.optim.lr"] == "0.5"
    assert {runs[name].info.status for name in ("demo", "demo-001")} == {"RUNNING"}
    assert [m.value for m in client.get_metric_history(again.run_id(1), "val_acc")] == [1.1, 1.2, 1.3, 1.4, 1.5]
    assert [m.value for m in client.get_metric_history(again.run_id(1), "num_parameters")] == [1234]
    assert [m.value for m in client.get_metric_history(again.run_id(1), "best_val_acc")] == [1.4, 1.5]
    again.close_trial(1, "COMPLETE")
    again.close_sweep("COMPLETE", "done")
    assert again.close(WAIT_SECONDS) == 0
    assert not (tmp_path / "demo" / "rejected.jsonl").exists()
    assert {run.info.status for run in runs_of(settings)[1].values()} == {"FINISHED"}


def test_a_resumed_sweep_has_one_model_for_each_trial(tmp_path, settings):
    """A resume exports the best network again; a second record would become a second version in the registry."""
    for _ in range(2):
        tracker = Tracker(tmp_path / "demo", settings)
        tracker.open_sweep("demo", {}, {}, "")
        tracker.open_trial(0, {}, {})
        tracker.log_model(0, tmp_path / "demo" / "model")
        tracker.close(0)
    records = [json.loads(line) for line in (tmp_path / "demo" / "spool.jsonl").read_text().splitlines()]
    assert [record["op"] for record in records].count("model") == 1


def test_sync_closes_runs_that_a_killed_driver_left_open_and_a_resume_reopens_them(tmp_path, settings):
    folder = tmp_path / "demo"
    record_sweep(folder, settings, range(1)).close(0)  # trial 0 is closed, the sweep is not
    killed = Tracker(folder, settings)
    killed.open_trial(1, {}, {})
    killed.log_epoch(1, 1, {"val_acc": 0.1})
    killed.close(0)
    assert sync(folder, settings) == 15
    _, runs = runs_of(settings)
    assert {name: run.info.status for name, run in runs.items()} == {
        "demo": "KILLED", "demo-000": "FINISHED", "demo-001": "KILLED",
    }  # fmt: skip
    assert runs["demo-001"].data.tags["ferhpo.reason"] == "its driver was killed; can be resumed"
    last = json.loads((folder / "spool.jsonl").read_text().splitlines()[-3])
    assert runs["demo-001"].info.end_time == last["time_ms"], "the time of the kill, not of the upload"
    assert sync(folder, settings) == 0

    resumed = Tracker(folder, settings)
    assert resumed.was_closed(0)
    assert not resumed.was_closed(1), "STOPPED is not final: the study may have another end of the trial"
    resumed.open_sweep("demo", {}, {}, "")
    resumed.open_trial(1, {}, {})
    resumed.close_trial(1, "COMPLETE", {"ferhpo.reason": ""})
    resumed.close_sweep("COMPLETE", "")
    resumed.close(0)
    assert sync(folder, settings) == 4
    assert {run.info.status for run in runs_of(settings)[1].values()} == {"FINISHED"}


def test_what_mlflow_refuses_is_set_aside_alone(tmp_path, settings, caplog):
    folder = tmp_path / "demo"
    tracker = Tracker(folder, settings)
    tracker.open_sweep("demo", {}, {}, "")
    tracker.open_trial(0, {"a": 1, "b": 2}, {})
    tracker.open_trial(0, {"a": 7, "c": 3}, {"tag": "kept"})  # a parameter never changes in MLflow: a tag has it
    tracker.log_epoch(0, 1, {"val_acc": 0.5, "bad!name": 1.0})
    tracker.log_artifact(0, folder / "gone.txt")
    tracker.close_trial(0, "COMPLETE")
    tracker.start()
    assert tracker.close(WAIT_SECONDS) == 0
    _, runs = runs_of(settings)
    run = runs["demo-000"]
    assert run.data.params == {"a": "1", "b": "2", "c": "3"}
    assert run.data.metrics == {"val_acc": 0.5}
    assert run.data.tags["tag"] == "kept"
    assert run.data.tags["ferhpo.changed.a"] == "7"
    assert run.info.status == "FINISHED"
    rejected = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert [(r["seq"], r["kind"], r.get("key") or r.get("path")) for r in rejected] == [
        (5, "artifact", "gone.txt"), (4, "metric", "bad!name"),
    ]  # fmt: skip
    assert "cannot upload gone.txt: the file was removed before it was uploaded" in caplog.text

    (folder / "spool.shipped.json").unlink()  # uploading again does not add lines to rejected.jsonl
    sync(folder, settings)
    assert len((folder / "rejected.jsonl").read_text().splitlines()) == 2

    (folder / "gone.txt").write_text("back")
    assert sync(folder, settings) == 1, "what was refused and is uploaded later is no longer called refused"
    assert [json.loads(line)["key"] for line in (folder / "rejected.jsonl").read_text().splitlines()] == ["bad!name"]


def test_a_run_that_the_user_deleted_does_not_stop_the_upload(tmp_path, settings, caplog):
    tracker = record_sweep(tmp_path / "demo", settings, range(2))
    tracker.start()
    assert tracker.flush(WAIT_SECONDS) == 0
    client, _ = runs_of(settings)
    client.delete_run(tracker.run_id(0))
    tracker.log_metrics(0, {"late": 1.0})
    tracker.close_trial(0, "COMPLETE")
    tracker.log_metrics(1, {"late": 1.0})
    assert tracker.close(WAIT_SECONDS) == 0
    _, runs = runs_of(settings)
    assert runs["demo-001 (pruned)"].data.metrics["late"] == 1.0
    assert "demo-000" not in runs
    assert "2 values of a deleted run" in caplog.text


def test_more_values_than_mlflows_limits_are_split_into_batches(tmp_path, settings):
    tracker = Tracker(tmp_path / "demo", settings)
    tracker.open_sweep("demo", {f"p{i:03d}": i for i in range(250)}, {f"t{i:03d}": str(i) for i in range(250)}, "")
    tracker.open_trial(0, {}, {})
    for epoch in range(400):
        tracker.log_epoch(0, epoch, {f"m{i}": float(epoch) for i in range(6)})
    tracker.start()
    assert tracker.close(WAIT_SECONDS) == 0
    client, runs = runs_of(settings)
    assert len(runs["demo"].data.params) == 250
    assert sum(key.startswith("t") for key in runs["demo"].data.tags) == 250
    assert len(client.get_metric_history(runs["demo-000"].info.run_id, "m3")) == 400


def test_sync_is_refused_while_a_sweep_runs(tmp_path, settings):
    tracker = record_sweep(tmp_path / "demo", settings, range(1))
    with pytest.raises(TrackingError, match="demo is in use by a running sweep or ferhpo sync, which uploads its"):
        sync(tmp_path / "demo", settings)
    tracker.close(0)


def test_sync_without_a_store_says_how_many_records_were_uploaded(tmp_path):
    settings = TrackingSettings(output_dir=tmp_path, uri="http://127.0.0.1:9")
    record_sweep(tmp_path / "demo", settings, range(1)).close(0)
    with pytest.raises(
        TrackingError, match=r"0 of 12 records uploaded; http://127.0.0.1:9: connection refused; start the server, then"
    ):
        sync(tmp_path / "demo", settings)


def test_another_store_gets_the_whole_sweep(tmp_path, settings, empty_store):
    record_sweep(tmp_path / "demo", settings).close(0)
    sync(tmp_path / "demo", settings)
    (tmp_path / "b").mkdir()
    shutil.copy(empty_store, tmp_path / "b" / "mlflow.db")
    other = TrackingSettings(output_dir=tmp_path / "b")
    assert sync(tmp_path / "demo", other) == 30
    assert len(everything(other)["metrics"]) == len(everything(settings)["metrics"]) == 30


def test_another_database_at_the_same_address_is_refused(tmp_path, settings, empty_store):
    folder = tmp_path / "demo"
    record_sweep(folder, settings).close(0)
    sync(folder, settings)
    shutil.copy(empty_store, settings.sqlite_path)
    tracker = Tracker(folder, settings)
    tracker.log_metrics(0, {"late": 1.0})
    tracker.close(0)
    with pytest.raises(
        TrackingError, match=r"does not have this sweep's parent run; start the server with its previous database, or"
    ):
        sync(folder, settings)
    assert not (folder / "rejected.jsonl").exists()
    (folder / "spool.shipped.json").unlink()
    assert sync(folder, settings) == 31
    assert len(everything(settings)["metrics"]) == 31


def test_a_deleted_experiment_is_an_error_with_its_name(tmp_path, settings):
    client = connect(settings)
    client.delete_experiment(client.create_experiment("ferhpo"))
    record_sweep(tmp_path / "demo", settings, range(1)).close(0)
    with pytest.raises(TrackingError, match=r"tracking\.experiment is ferhpo; this experiment was deleted; restore it"):
        sync(tmp_path / "demo", settings)


def test_the_view_has_curves_first_and_a_chart_for_each_branch():
    from ferhpo.tracking.view import rounded, view_state

    branches = {"": ["optim.lr"], "optim=sgd": ["optim.lr", "optim.momentum"]}
    state = view_state(
        "id", "val_acc", "max", ["optim.lr", "optim.momentum"], ["val_loss", "train_loss"], branches=branches
    )
    assert [section["name"] for section in state["compareRunSections"]] == ["Curves", "Parameters and result"]
    charts = [(chart["displayName"], chart.get("selectedParams")) for chart in state["compareRunCharts"]]
    assert charts == [
        ("val_acc", None), ("val_loss", None), ("train_loss", None), ("Parameters and result", ["optim.lr"]),
        ("Parameters and result where optim=sgd", ["optim.lr", "optim.momentum"]),
    ]  # fmt: skip
    assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == len(charts)
    assert state["selectedColumns"] == [
        "tags.`ferhpo.state`", "metrics.`best_val_acc`", "metrics.`best_epoch`", "params.`optim.lr`", "params.`optim.momentum`",
    ]  # fmt: skip
    assert rounded(0.3956533812) == 0.39565


def test_the_axes_of_a_chart_are_those_that_all_of_its_trials_have():
    from ferhpo.config.compose import compose
    from ferhpo.publish.sweep_run import _is_sampled, branches_of

    conditional = ["space.optim.options=[adam,sgd]", "space.model.conv_dropout.when={model.num_blocks:[2,3]}"]
    composed = compose("demo", ["~space.model.block_channels", *conditional])
    draws = composed.space().draws
    common = ["optim", "model.stem_channels", "model.num_blocks", "model.dense_dropout", "optim.lr"]
    assert branches_of(draws) == {
        "": common,
        "optim=sgd": [*common, "optim.momentum"],
        "model.num_blocks=2 or 3": [*common, "model.conv_dropout"],
    }
    assert branches_of(compose("vulpe2021", []).space().draws)[""][0] == "model.stem_channels"
    sampled = [path for path in ("optim.lr", "optim.nesterov", "model.num_blocks") if _is_sampled(path, draws)]
    assert sampled == ["optim.lr", "optim.nesterov", "model.num_blocks"]
    assert not any(_is_sampled(path, draws) for path in ("model.norm", "trainer.max_epochs", "data.num_train"))
