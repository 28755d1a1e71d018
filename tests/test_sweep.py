"""Whole sweeps with real Ray (two slots), a real MLflow store and real networks, made small."""

import json
import os
import subprocess
import sys

import pytest

import ferhpo
from ferhpo.config import ComputeSettings
from ferhpo.errors import ConfigError, SweepError


@pytest.fixture(scope="module", autouse=True)
def ray_with_two_logical_gpus(warm):
    """One Ray for this file: two CPUs and two logical GPUs, without hardware."""
    from ferhpo.driver import ray_cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERHPO_PRETEND_GPU", "1")  # trials with a GPU train on the CPU
        ray_cluster.start_ray(ComputeSettings(num_cpus=2, num_gpus=2))
        yield
        ray_cluster.stop_ray()


CPU = "compute.gpus_per_trial=0"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A sweep of five trials with TPE and ASHA, run once for the tests that read it."""
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("sweep") / "mlruns"
    events = []
    result = ferhpo.sweep(
        "demo",
        [*TINY, f"output_dir={folder}", "num_trials=5", "name=tiny", CPU],
        listener=lambda ledger: events.append(dict(ledger.running)),
    )
    return result, folder, events


@pytest.fixture
def client(done):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{done[1]}/mlflow.db")


def children(client):
    runs = client.search_runs(["1"], max_results=1000)
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    return parent, [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]


def test_every_trial_ends_once(done):
    result, _, events = done
    trials = result.sweep.trials()
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    assert result.finished
    assert sum(result.counts.values()) == 5
    assert set(result.counts) <= {"COMPLETE", "PRUNED"}
    assert all(len(trial.epochs) == 3 for trial in trials if trial.state == "COMPLETE")
    assert all(trial.decisions[-1] == "STOP" for trial in trials if trial.state == "PRUNED")
    assert max(len(running) for running in events) == 2


def test_best_is_the_best_complete_value_of_any_epoch(done):
    trials = [t for t in done[0].sweep.trials() if t.state == "COMPLETE"]
    best = done[0].best
    assert best.value == max(max(row["val_acc"] for row in t.epochs) for t in trials)
    assert best.epochs[best.best_epoch - 1]["val_acc"] == best.value


def test_mlflow_holds_one_run_a_trial_with_its_curve_parameters_and_state(done, client):
    parent, runs = children(client)
    assert parent.info.status == "FINISHED"
    assert {run.info.status for run in runs} == {"FINISHED"}
    by_number = {int(run.data.tags["ferhpo.trial"].split("/")[1]): run for run in runs}
    assert sorted(by_number) == [0, 1, 2, 3, 4]
    for trial in done[0].sweep.trials():
        run = by_number[trial.number]
        history = client.get_metric_history(run.info.run_id, "val_acc")
        assert [(point.step, point.value) for point in history] == [(r["epoch"], r["val_acc"]) for r in trial.epochs]
        assert run.data.tags["ferhpo.state"] == trial.state
        assert run.data.metrics["best_val_acc"] == pytest.approx(trial.value, rel=1e-4)
        assert run.data.metrics["num_parameters"] == trial.extra["num_parameters"]
        assert float(run.data.params["optim.lr"]) == pytest.approx(trial.sample["optim.lr"], rel=1e-3)
        for key in ("train_loss", "train_acc", "val_loss", "val_macro_f1", "lr", "epoch_seconds", "images_per_second"):
            assert key in run.data.metrics, key
        assert run.inputs.dataset_inputs or parent.inputs.dataset_inputs
        artifacts = {file.path for file in client.list_artifacts(run.info.run_id, "checkpoint")}
        assert "checkpoint/best.ckpt" in artifacts
    top = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert top >= {"config.yaml", "leaderboard.csv", "space.yaml"}
    assert "Best: trial" in parent.data.tags["mlflow.note.content"]


def test_the_best_is_registered_and_answers_on_raw_images(done, client):
    name, version = done[0].registered
    registered = client.get_model_version(name, str(version))
    assert registered.tags["ferhpo.trial"] == str(done[0].best.number)
    promotion = ferhpo.promote("tiny", output_dir=str(done[1]), gates="none")
    assert (promotion.name, promotion.alias, promotion.version) == (name, "champion", version)
    program = (
        "import mlflow, numpy as np, sys\n"
        f"mlflow.set_tracking_uri('sqlite:///{done[1]}/mlflow.db')\n"
        f"model = mlflow.pyfunc.load_model('models:/{name}@champion')\n"
        "for count in (1, 7):\n"
        "    images = np.random.default_rng(0).integers(0, 256, (count, 48, 48), dtype=np.uint8)\n"
        "    probabilities = np.asarray(model.predict(images))\n"
        "    assert probabilities.shape == (count, 7) and probabilities.dtype == np.float32, probabilities\n"
        "    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)\n"
        "assert 'ferhpo' not in sys.modules\n"
    )
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=120)


def test_a_name_that_exists_offers_resume(done):
    with pytest.raises(SweepError) as caught:
        ferhpo.sweep("demo", ["name=tiny", f"output_dir={done[1]}", CPU])
    assert str(caught.value) == (
        f"sweep tiny already exists in {done[1]}. Resume with: ferhpo sweep --resume tiny output_dir={done[1]}; "
        "or start a new one with --new (tiny-2) or name=..."
    )


def test_a_finished_sweep_is_extended_by_resume(done):
    before = [(t.number, t.sample, t.value) for t in ferhpo.load_sweep("tiny", done[1]).trials()]
    result = ferhpo.sweep("tiny", [f"output_dir={done[1]}", "num_trials=6"], resume=True)
    after = [(t.number, t.sample, t.value) for t in result.sweep.trials()]
    assert len(after) == 6
    assert after[:5] == before


def test_resume_refuses_to_change_what_makes_trials_alike(done):
    with pytest.raises(ConfigError) as caught:
        ferhpo.sweep("tiny", [f"output_dir={done[1]}", "optim.lr=1"], resume=True)
    assert caught.value.faults[0] == (
        "optim.lr cannot change in a resumed sweep, whose trials must be comparable; only these can: "
        "num_trials, keep_checkpoints, budget, compute, tracking"
    )
    assert "warm_start='[tiny]'" in caught.value.faults[2]


@pytest.mark.full
@pytest.mark.parametrize(("share", "devices"), [(1, {"0", "1"}), (0.5, {"0", "1"})])
def test_each_trial_sees_its_own_gpu(tiny, share, devices):
    """Two logical GPUs: each trial has a whole one; with half a GPU each, two CPUs still allow two trials."""
    options = ["num_trials=4", f"compute.gpus_per_trial={share}", "scheduler=none", "trainer.max_epochs=1"]
    options += ["compute.cpus_per_trial=0.5", "compute.max_concurrent=4", "tracking=none"]
    result = ferhpo.sweep("demo", [*tiny, *options])
    visible = [trial.extra["cuda_visible_devices"] for trial in result.sweep.trials()]
    assert result.counts == {"COMPLETE": 4}
    assert set(visible) <= devices
    if share == 0.5:
        assert len(visible) > len(set(visible)), "a GPU is shared"


@pytest.mark.full
def test_outcomes_have_their_state_and_reason_and_the_sweep_goes_on(tiny):
    """A network pooled to nothing, a loss that is not finite, and a network without faults."""
    space = "space={trainer: {label_smoothing: {choices: [0.0, 0.1]}}}"
    options = ["num_trials=4", "scheduler=none", "sampler=grid", "tracking=none", CPU, "trainer.max_epochs=1"]
    space = "space={model: {num_blocks: {choices: [2, 7]}}, optim: {lr: {choices: [0.001, 1.0e30]}}}"
    result = ferhpo.sweep("demo", [*tiny, *options, "~space.model", "~space.optim", space.replace("space=", "+space=")])
    states = {(t.sample["model.num_blocks"], t.sample["optim.lr"]): t for t in result.sweep.trials()}
    assert states[2, 0.001].state == "COMPLETE"
    assert states[2, 1e30].state == "DIVERGED"
    assert "loss is" in states[2, 1e30].reason
    assert states[7, 0.001].state == states[7, 1e30].state == "INFEASIBLE"
    assert result.best.number == states[2, 0.001].number


def test_runs_prints_json_of_every_trial(done, capsys):
    from ferhpo.cli import main

    assert main(["runs", "tiny", "--output-dir", str(done[1]), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) >= 5
    assert rows[0]["state"] == "COMPLETE"
