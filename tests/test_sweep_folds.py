"""Cross-validated sweeps and trainings as a user runs them (real processes, Ray, MLflow), and a driver that is killed."""

import json
import signal

import pytest
import torch

import ferhpo
from ferhpo.components.build import instantiate
from ferhpo.config.folds import fold_folder
from ferhpo.evaluation.load import load_subject
from tests.test_kill import wait_for

pytestmark = [pytest.mark.full, pytest.mark.timeout(900), pytest.mark.usefixtures("warm")]
NUM_TRIALS, FOLDS, EPOCHS = 2, 3, 3
OVERRIDES = [
    "name=hurt",
    f"num_trials={NUM_TRIALS}",
    f"data.folds={FOLDS}",
    f"trainer.max_epochs={EPOCHS}",
    "data.num_train=420",
    "data.num_val=140",
    "data.num_test=14",
    "tracking.report=false",
    "compute.num_cpus=2",
    "compute.gpus_per_trial=0",
]


def runs_of(folder):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("ferhpo")
    return client, client.search_runs([experiment.experiment_id], max_results=1000)


def points(client, run, metric):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]


def assert_whole(folder):
    """Check that study, files and MLflow have every fold of every trial once, and that no run is left running."""
    sweep = ferhpo.load_sweep("hurt", folder)
    trials = sweep.trials()
    assert [trial.number for trial in trials] == list(range(NUM_TRIALS))
    assert {trial.state for trial in trials} <= {"COMPLETE", "PRUNED"}
    client, runs = runs_of(folder)
    assert {run.info.status for run in runs} == {"FINISHED"}
    by_name = {run.info.run_name.partition(" (")[0]: run for run in runs}
    assert len(by_name) == len(runs) == 1 + NUM_TRIALS + sum(len(trial.folds) for trial in trials)
    for trial in trials:
        assert (len(trial.folds) == FOLDS) == (trial.state == "COMPLETE")
        assert [row["fold"] for row in trial.folds] == list(range(1, len(trial.folds) + 1))
        assert trial.value == trial.folds[-1]["val_acc"]
        run = by_name[f"hurt-{trial.number:03d}"]
        assert points(client, run, "val_acc") == [(row["fold"], row["val_acc"]) for row in trial.folds]
        assert run.data.metrics["best_val_acc"] == pytest.approx(trial.value, rel=1e-4)
        assert run.data.metrics["num_folds"] == len(trial.folds)
        best = []
        for fold, epochs in enumerate(trial.fold_epochs):
            own = by_name[f"hurt-{trial.number:03d}-fold{fold}"]
            assert own.data.tags["mlflow.parentRunId"] == run.info.run_id
            for metric in ("val_acc", "epoch_seconds"):
                assert points(client, own, metric) == [(row["epoch"], row[metric]) for row in epochs]
            assert [file.path for file in client.list_artifacts(own.info.run_id, "checkpoint")]
            kept = json.loads((fold_folder(sweep.trial_folder(trial.number), fold) / "fold.json").read_text())
            assert [row["epoch_seconds"] for row in kept["epochs"]] == [row["epoch_seconds"] for row in epochs]
            best.append(max(row["val_acc"] for row in epochs))
            assert trial.folds[fold]["val_acc"] == pytest.approx(sum(best) / len(best))


def test_a_killed_driver_is_resumed_by_folds(warm, tmp_path):
    folder, log = tmp_path / "mlruns", tmp_path / "log.txt"

    def in_a_later_fold(trials):
        """Return whether an unfinished trial has ended a fold, and an epoch of the next one."""
        for trial in trials:
            if trial.state == "RUNNING" and trial.folds and trial.decisions[-1] == "CONTINUE":
                own_folder = fold_folder(folder / "hurt" / "trials" / f"{trial.number:04d}", len(trial.folds))
                if (own_folder / "last.ckpt").exists() and not (own_folder / "fold.json").exists():
                    return True
        return False

    driver = warm.start("sweep", "demo", f"output_dir={folder}", *OVERRIDES, log=log)
    try:
        wait_for(in_a_later_fold, driver, folder, log)
        driver.send_signal(signal.SIGKILL)
        driver.wait(60)
    finally:
        driver.kill()
    before = ferhpo.load_sweep("hurt", folder).trials()
    ended = {path: path.stat().st_mtime_ns for path in folder.glob("hurt/trials/*/fold*/fold.json")}
    histories = {
        path: torch.load(path, weights_only=True)["history"] for path in folder.glob("hurt/trials/*/fold*/last.ckpt")
    }
    interrupted = [path for path in histories if path.with_name("fold.json") not in ended]
    assert ended
    assert interrupted

    resumed = warm.start("sweep", "--resume", "hurt", f"output_dir={folder}", log=log)
    assert resumed.wait(600) == 0, log.read_text()

    for path, written in ended.items():
        assert path.stat().st_mtime_ns == written, "an ended fold is not trained again"
    for path, history in histories.items():
        # Including timings: a training that restarted would have others.
        assert torch.load(path, weights_only=True)["history"][: len(history)] == history
    after = {trial.number: trial for trial in ferhpo.load_sweep("hurt", folder).trials()}
    for trial in before:
        assert after[trial.number].folds[: len(trial.folds)] == trial.folds
    assert_whole(folder)
    assert "Registered ferhpo-hurt version 1" in log.read_text()


def test_a_training_is_cross_validated_as_a_trial_is(tmp_path, tiny, capsys):
    result = ferhpo.train("demo", [*tiny, "name=one", "data.folds=2"])
    trial = result.best
    assert (trial.state, len(trial.folds), len(trial.fold_epochs[0])) == ("COMPLETE", 2, 3)
    client, runs = runs_of(tmp_path / "mlruns")
    assert {run.info.run_name for run in runs} == {"one", "one-000", "one-000-fold0", "one-000-fold1"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    (trial_run,) = [run for run in runs if run.info.run_name == "one-000"]
    answer = json.loads(
        (tmp_path / "mlruns/artifacts" / trial_run.info.run_id / "artifacts/confusion.json").read_text()
    )
    assert sum(map(sum, answer["confusion"])) == 140 + 70, "each pooled image was judged once"
    (version,) = client.search_model_versions("name = 'ferhpo-one'")
    assert version.tags["ferhpo.fold"] == "0"
    assert f"val_acc {trial.value:.4f}, the mean of 2 folds" in version.description
    described = json.loads((result.sweep.kept_folder(0) / "model" / "model.json").read_text())
    assert described["scores"]["val_acc"] == trial.value
    data = instantiate(result.sweep.config["data"], "data")
    predictions = load_subject(result.sweep, trial, data).predictions
    kept = trial.fold_epochs[0][trial.best_epoch - 1]
    assert predictions.acc == pytest.approx(kept["val_acc"]), "on the images that fold 0 did not train on"
    note = next(run.data.tags["mlflow.note.content"] for run in runs if run.info.run_name == "one")
    assert f"val_acc {trial.value:.4f}, the mean of 2 folds (standard deviation {trial.std('val_acc'):.4f})" in note
    from ferhpo.cli import main

    assert main(["runs", "one", "--output-dir", str(tmp_path / "mlruns")]) == 0
    assert f"{trial.value:.4f} ±{trial.std('val_acc'):.4f}" in capsys.readouterr().out
    (board,) = (tmp_path / "mlruns/artifacts").glob("*/artifacts/leaderboard.csv")
    heading, row = board.read_text().splitlines()
    assert heading.startswith("trial,state,value,val_acc_dedup,val_acc_std,val_loss,val_macro_f1,std,folds,")
    row = dict(zip(heading.split(","), row.split(","), strict=True))
    assert [row[key] for key in ("value", "val_acc_dedup", "std", "folds")] == [
        str(value) for value in (trial.value, trial.dedup_acc, trial.std("val_acc"), 2)
    ]
