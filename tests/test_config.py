"""Composition and checks: exact messages, and every file in conf/ and sweeps/."""

import copy
import runpy
from pathlib import Path

import pytest

from ferhpo.components import own_code
from ferhpo.components.build import instantiate, locate
from ferhpo.components.kinds import is_estimator
from ferhpo.config import GROUPS, validate
from ferhpo.config.change import set_values
from ferhpo.config.compose import compose
from ferhpo.config.files import group_files, headline, sweep_files
from ferhpo.errors import ConfigError
from ferhpo.keys import get_path, leaves, set_path
from ferhpo.tuning.preflight import make_paths_absolute

ROOT = Path(__file__).parents[1]
OPTIONS = [  # the first two of each group in the quick tests
    pytest.param(group, option, marks=() if number < 2 else pytest.mark.full)
    for group in GROUPS
    for number, option in enumerate(group_files(group))
]


def faults(name, *overrides):
    with pytest.raises(ConfigError) as caught:
        validate.check_composed(compose(name, overrides))
    return list(caught.value.faults)


def missing_paths(composed):
    """What a user must give: a path for every one that is not set."""
    return [f"{path}=/nowhere" for path, value in leaves(composed.config["data"], "data") if value == "???"]


def needed(name):
    return missing_paths(compose(name))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_passes_check(group, option):
    overrides = [f"{group}={option}"]
    if (group, option) == ("sampler", "grid"):
        overrides += ["~space.optim"]  # a grid has no continuous draws
    composed = compose("demo", overrides)
    more = missing_paths(composed)
    if is_estimator(composed.config["model"]):
        more += ["trainer.max_epochs=1", "scheduler=none", "~space.optim"]  # it is fitted once
    validate.check_composed(compose("demo", [*overrides, *more]) if more else composed)


@pytest.mark.parametrize(
    "path",
    [path for group in GROUPS for path in group_files(group).values()],
    ids=lambda p: f"{p.parent.name}/{p.stem}",
)
def test_every_option_has_a_headline(path):
    assert 10 < len(headline(path)) <= 120


def sweeps_to_check():
    """Recipes that build on another one wait for the full set, where they also run."""
    for name, path in sweep_files().items():
        alone = "  - config\n" in path.read_text()
        yield pytest.param(name, marks=() if alone else pytest.mark.full)


@pytest.mark.parametrize("name", list(sweeps_to_check()))
def test_every_sweep_composes_passes_check_and_has_its_header(name):
    text = sweep_files()[name].read_text()
    for key in ("source:", "command:", "hardware:", "time:", "result:"):
        assert f"# {key}" in text, f"{name} does not say its {key}"
    composed = compose(name, needed(name))
    validate.check_composed(composed, for_sweep=bool(composed.config["space"]))


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in sweep_files() if name != "demo"])
def test_the_reduced_form_of_every_recipe_passes_check(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet50.pth").touch()  # a user's weights
    reduced = runpy.run_path(str(ROOT / "benchmarks" / "recipes.py"))["reduced_overrides"](sweep_files()[name])
    composed = compose(name, reduced)
    for path in missing_paths(composed):
        set_path(composed.config, *path.split("="))
    validate.check_composed(composed, for_sweep=bool(composed.config["space"]))


def test_a_misspelled_sweep_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        compose("dmo")
    assert str(caught.value) == "sweep: unknown name 'dmo'; did you mean demo?"


def test_all_faults_of_the_overrides_come_at_once():
    with pytest.raises(ConfigError) as caught:
        compose("demo", ["model=resent", "optim.lrr=1", "trianer.max_epochs=3", "lr=3"])
    assert str(caught.value) == (
        "demo: 4 faults\n"
        "  model is resent; did you mean resnet?\n"
        "  optim.lrr matches no key; did you mean optim.lr?\n"
        "  trianer.max_epochs matches no key; did you mean trainer?\n"
        "  lr matches no key; choose from: allowed_targets, augment, budget, callbacks, compute, data, exports, first, keep_checkpoints, loss, lr_schedule, metrics, model, name, num_trials, "
        "objective, optim, output_dir, panels, sampler, scheduler, seed, space, tracking, trainer, warm_start; did you mean optim.lr?"
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+optim.lrr=1"], "optim.lrr matches no argument of torch.optim.Adam; did you mean lr?"),
        (["+extra=1"], "extra matches no key; choose from: allowed_targets, augment, budget, callbacks, compute, "),
        (["scheduler.max_t=40", "trainer.max_epochs=20"], "scheduler.max_t is 40, but trainer.max_epochs is 20; set scheduler.max_t=20"),
        (["scheduler=median", "scheduler.hard_stop=false"], "scheduler.hard_stop is false; this would pause trials, which ferhpo does not support; set it to true"),
        (["scheduler=median", "scheduler.min_time_slice=0"], "scheduler.min_time_slice is 0; this would pause trials, which ferhpo does not support; set it to .inf (inf on the command line)"),
        (["compute.trial_timeout=inf"], "compute.trial_timeout is inf; it must be above 0 seconds, or null for no limit"),
        (["compute.stop_grace_seconds=nan"], "compute.stop_grace_seconds is nan; it must be 0 or more"),
        (["compute.num_cpus=true"], "compute.num_cpus is True; it must be 1 or more, or null"),
        (["scheduler.time_attr=training_iteration"], "scheduler.time_attr is training_iteration; trials report once per epoch; set scheduler.time_attr=epoch"),
        (["num_trials=0"], "num_trials is 0; it must be a whole number of 1 or more"),
        (["num_trials=null"], "num_trials is null; only sampler=grid ends without a limit; set num_trials"),
        (["seed=-1"], "seed is -1; it must be an integer of 0 or more"),
        (["objective.metric=val_ac"], "objective.metric is val_ac; did you mean val_acc?"),
        (["objective.mode=up"], "objective.mode is up; it must be max or min"),
        (["name=a/b"], "name is a/b; it is used as a folder name and may contain letters, digits, '-', '_' and '.'"),
        (["compute.max_concurrent=0"], "compute.max_concurrent is 0; it must be 1 or more, or null"),
        (["compute.gpus_per_trial=1.5"], "compute.gpus_per_trial is 1.5; above 1 it must be a whole number"),
        (["space.optim.lr.low=-1.0"], "space.optim.lr.low is -1.0; a log scale requires bounds above 0"),
        (
            ["scheduler._target_=ray.tune.schedulers.PopulationBasedTraining"],
            "scheduler is PopulationBasedTraining, which pauses trials or changes their hyperparameters, so that a sweep could not be resumed exactly",
        ),
        (["model._target_=os.system"], "model._target_ is os.system; it must be a subclass of torch.nn.Module, from ferhpo.models.*.*, or from a Python file in ferhpo.d/; add allowed_targets=[os]"),
        (["tracking.uri=file:/x"], "tracking.uri is file:/x; MLflow 3.13 and later refuse file stores"),
    ],
)  # fmt: skip
def test_check_says_key_value_rule_remedy(overrides, message):
    found = faults("demo", *overrides)
    assert any(fault.startswith(message) for fault in found), found


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("model=null", "model is null; choose from: cnn, decision_tree, "),
        (
            "optim.lr=0.1,0.2",
            "optim.lr is 0.1,0.2; it must be a single value; to search over several, use 'space.optim.lr={choices: [0.1, 0.2]}'",
        ),
        (
            "optim=sgd,adam",
            "optim is sgd,adam; it must be a single value; to search over several, use 'space.optim={options: [sgd, adam]}'",
        ),
        ("space.model.options=3", "space.model.options is 3; it must be a list of options, e.g. ["),
        ("space.model.options={cnn: 1}", "space.model.options is {'cnn': 1}; it must be a list of options, e.g. ["),
    ],
)
def test_an_override_of_the_wrong_type_is_a_fault(override, fault):
    with pytest.raises(ConfigError) as caught:
        compose("demo", [override])
    (found,) = caught.value.faults
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("data.labels={contempt: drop, glad: happy}", "data.labels", {"contempt": "drop", "glad": "happy"}),
        ("data.labels={}", "data.labels", {}),
        ("data.labels=null", "data.labels", None),
        ("model.hog={pixels_per_cell: 12}", "model.hog", {"pixels_per_cell": 12}),
        ("model.hog.orientations=6", "model.hog", {"orientations": 6, "pixels_per_cell": 8}),
        ("model.hog={}", "model.hog", {}),
        ("objective={metric: val_loss, mode: min}", "objective", {"metric": "val_loss", "mode": "min"}),
    ],
)
def test_a_mapping_that_is_a_value_can_be_replaced(override, key, value):
    config = {
        "data": {"_target_": "ferhpo.data.ckplus.load", "labels": {"contempt": "disgust"}},
        "model": {"_target_": "ferhpo.models.cnn.CNN", "hog": {"orientations": 9, "pixels_per_cell": 8}},
        "objective": {"metric": "val_acc", "mode": "max"},
    }
    assert set_values(config, [override]) == []
    assert get_path(config, key) == value


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("model={}", "model is a config group and cannot be replaced here; set single keys, e.g. model.hog.orientations=..."),
        ("data={path: x}", "data is a config group and cannot be replaced here; set single keys, e.g. data.main.path=..."),
        ("tracking=none", "tracking is a config group and cannot be replaced here; set single keys, e.g. tracking.KEY=..."),
        (
            "data.main={path: x}",
            "data.main is a section with a _target_ and cannot be replaced here; set single keys, e.g. data.main.path=...",
        ),
        ("data.merge=null", "data.merge is a section with a _target_ and cannot be replaced here; set single keys, e.g. data.merge.sfew.path=..."),
        ("model.hgo={}", "model.hgo matches no key; did you mean model.hog?"),
        ("model.hog.orientations=choice(8,9)", "model.hog.orientations is choice(8,9); it must be a single value"),
        ("model.hog.orientations=8,9", "model.hog.orientations is 8,9; it must be a single value"),
        ("model.hog={", "override 'model.hog={' cannot be parsed: a bracket is not closed; write lists as [1, 2] and sections as {low: 1, high: 2}"),
    ],
)  # fmt: skip
def test_a_section_cannot_be_replaced(override, fault):
    config = {
        "data": {
            "main": {"_target_": "ferhpo.data.fer2013.load", "path": "a"},
            "merge": {"sfew": {"_target_": "ferhpo.data.sfew.load", "path": "b"}},
        },
        "model": {"_target_": "ferhpo.models.cnn.CNN", "hog": {"orientations": 9}},
        "tracking": {},
    }
    before = copy.deepcopy(config)
    assert set_values(config, [override]) == [fault]
    assert config == before


def test_a_bound_that_a_component_refuses_is_a_fault_of_the_space():
    found = faults("demo", "space.model.conv_dropout={low: 0.5, high: 1.5, step: 0.5}")
    assert len(found) == 1
    assert found[0].startswith("space.model.conv_dropout.high is 1.5, which model rejects: ")


def test_a_value_that_is_missing_says_how_to_give_it():
    assert "data.path is not set; add data.path=..." in faults("demo", "data=fer2013")


def test_sources_that_are_merged_are_checked_like_all_else():
    """Every fault of nested data sets, by its own dotted key."""
    more = "+data.merge.more={_target_: ferhpo.data.sfw.load, path: x}"
    wrong = ["data.merge.sfew.path=null", "+data.merge.ckplus.peak_frame=2", "+data.main.spilt=random", more]
    found = [fault for fault in faults("demo", "data=merged", *wrong) if fault.startswith("data.")]
    assert found == [
        "data.main.path is not set; add data.main.path=...",
        "data.main.spilt matches no argument of ferhpo.data.fer2013.load; did you mean split?",
        "data.merge.ckplus.path is not set; add data.merge.ckplus.path=..., or data.merge.ckplus.path=null to leave it "
        "out",
        "data.merge.ckplus.peak_frame matches no argument of ferhpo.data.ckplus.load; did you mean peak_frames?",
        "data.merge.affectnet.path is not set; add data.merge.affectnet.path=..., or data.merge.affectnet.path=null to "
        "leave it out",
        "data.merge.more._target_ is ferhpo.data.sfw.load, which cannot be imported (No module named "
        "'ferhpo.data.sfw')",
    ]
    with pytest.raises(ConfigError, match=r"data.merge.ckplus.lables matches no key; did you mean .*labels"):
        compose("demo", ["data=merged", "data.merge.ckplus.lables={contempt: disgust}"])


def test_paths_of_merged_sources_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.csv").touch()
    given = ["data.main.path=a.csv", "data.merge.ckplus.path=CK", "data.merge.ckplus.clean=here.csv"]
    config = compose("demo", ["data=merged", *given, "data.merge.affectnet.clean=labels.csv"]).config
    make_paths_absolute(config)
    assert config["data"]["main"]["path"] == str(tmp_path / "a.csv")
    ckplus, affectnet = config["data"]["merge"]["ckplus"], config["data"]["merge"]["affectnet"]
    assert (ckplus["path"], ckplus["clean"]) == (str(tmp_path / "CK"), str(tmp_path / "here.csv"))
    assert affectnet["clean"] == "labels.csv", "it stands in the data set's folder"
    assert affectnet["path"] == "???"


@pytest.mark.parametrize("key", ["path", "root", "ferplus_path", "cache_dir"])
def test_every_place_of_a_data_set_becomes_absolute(tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    config = {"output_dir": "runs", "data": {key: "here"}, "model": {}}
    make_paths_absolute(config)
    assert config["data"][key] == str(tmp_path / "here")


def test_names_outside_the_allowed_modules_are_refused_with_how_to_allow_them():
    with pytest.raises(ValueError, match=r"add allowed_targets=\[collections\] to the command line if you trust it"):
        locate("collections.OrderedDict", "data")
    own_code.allow(["collections"])
    assert instantiate({"_target_": "collections.OrderedDict"}, "data") == {}
    with pytest.raises(ValueError, match=r"it must be a function that returns a FaceData"):
        locate("torch.hub.load", "data")


def test_a_users_folder_comes_first_and_works_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "own" / "optim").mkdir(parents=True)
    (tmp_path / "own" / "optim" / "adam.yaml").write_text("_target_: torch.optim.Adam\nlr: 0.5\n")
    (tmp_path / "own" / "mine.yaml").write_text("defaults: [demo, _self_]\nnum_trials: 3\nspace: {optim: null}\n")
    monkeypatch.chdir(tmp_path)
    composed = compose("mine", config_dir=tmp_path / "own")
    assert (composed.config["num_trials"], composed.config["optim"]["lr"]) == (3, 0.5)
    assert not any(draw.path.startswith("optim") for draw in composed.space().draws)
    assert compose("demo").config["optim"]["lr"] != 0.5


def test_origins_name_file_or_override():
    composed = compose("demo", ["optim.lr=0.5"])
    assert composed.origins["optim.lr"] == "override"
    assert composed.origins["num_trials"] == "sweeps/demo.yaml"
    assert composed.origins["sampler.group"] == "sampler/tpe.yaml"


def test_a_space_may_choose_among_options_of_a_group():
    composed = compose("demo", ["space.optim={options: [sgd, adam]}"])
    validate.check_composed(composed)
    space = composed.space()
    assert {draw.path for draw in space.draws} >= {"optim", "optim.lr", "optim.momentum"}


def test_check_verb_returns_warnings():
    warnings = validate.check("demo", ["sampler=cmaes"])
    assert len(warnings) == 1
    assert warnings[0].startswith(
        "sampler is CmaEsSampler, which does not support conditional draws (space.model.block_channels"
    )
