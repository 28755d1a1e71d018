"""`ferhpo confirm`: arguments refused before anything starts; and, with real Ray, whole confirmations."""

import json
import os
import signal
import time
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import ferhpo
from ferhpo import cli
from ferhpo.config import Objective
from ferhpo.config.compose import compose
from ferhpo.confirmation.plan import changes, plan_confirmation
from ferhpo.confirmation.result import ConfirmationFound
from ferhpo.errors import ConfigError, FerhpoError, SweepError
from ferhpo.seeds import fresh_seeds
from ferhpo.storage import evaluation_log
from ferhpo.storage.lock import FolderLock
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.storage.sweep import create_sweep
from ferhpo.tracking import Tracker
from ferhpo.tuning.sweep import run_listed
from tests.conftest import TINY


@cache
def composed(*overrides):
    return compose("demo", ["num_trials=3", "tracking=none", *overrides])


def make_sweep(folder, name="made", states=("COMPLETE", "PRUNED", "COMPLETE"), *overrides):
    """Make a sweep of simulated trials, whose values increase with their numbers."""
    base = composed(*overrides)
    sweep = create_sweep(replace(base, config={**base.config, "name": name, "output_dir": str(folder)}))
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, Objective())
    for state in states:
        trial = study.ask()
        study.record_epoch(trial.number, 1, {"val_acc": 0.5 + trial.number / 10}, "CONTINUE")
        if state != "RUNNING":
            study.finish(trial.number, state)
    study.close()
    return sweep


REFUSED = [
    (["nothing"], {}, SweepError, "there is no sweep nothing in {folder}; choose from: empty, folder, made, pruned, random"),
    (["made"], {"top": 0, "seeds": -1}, ConfigError, "confirm: 2 faults\n  --top is 0; it must be 1 or more\n  --seeds is -1; it must be 1 or more"),
    (["made"], {"resume": True}, SweepError, "sweep made has no confirmation made-confirm to resume; leave out --resume"),
    (["pruned"], {}, SweepError, "sweep pruned has no complete trial to confirm; its trials: 2 pruned"),
    (["empty"], {}, SweepError, "sweep empty has no complete trial to confirm; its trials: none yet"),
    (["made", "name=pruned"], {}, SweepError, "pruned in {folder} is not a confirmation of this sweep made; choose another name with name=..., or start pruned-2 with --new"),
    (["made", "optim.lr=0.1"], {}, ConfigError, "confirm made: optim.lr was sampled by the sweep; every candidate keeps its own value; leave it out"),
    (["made", "trainer.max_epoch=3"], {}, ConfigError, "confirm made: trainer.max_epoch matches no key; did you mean trainer.max_epochs?"),
    (["made", "model=resnet"], {}, ConfigError, "confirm made: model is a config group and cannot be replaced here; set single keys, e.g. model.stem_channels=..."),
    (["made", "seed=1", "space.optim.lr.high=1"], {}, ConfigError, "confirm made: 2 faults\n  seed cannot be overridden in a confirmation; allowed: data, augment, model, optim, lr_schedule, trainer, compute, tracking, name\n  space.optim.lr.high cannot be overridden"),
    (["made", "trainer.label_smoothing=2"], {}, ConfigError, "confirm made: trainer.label_smoothing is 2; it must be in [0, 1)"),
    (["folder", "data.split=published"], {}, ConfigError, "confirm folder: data.split=published changes the split; the sweep selected its trials under data.split=folder, so the new test images may have been used for training or selection; leave it out"),
    (["random", "data.split_seed=4"], {}, ConfigError, "confirm random: data.split_seed=4 changes the split; the sweep selected its trials under data.split=random"),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("confirming")
    make_sweep(folder)
    make_sweep(folder, "pruned", ("PRUNED", "PRUNED"))
    make_sweep(folder, "empty", ())
    for split in ("folder", "random"):
        make_sweep(folder, split, ("COMPLETE",), "data=fer2013", "data.path=nowhere.csv", f"data.split={split}")
    return folder


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"), REFUSED, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_what_cannot_be_confirmed_is_refused_and_nothing_is_made(made, arguments, options, error, message):
    before = sorted(path for path in made.rglob("*") if path.name != "driver.lock")
    with pytest.raises(error) as caught:
        ferhpo.confirm(arguments[0], arguments[1:], output_dir=made, **options)
    assert str(caught.value).startswith(message.format(folder=made))
    assert sorted(path for path in made.rglob("*") if path.name != "driver.lock") == before


@pytest.mark.parametrize("hog", [{}, {"pixels_per_cell": 12}])
def test_a_mapping_that_is_a_value_can_be_replaced(tmp_path, hog):
    sweep = make_sweep(tmp_path, "hog", ("COMPLETE",), "model.hog={orientations: 6, pixels_per_cell: 8}")
    text = "model.hog={" + ", ".join(f"{key}: {value}" for key, value in hog.items()) + "}"
    composed, _, _ = plan_confirmation(sweep, "hog-confirm", [text], 1, 1)
    assert composed.config["model"]["hog"] == hog
    assert sweep.config["model"]["hog"] == {"orientations": 6, "pixels_per_cell": 8}


def test_a_running_sweep_is_refused(made):
    lock = FolderLock(made / "made")
    try:
        with pytest.raises(SweepError, match=f"sweep made is being run by process {os.getpid()}"):
            ferhpo.confirm("made", output_dir=made)
    finally:
        lock.release()


def test_the_command_line_takes_overrides_behind_options(made, capsys):
    arguments = ["confirm", "made", "--top", "1", "optim.lr=0.1", "--output-dir", str(made), "seed=1"]
    assert cli.main([*arguments, "--json"]) == 2
    assert [fault.split()[0] for fault in json.loads(capsys.readouterr().out)["faults"]] == ["optim.lr", "seed"]
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--tip", "2"])
    assert "unrecognized arguments: " in capsys.readouterr().err


def test_changes_of_a_retraining_are_listed(made):
    sweep = ferhpo.load_sweep("made", made)
    config = {**sweep.config, "trainer": {**sweep.config["trainer"], "max_epochs": 60}}
    assert changes(sweep, config) == ["trainer.max_epochs=60 (6 in the sweep)"]
    assert changes(sweep, {**sweep.config, "compute": {}}) == []
    fer2013 = ferhpo.load_sweep("folder", made)
    assert changes(fer2013, {**fer2013.config, "data": {**fer2013.config["data"], "path": "elsewhere.csv"}}) == []


def test_listed_trials_are_taken_in_their_order_and_again_after_a_kill(tmp_path):
    sweep = make_sweep(tmp_path, states=())
    listed = [{"sample": {"optim.lr": rate}, "seed": seed} for seed in (5, 6) for rate in (0.1, 0.2)]

    def open_study():
        return SweepStudy(sweep.folder, sweep.space(), {"_target_": "none"}, 0, Objective(), listed)

    study = open_study()
    asked = [study.ask(), study.ask()]
    study.record_epoch(0, 1, {"val_acc": 0.5}, "CONTINUE")
    study.finish(0, "COMPLETE")
    study.close()
    study = open_study()
    assert study.interrupted() == [1]
    asked += [study.ask(), study.ask()]
    assert [(trial.sample, trial.seed) for trial in asked] == [(entry["sample"], entry["seed"]) for entry in listed]
    study.close()


# ---- whole confirmations

SMALL = [*TINY, "compute.gpus_per_trial=0", "trainer.max_epochs=2"]


@pytest.fixture(scope="module")
def confirmed(warm, tmp_path_factory):
    """A sweep of three trials, and the confirmation of its best two on three seeds."""
    folder = tmp_path_factory.mktemp("confirmed") / "mlruns"
    sweep = ferhpo.sweep("demo", [*SMALL, f"output_dir={folder}", "num_trials=3", "scheduler=none"])
    return folder, sweep, ferhpo.confirm("demo", ["compute.gpus_per_trial=0"], top=2, seeds=3, output_dir=folder)


@pytest.mark.full
def test_each_candidate_is_trained_on_each_fresh_seed(confirmed):
    _, sweep, result = confirmed
    assert (result.finished, result.counts, result.unshipped) == (True, {"COMPLETE": 6}, 0)
    best_two = [trial.number for trial in sweep.sweep.leaderboard()[:2]]
    used = [trial.seed for trial in sweep.sweep.trials()]
    seeds = fresh_seeds(3, 0, used)
    trials = result.sweep.trials()
    assert [(t.sample["confirm.candidate"], t.seed) for t in trials] == [(n, s) for s in seeds for n in best_two]
    assert not set(seeds) & set(used)
    for trial in trials:
        candidate = sweep.sweep.trials()[trial.sample["confirm.candidate"]]
        assert {**candidate.sample, "confirm.candidate": candidate.number} == trial.sample
        assert len(trial.epochs) == 2
    assert len({trial.value for trial in trials}) > 2, "the seed changes the value"


@pytest.mark.full
def test_the_result_follows_from_the_trials(confirmed):
    folder, sweep, result = confirmed
    found = json.loads((folder / "demo-confirm" / "confirm.json").read_text())
    assert found == result.found.to_json()
    assert ConfirmationFound.from_json(found) == result.found
    first, second = found["candidates"]
    trials = result.sweep.trials()
    for candidate in (first, second):
        values = [t.value for t in trials if t.sample["confirm.candidate"] == candidate["trial"]]
        assert candidate["score"]["values"] == values
        assert candidate["score"]["mean"] == pytest.approx(sum(values) / 3)
        assert candidate["sweep_value"] == sweep.sweep.trials()[candidate["trial"]].value
    assert first["score"]["mean"] >= second["score"]["mean"]
    assert found["chosen"] == first["trial"]
    winner = next(c for c in found["candidates"] if c["trial"] == sweep.best.number)
    assert found["luck"]["mean"] == pytest.approx(sweep.best.value - winner["score"]["mean"])
    mine = sorted((t for t in trials if t.number in first["trials"]), key=lambda t: t.value)
    assert result.best == mine[1]
    assert found["registered"]["trial"] == mine[1].number


@pytest.mark.full
def test_the_selected_candidate_is_evaluated_on_test_once(confirmed):
    folder, _, result = confirmed
    (entry,) = evaluation_log.read_all(folder / "demo")
    assert (entry["verb"], entry["scores"]) == ("confirm", result.found.test.to_json())
    assert not (folder / "demo-confirm" / evaluation_log.FILE).exists()
    again = ferhpo.confirm("demo", output_dir=folder)
    assert (again.found, again.registered) == (result.found, result.registered)
    assert evaluation_log.read_all(folder / "demo") == [entry], "a complete confirmation only returns its result"
    for variants in (result.found.test.one_view, result.found.test.ten_crop):
        assert variants.all.n == 14
        assert len(variants.dedup.acc.values) == 3


@pytest.mark.full
def test_mlflow_has_the_confirmation_its_sweep_and_the_registered_model(confirmed):
    from mlflow import MlflowClient

    folder, _, result = confirmed
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = {run.info.run_name: run for run in client.search_runs(["1"], max_results=100)}
    parent, of_sweep = runs["demo-confirm"], runs["demo"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert parent.data.tags["ferhpo.confirms_run"] == of_sweep.info.run_id
    assert of_sweep.data.tags["ferhpo.confirmed_by"] == "demo-confirm"
    assert f"/runs/{of_sweep.info.run_id}" in parent.data.tags["mlflow.note.content"]
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files >= {"confirm.json", "candidates.csv", "leaderboard.csv"}
    assert parent.data.metrics["luck"] == pytest.approx(result.found.luck.mean)
    chosen = result.found.chosen
    trials = [each for each in result.sweep.trials() if each.sample["confirm.candidate"] == chosen]
    curve = client.get_metric_history(parent.info.run_id, f"trial_{chosen}/val_acc_mean")
    assert [point.step for point in curve] == list(range(1, max(len(each.epochs) for each in trials) + 1))
    firsts = [each.epochs[0]["val_acc"] for each in trials]
    assert curve[0].value == pytest.approx(np.mean(firsts), rel=1e-4)
    assert parent.data.metrics[f"trial_{chosen}/n"] == len(trials)
    deviations = client.get_metric_history(parent.info.run_id, f"trial_{chosen}/val_acc_std")
    assert deviations[0].value == pytest.approx(np.std(firsts, ddof=1), rel=1e-3, abs=1e-6)
    for trial in result.sweep.trials():
        run = runs[f"demo-confirm-{trial.number:03d}"]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params["confirm.candidate"] == str(trial.sample["confirm.candidate"])
        assert run.data.metrics["best_val_acc_dedup"] == pytest.approx(trial.dedup_acc, rel=1e-4)
        chosen = trial.sample["confirm.candidate"] == result.found.chosen
        assert ("test_acc_dedup_ten_crop" in run.data.metrics) == chosen
    name, version = result.registered
    tags = client.get_model_version(name, str(version)).tags
    assert (name, version) == ("ferhpo-demo", 2)
    assert tags["ferhpo.candidate"] == str(result.found.chosen)
    assert (tags["ferhpo.confirms"], tags["ferhpo.num_seeds"], tags["ferhpo.split"]) == ("demo", "3", "published")


@pytest.mark.full
def test_a_registered_model_is_evaluated_as_its_trial_is_and_its_test_evaluations_count(confirmed):
    folder, _, result = confirmed
    ferhpo.promote("demo", output_dir=str(folder), gates="none")
    here = ferhpo.evaluate(f"demo-confirm/{result.best.number}", output_dir=folder)
    for model in ("models:/ferhpo-demo@champion", "models:/ferhpo-demo/2", "models:/ferhpo-demo/latest"):
        found = ferhpo.evaluate(model, output_dir=folder)
        assert found.scores.all.acc == here.scores.all.acc == result.best.value
        assert found.confusion == here.confusion
    with pytest.raises(
        FerhpoError, match="ferhpo-demo has no version or alias 9; existing versions: 1, 2; aliases: champion"
    ):
        ferhpo.evaluate("models:/ferhpo-demo/9", output_dir=folder)
    before = evaluation_log.read_all(folder / "demo")
    found = ferhpo.evaluate("models:/ferhpo-demo/2", split="test", output_dir=folder)
    assert found.num_test_evaluations == len(before) + 1
    assert any("sweep demo has been evaluated on test" in text for text in found.warnings)
    index = [t.number for t in result.sweep.trials() if t.number in result.found.best.trials].index(result.best.number)
    assert found.scores.all.acc == result.found.test.one_view.all.acc.values[index]
    from mlflow import MlflowClient

    from ferhpo.tracking import run_of

    settings = result.sweep.tracking
    run = MlflowClient(settings.store_uri).get_run(run_of(folder / "demo-confirm", settings, result.best.number))
    assert run.data.tags["ferhpo.test_readings"] == str(found.num_test_evaluations)
    (folder / "demo-confirm").rename(folder / "elsewhere")
    try:
        alone = ferhpo.evaluate("models:/ferhpo-demo/2", split="test", output_dir=folder)
    finally:
        (folder / "elsewhere").rename(folder / "demo-confirm")
    assert alone.scores == found.scores
    assert alone.warnings == [
        "ferhpo-demo version 2 is not signed, so only its digests were compared",
        "the sweep folder of this model is not here; the test evaluation is recorded in its MLflow run only",
        "the sweep of this model has been evaluated on test 3 times, according to the model's MLflow run",
    ]
    log_file = folder / "demo" / evaluation_log.FILE
    log_file.write_text("".join(json.dumps(entry) + "\n" for entry in before))


@pytest.mark.full
def test_other_settings_give_no_luck_and_the_reason(confirmed, capsys):
    folder, _, _ = confirmed
    arguments = ["confirm", "demo", "--top", "9", "--seeds", "1", "trainer.max_epochs=1", "name=shorter"]
    assert cli.main([*arguments, "--output-dir", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "warning: --top is 9; sweep demo has only 3 complete trials to confirm" in out
    assert "Luck is not computed: the retraining used trainer.max_epochs=1 (2 in the sweep)." in out
    found = json.loads((folder / "shorter" / "confirm.json").read_text())
    assert found["luck"] is None
    assert [candidate["luck"] for candidate in found["candidates"]] == [None] * 3
    with pytest.raises(ConfigError) as caught:
        ferhpo.confirm("demo", ["name=shorter"], top=2, output_dir=folder)
    assert str(caught.value) == (
        "confirm demo: --top is 2; shorter was started with 9; leave out --top, or start shorter-2 with --new"
    )


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_confirmation_that_is_killed_resumes_and_trains_nothing_twice(warm, confirmed, tmp_path, monkeypatch):
    folder, _, _ = confirmed
    log = tmp_path / "log.txt"
    command = ["confirm", "demo", "--top", "2", "--seeds", "3", "name=hurt", "compute.gpus_per_trial=0"]
    driver = warm.start(*command, "--output-dir", folder, log=log)
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            assert driver.poll() is None, log.read_text()
            try:
                trials = ferhpo.load_sweep("hurt", folder).trials()
            except FerhpoError:  # not made yet
                trials = []
            if any(trial.state == "COMPLETE" for trial in trials):
                break
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
        driver.wait(60)
    finally:
        driver.kill()
    before = {trial.number: trial for trial in ferhpo.load_sweep("hurt", folder).trials() if trial.state == "COMPLETE"}
    assert 0 < len(before) < 6
    num_logged = len(evaluation_log.read_all(folder / "demo"))
    resumed = ferhpo.confirm("hurt", resume=True, output_dir=folder)
    assert resumed.finished
    trials = resumed.sweep.trials()
    assert [trial.number for trial in trials] == list(range(6))
    assert {number: trials[number] for number in before} == before, "completed trials are not trained again"
    pairs = [(trial.sample["confirm.candidate"], trial.seed) for trial in trials]
    assert len(set(pairs)) == 6
    whole = ferhpo.load_sweep("demo-confirm", folder).trials()
    assert [t.value for t in trials] == [t.value for t in whole], "the same as without the kill"
    assert len(evaluation_log.read_all(folder / "demo")) == num_logged + 1
    (folder / "hurt" / "confirm.json").unlink()  # like a kill after the test evaluation
    again = ferhpo.confirm("hurt", output_dir=folder)
    assert again.found.test == resumed.found.test
    assert again.registered == resumed.registered
    assert len(evaluation_log.read_all(folder / "demo")) == num_logged + 1
    flush, calls = Tracker.flush, []

    def slow_at_first(tracker, seconds):
        calls.append(seconds)
        return 7 if len(calls) == 1 else flush(tracker, seconds)

    monkeypatch.setattr(Tracker, "flush", slow_at_first)
    (folder / "hurt" / "confirm.json").unlink()
    assert ferhpo.confirm("hurt", output_dir=folder).registered == resumed.registered, (
        "the store was slow, and then not"
    )


def test_trained_weights_are_checked_before_a_confirmation_starts(tmp_path, monkeypatch):
    """As before a sweep: said once, with nothing created, not by each retraining."""

    def start(compute):
        raise AssertionError("Ray was started")

    monkeypatch.setattr("ferhpo.tuning.sweep.RayStart", start)
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    weights = f"model.weights={tmp_path / 'weights.pth'}"
    composed = compose("demo", ["model=torchvision", weights, "tracking=none", f"output_dir={tmp_path / 'mlruns'}"])
    with pytest.raises(ConfigError, match=r"weights\.pth"):
        run_listed(composed, "confirm", [], lambda *ended: None)
    assert not (tmp_path / "mlruns" / "demo").exists()
