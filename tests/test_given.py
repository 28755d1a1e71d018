"""Samples that are given: `first`, and the trials of earlier sweeps (`warm_start`)."""

import copy

import pytest
import yaml

import ferhpo
from ferhpo import cli
from ferhpo.config.compose import compose
from ferhpo.config.validate import find_faults
from ferhpo.errors import ConfigError
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.storage.sweep import create_sweep, load_sweep
from ferhpo.tuning.warm_start import earlier_trials
from tests.conftest import TINY
from tests.reports.made_sweeps import CONDITIONAL_SPACE, SMALL_SPACE, made_sweep, metrics, score

OPTIONS = ("space.optim.options=[sgd,adam]",)


def composed_of(space, folder, name="new", sampler="tpe", overrides=(), **keys):
    composed = copy.deepcopy(compose("demo", [f"sampler={sampler}", *overrides]))
    composed.config.update({"name": name, "output_dir": str(folder), "space": space, **keys})
    return composed


def study_of(composed, first=(), earlier=()):
    sweep = create_sweep(composed, earlier=earlier)
    return SweepStudy(
        sweep.folder,
        composed.space(),
        composed.config["sampler"],
        0,
        sweep.objective,
        first=first,
        earlier=sweep.earlier,
    )


def reopened(study, composed, first=(), earlier=()):
    study.close()
    return SweepStudy(
        study.folder, composed.space(), composed.config["sampler"], 0, study.objective, first=first, earlier=earlier
    )


def finish(study, trial):
    study.record_epoch(trial.number, 1, metrics(score(trial.sample), 1), "CONTINUE")
    study.finish(trial.number, "COMPLETE", "", 1.0, {})


def test_the_first_trials_have_the_given_values(tmp_path):
    first = [{"optim.lr": 0.002, "model.norm": "none"}, {"optim.lr": 0.05}]
    composed = composed_of(SMALL_SPACE, tmp_path)
    study = study_of(composed, first)
    samples = [study.ask().sample for _ in range(4)]
    assert samples[0] == first[0]
    assert samples[1]["optim.lr"] == 0.05
    assert samples[1]["model.norm"] in ("batch", "none")
    assert samples[2]["optim.lr"] not in (0.002, 0.05)
    study.close()


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4])
def test_a_resume_asks_for_the_same_samples(tmp_path, cut):
    """With given samples and with earlier trials, wherever the driver was killed."""
    made_sweep(tmp_path, ["COMPLETE"] * 12, name="old")
    composed = composed_of(SMALL_SPACE, tmp_path, warm_start=["old"])
    earlier, _ = earlier_trials(composed, composed.space())
    first = [{"optim.lr": 0.002}]

    def samples(name, cut):
        again = composed_of(SMALL_SPACE, tmp_path, name)
        study = study_of(again, first, earlier)
        found = []
        for place in range(6):
            if place == cut:
                study = reopened(study, again, first, earlier)
            trial = study.ask()
            found.append(trial.sample)
            finish(study, trial)
        assert [each.number for each in study.trials()] == list(range(6))
        study.close()
        return found

    assert samples("whole", None) == samples("cut", cut)


def test_the_sampler_learns_from_earlier_trials(tmp_path):
    """After 20 trials TPE proposes what was good; without them it still draws at random."""
    made_sweep(tmp_path, ["COMPLETE"] * 30, name="old")
    composed = composed_of(SMALL_SPACE, tmp_path)
    earlier, (text, *_) = earlier_trials(composed_of(SMALL_SPACE, tmp_path, warm_start=["old"]), composed.space())
    assert text == "warm_start: the sampler is given 30 trials of old"

    def mean_score(name, earlier):
        study = study_of(composed_of(SMALL_SPACE, tmp_path, name), (), earlier)
        found = []
        for _ in range(12):
            trial = study.ask()
            found.append(score(trial.sample))
            finish(study, trial)
        study.close()
        return sum(found) / len(found)

    assert mean_score("warm", earlier) > mean_score("cold", [])


def test_a_wider_space_takes_all_and_a_narrower_one_what_fits(tmp_path):
    made_sweep(tmp_path, ["COMPLETE"] * 12, name="old")
    rates = [trial.sample["optim.lr"] for trial in load_sweep("old", tmp_path).trials()]
    wider = {**SMALL_SPACE, "optim": {"lr": {"low": 1e-6, "high": 1.0, "log": True}}}
    composed = composed_of(wider, tmp_path, warm_start=["old"])
    assert len(earlier_trials(composed, composed.space())[0]) == 12
    narrow = {**SMALL_SPACE, "optim": {"lr": {"low": 0.01, "high": 0.1, "log": True}}}
    composed = composed_of(narrow, tmp_path, warm_start=["old"])
    found, (text, *_) = earlier_trials(composed, composed.space())
    assert len(found) == sum(0.01 <= rate <= 0.1 for rate in rates)
    assert f"{12 - len(found)} do not fit: {12 - len(found)} because optim.lr is outside the space" in text


def test_a_hyperparameter_that_was_fixed_then_has_the_value_of_the_configuration(tmp_path):
    made_sweep(tmp_path, ["COMPLETE"] * 4, name="old", space={"optim": SMALL_SPACE["optim"]})
    composed = composed_of(SMALL_SPACE, tmp_path, warm_start=["old"])
    found, _ = earlier_trials(composed, composed.space())
    norm = load_sweep("old", tmp_path).config["model"]["norm"]
    assert [record["sample"]["model.norm"] for record in found] == [norm] * 4


def test_what_is_fixed_now_must_have_been_the_same(tmp_path):
    made_sweep(tmp_path, ["COMPLETE"] * 12, name="old")
    composed = composed_of({"optim": SMALL_SPACE["optim"]}, tmp_path, warm_start=["old"])
    found, (text, *_) = earlier_trials(composed, composed.space())
    norm = composed.config["model"]["norm"]
    same = [trial for trial in load_sweep("old", tmp_path).trials() if trial.sample["model.norm"] == norm]
    assert len(found) == len(same)
    assert "model.norm is fixed to another value" in text or len(same) == 12


def test_other_settings_are_named(tmp_path):
    made_sweep(tmp_path, ["COMPLETE"] * 3, name="old")
    overrides = ["trainer.max_epochs=40"]
    composed = composed_of(SMALL_SPACE, tmp_path, warm_start=["old"], overrides=overrides)
    _, texts = earlier_trials(composed, composed.space())
    assert any("trainer.max_epochs; its values are used as they are" in text for text in texts)


@pytest.mark.parametrize("overrides", [(), OPTIONS], ids=["repeated", "options"])
def test_trials_of_a_conditional_space_fit_it(tmp_path, overrides):
    space = compose("demo", ["sampler=random", *overrides]).config["space"] if overrides else CONDITIONAL_SPACE
    made_sweep(tmp_path, ["COMPLETE"] * 8 + ["PRUNED", "INFEASIBLE"], name="old", space=space, overrides=overrides)
    composed = composed_of(space, tmp_path, warm_start=["old"], overrides=overrides)
    found, _ = earlier_trials(composed, composed.space())
    assert len(found) == 10
    study = study_of(composed, (), found)
    assert study.ask().number == 0
    study.close()


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (3, "it must be a list of samples"),
        ([{"optim.rl": 1}], "optim.rl is not in the space; did you mean optim.lr?"),
        ([{"optim.lr": 3}], "optim.lr is 3; it must be from 0.0001 to 0.1"),
        ([{"model.norm": "batch"}, {"model.norm": "bach"}], "first.1: model.norm is 'bach'; it must be one of batch"),
        ([{"optim.lr": True}], "optim.lr is True"),
    ],
)
def test_a_first_sample_that_the_space_cannot_draw_is_refused(tmp_path, first, message):
    faults, _ = find_faults(composed_of(SMALL_SPACE, tmp_path, first=first))
    assert any(message in fault for fault in faults), faults


def test_a_condition_that_a_first_sample_does_not_meet(tmp_path):
    space = {
        "model": {
            "norm": {"choices": ["batch", "none"]},
            "conv_dropout": {"low": 0.1, "high": 0.5, "when": {"model.norm": "none"}},
        }
    }
    faults, _ = find_faults(composed_of(space, tmp_path, first=[{"model.norm": "batch", "model.conv_dropout": 0.2}]))
    assert any("model.conv_dropout applies only if model.norm=none" in fault for fault in faults), faults


@pytest.mark.parametrize("names", ["old", [3], ["../old"], ["a/b"]])
def test_earlier_sweeps_are_named(tmp_path, names):
    faults, _ = find_faults(composed_of(SMALL_SPACE, tmp_path, warm_start=names))
    assert any("it must be a list of names of sweeps" in fault for fault in faults)


def test_what_is_no_earlier_sweep_is_refused(tmp_path):
    made_sweep(tmp_path, ["COMPLETE"], name="loss", objective={"metric": "val_loss", "mode": "min"})
    composed = composed_of(SMALL_SPACE, tmp_path, warm_start=["nothing", "loss"])
    with pytest.raises(ConfigError) as error:
        earlier_trials(composed, composed.space())
    assert "warm_start has nothing: there is no sweep" in error.value.faults[0]
    assert "whose objective is val_loss, min; it must be that of this sweep, val_acc, max" in error.value.faults[1]


def test_a_grid_has_no_first_samples(tmp_path):
    space = {"model": {"norm": {"choices": ["batch", "none"]}}}
    faults, _ = find_faults(composed_of(space, tmp_path, sampler="grid", first=[{"model.norm": "none"}]))
    assert any("do not apply to it" in fault for fault in faults)


@pytest.mark.full
def test_a_sweep_with_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [*TINY, "trainer.max_epochs=1", "tracking=none", "scheduler=none"]
    assert cli.main(["sweep", "demo", *options, "name=old", "num_trials=2"]) == 0
    file = tmp_path / "sweeps" / "mine.yaml"
    file.parent.mkdir()
    first = [{"optim.lr": 0.0123}]
    file.write_text(yaml.safe_dump({"defaults": ["demo", "_self_"], "first": first, "warm_start": ["old"]}))
    result = ferhpo.sweep("mine", [*options, "num_trials=2"])
    trials = result.sweep.trials()
    assert [trial.number for trial in trials] == [0, 1]
    assert trials[0].sample["optim.lr"] == 0.0123
    assert len(result.sweep.earlier) == 2
    assert cli.main(["sweep", "--resume", "mine", "num_trials=3"]) == 0
    assert len(load_sweep("mine").trials()) == 3
    with pytest.raises(ConfigError) as error:
        ferhpo.sweep("mine", ["trainer.max_epochs=4"], resume=True)
    text = " ".join(error.value.faults)
    assert "ferhpo confirm mine --top 5 trainer.max_epochs=4" in text
    assert "ferhpo sweep mine trainer.max_epochs=4 name=mine-2 warm_start='[mine]'" in text
