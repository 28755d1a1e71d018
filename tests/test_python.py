"""ferhpo as a Python library: frames, loaded models, overrides as dictionaries, representations, and the page about it."""

import csv
import html
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ferhpo
from ferhpo.config.compose import compose
from ferhpo.errors import ConfigError, SweepError
from ferhpo.evaluation.load import find_model
from ferhpo.keys import override_texts
from ferhpo.reports.sweep.leaderboard import leaderboard_csv
from ferhpo.scoring.metrics import CHOSEN
from ferhpo.states import TrialState
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tuning.result import SweepResult
from tests.simulated_sweep import drive, make_sweep

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "use-from-python.md"
SMALL = {
    "tracking": "none",
    "data": {"num_train": 140, "num_val": 70, "num_test": 70},
    "trainer": {"max_epochs": 2, "batch_size": 32},
    "model.width_multiplier": 0.05,
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    made = make_sweep(tmp_path_factory.mktemp("python"), "made")
    drive(made)
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training on small data, in the current folder; every metric that comes with ferhpo is switched on."""
    folder = tmp_path_factory.mktemp("trained")
    metrics = {"metrics": dict.fromkeys(CHOSEN, True), "objective.metric": "val_ece"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield ferhpo.train("demo", {**SMALL, **metrics})


def test_the_package_lists_its_verbs_and_stays_light():
    assert set(dir(ferhpo)) == {*ferhpo.__all__, "__version__"}
    assert {"sweep", "load_model", "evaluate"} <= set(dir(ferhpo))
    program = "import ferhpo, sys; dir(ferhpo); assert not {'torch', 'pandas', 'numpy', 'optuna'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# Frames


def test_the_frame_is_the_leaderboard(sweep):
    frame = sweep.frame()
    lines = list(csv.reader(io.StringIO(leaderboard_csv(sweep.leaderboard(), "val_acc"))))
    assert [frame.index.name, *frame.columns] == lines[0]
    assert [str(number) for number in frame.index] == [line[0] for line in lines[1:]]
    assert list(frame["state"]) == [line[1] for line in lines[1:]]
    best = sweep.best()
    assert (frame.index[0], frame["value"].iloc[0], frame["best_epoch"].iloc[0]) == (
        best.number,
        best.value,
        best.best_epoch,
    )
    assert frame.loc[best.number, "optim.lr"] == best.sample["optim.lr"]


def test_curves_have_every_epoch(sweep):
    curves = sweep.curves()
    assert curves.index.names == ["trial", "epoch"]
    assert len(curves) == sum(len(trial.epochs) for trial in sweep.trials())
    for trial in sweep.trials():
        for row in trial.epochs:
            assert curves.loc[(trial.number, row["epoch"]), "val_acc"] == row["val_acc"]
    best = sweep.best()
    pd.testing.assert_frame_equal(best.frame(), curves.loc[best.number])


def test_frames_of_folds_and_of_a_sweep_without_trials(sweep, tmp_path):
    rows = [{"epoch": 1, "val_acc": 0.5}, {"epoch": 2, "val_acc": 0.6}]
    trial = TrialRecord(3, TrialState.RUNNING, {}, 0, fold_epochs=[rows, rows[:1]], folds=[{"fold": 1, "val_acc": 0.6}])
    assert trial.frame().index.tolist() == [(0, 1), (0, 2), (1, 1)]
    empty = make_sweep(tmp_path, "empty")
    assert len(empty.frame()) == len(empty.curves()) == 0
    assert repr(empty) == "Sweep(empty: 0 trials)"
    assert "<table>" in empty._repr_html_()
    assert TrialRecord(0, TrialState.FAILED, {}, 0).frame().empty


# Representations


def test_representations_are_one_line(sweep):
    best = sweep.best()
    assert repr(sweep) == f"Sweep(made: 9 trials, best: trial {best.number} with val_acc {best.value:.4f})"
    assert repr(best) == f"TrialRecord({best.number}: complete, value {best.value:.4f} at epoch {best.best_epoch} of 6)"
    result = SweepResult(sweep, {}, True, best, ("ferhpo-made", 2))
    assert repr(result).endswith("; registered as ferhpo-made version 2)")
    stopped = SweepResult(sweep, {}, False, None)
    assert repr(stopped).endswith(
        f"; interrupted; resume with: ferhpo sweep --resume made output_dir={sweep.folder.parent})"
    )
    assert "ferhpo sweep --resume made" in stopped._repr_html_()


def test_html_is_escaped(sweep):
    page = sweep._repr_html_()
    assert page.count("<tr>") == 10
    assert "optim.lr" in page
    evil = "<script>alert(1)</script>"
    trial = TrialRecord(1, TrialState.FAILED, {evil: evil}, 0, reason=evil)
    assert "<script>" not in trial._repr_html_()
    assert trial._repr_html_().count(html.escape(evil)) == 3


# Overrides


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ({"optim.lr": 1e-05, "model": "resnet"}, ["optim.lr=1e-05", "model=resnet"]),
        ({"optim": {"lr": 0.1}, "seed": 3}, ["optim.lr=0.1", "seed=3"]),
        ({"data": {"labels": {"a": "b"}}}, ["data.labels={a: b}"]),
        ({"data.labels": {"a": "b", "c": None}}, ["data.labels={a: b, c: null}"]),
        ({"num_trials": None, "tracking": {"report": False}}, ["num_trials=null", "tracking.report=false"]),
        ({"~space.optim.lr": None}, ["~space.optim.lr"]),
        ({"trainer.keep_epochs": (1, 2), "x": np.float64(0.5), "y": np.int64(2)}, ["trainer.keep_epochs=[1, 2]", "x=0.5", "y=2"]),
        ({"data.path": Path("/a b/c")}, ["data.path='/a b/c'"]),
        ({"a": "true", "b": "1e3", "c": "", "d": "it's", "e": "x,y", "f": "../x"}, ["a='true'", "b='1e3'", "c=''", r"d='it\'s'", "e='x,y'", "f='../x'"]),
        (["optim.lr=0.1"], ["optim.lr=0.1"]),
        ("optim.lr=0.1", ["optim.lr=0.1"]),
    ],
)  # fmt: skip
def test_overrides_may_be_a_dictionary(given, texts):
    assert override_texts(given) == texts


@pytest.mark.parametrize(
    "text",
    ["a b", "it's", "a\\", "\\'", "a\\'b'", "x,y", "{a}", "[1]", "null", "TRUE", "1e3", "é", "a=b", "(x)", '"q"'],
)
def test_every_text_arrives_as_it_is(text):
    config = compose("demo", {"data": "image_folder", "data.path": text, "data.labels": {"one": text}}).config
    assert (config["data"]["path"], config["data"]["labels"]) == (text, {"one": text})


def test_a_nested_space_and_a_removed_draw():
    config = compose(
        "demo", {"space": {"optim": {"lr": {"low": 0.5, "high": 0.6}}}, "~space.model.num_blocks": None}
    ).config
    assert (config["space"]["optim"]["lr"]["low"], config["space"]["optim"]["lr"]["high"]) == (0.5, 0.6)
    assert "num_blocks" not in config["space"]["model"]


def test_a_wrong_override_is_refused():
    with pytest.raises(TypeError, match=r"optim\.lr is <object object at .*; it must be text, a number, True, False"):
        override_texts({"optim": {"lr": object()}})
    with pytest.raises(ConfigError, match=r"optim\.lrr matches no key; did you mean optim\.lr\?"):
        compose("demo", {"optim": {"lrr": 0.1}})


# Metrics and models of a training


@pytest.mark.full
def test_chosen_metrics_travel_without_a_list(trained):
    """Into the study, the leaderboard, the report and the evaluation; the calibration error is minimized."""
    best, sweep = trained.best, trained.sweep
    names = {f"val_{name}" for name in CHOSEN}
    assert all(names <= set(row) for row in best.epochs)
    assert (sweep.objective.mode, best.value) == ("min", min(row["val_ece"] for row in best.epochs))
    assert names - {"val_ece"} <= set(sweep.frame().columns)
    scores = ferhpo.evaluate("demo").scores.all
    assert {f"val_{name}": value for name, value in scores.metrics.items()} == pytest.approx(
        {name: best.metrics[name] for name in names}, abs=1e-6
    )
    page = ferhpo.report("demo", trial=best.number).read_text()
    assert "curve_ece" in page or "val_ece" in page


def test_a_trained_network_is_loaded_from_what_there_is(trained, monkeypatch):
    best, folder = trained.best, trained.sweep.folder
    images = np.random.default_rng(0).integers(0, 256, (3, 60, 50, 3), np.uint8)
    wanted = find_model("demo").predict(images)
    assert list(wanted.columns) == list(find_model("demo").class_names)
    assert wanted.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    monkeypatch.chdir(folder)  # a path and a record need no output folder
    for subject in (
        best,
        trained,
        trained.sweep,
        folder,
        str(folder),
        f"{folder}/0",
        folder / "trials" / "0000",
        folder / "trials" / "0000" / "best.ckpt",
    ):
        model = ferhpo.load_model(subject)
        pd.testing.assert_frame_equal(model.predict(images), wanted)
        assert not model.network.training
    assert repr(ferhpo.load_model(best)).startswith("TrainedModel(trial 0 of demo (complete, val_ece 0.")
    for wrong, message in (
        (3, "3 is not a trial, a sweep, a name or a path"),
        ("nothing", "there is no sweep nothing"),
        (folder / "trials" / "0007", "sweep demo has no trial 7; it has trials 0 to 0"),
    ):
        with pytest.raises(SweepError, match=message):
            ferhpo.load_model(wrong)
    with pytest.raises(SweepError, match="trial 0 was not read from the folder of a sweep"):
        ferhpo.load_model(TrialRecord(0, TrialState.COMPLETE, {}, 0))


@pytest.mark.full
def test_the_page_runs(trained, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    train = ferhpo.train  # without Ray
    monkeypatch.setattr(
        ferhpo, "sweep", lambda name, overrides, **more: train(name, {**overrides, **SMALL}, **more), raising=False
    )
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), {})
