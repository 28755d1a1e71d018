"""A component's kind is asked of its class: subclasses of the user's count, spellings of `_target_` do not matter."""

import pytest
from optuna.samplers import CmaEsSampler, GridSampler, RandomSampler
from ray.tune import schedulers

from ferhpo.components import kinds, own_code
from ferhpo.config import validate
from ferhpo.config.compose import compose
from ferhpo.config.files import group_files
from ferhpo.errors import ConfigError
from ferhpo.models.estimators import DecisionTree

pytestmark = pytest.mark.usefixtures("allowed")


@pytest.fixture
def allowed():
    own_code.allow(["tests.test_kinds"])


class MyTree(DecisionTree):
    pass


class MyGrid(GridSampler):
    pass


class MyCmaEs(CmaEsSampler):
    pass


class GridSamplerOfMine(RandomSampler):
    """Has the ending of another class's name."""


class MyFIFO(schedulers.FIFOScheduler):
    pass


class MyStopper(schedulers.FIFOScheduler):
    def __init__(self, metric="val_acc", mode="max", time_attr="epoch"):
        super().__init__()

    def on_trial_result(self, tune_controller, trial, result):
        return self.STOP


class MyMedian(schedulers.MedianStoppingRule):
    pass


class MyHyperBand(schedulers.HyperBandScheduler):
    pass


def section(target):
    return {"_target_": target if "." in target else f"tests.test_kinds.{target}"}


@pytest.mark.parametrize(
    ("kind", "target", "expected"),
    [
        (kinds.is_estimator, "ferhpo.models.estimators.DecisionTree", True),
        (kinds.is_estimator, "ferhpo.models.estimators.LinearSVM", True),
        (kinds.is_estimator, "MyTree", True),
        (kinds.is_estimator, "ferhpo.models.cnn.CNN", False),
        (kinds.is_grid, "optuna.samplers.GridSampler", True),
        (kinds.is_grid, "optuna.samplers._grid.GridSampler", False),  # private
        (kinds.is_grid, "MyGrid", True),
        (kinds.is_grid, "GridSamplerOfMine", False),
        (kinds.is_grid, "optuna.samplers.RandomSampler", False),
        (kinds.is_grid, "none", False),
        (kinds.ignores_conditions, "MyCmaEs", True),
        (kinds.ignores_conditions, "optuna.samplers.TPESampler", False),
        (kinds.is_fifo, "ray.tune.schedulers.FIFOScheduler", True),
        (kinds.is_fifo, "ray.tune.schedulers.trial_scheduler.FIFOScheduler", True),
        (kinds.is_fifo, "MyFIFO", True),
        (kinds.is_fifo, "MyStopper", False),
        (kinds.is_fifo, "ray.tune.schedulers.AsyncHyperBandScheduler", False),
        (kinds.is_fifo, "ray.tune.schedulers.MedianStoppingRule", False),
        (kinds.is_fifo, "none", False),
        (kinds.is_median_rule, "MyMedian", True),
        (kinds.is_median_rule, "ray.tune.schedulers.ASHAScheduler", False),
        (kinds.pauses_trials, "ray.tune.schedulers.HyperBandForBOHB", True),
        (kinds.pauses_trials, "MyHyperBand", True),
        (kinds.pauses_trials, "ray.tune.schedulers.ASHAScheduler", False),
    ],
)
def test_kinds(kind, target, expected):
    assert kind(section(target)) is expected


@pytest.mark.parametrize("name", ["fer2013", "image_folder", "synthetic"])
def test_the_reader_of_a_data_set(name):
    data = {"_target_": f"ferhpo.data.{name}.load", "path": "x"}
    assert kinds.is_data_set(data, name)
    assert not kinds.is_data_set(data, "ckplus")


def test_a_class_that_is_not_allowed_is_of_no_kind_and_is_not_imported():
    own_code.forget()
    assert not kinds.is_estimator(section("MyTree"))
    assert not kinds.is_grid({"_target_": "os.system"})
    assert not kinds.is_grid({})


@pytest.mark.full
def test_the_estimators_of_conf_are_known():
    estimators = {
        name for name in group_files("model") if kinds.is_estimator(compose("demo", [f"model={name}"]).config["model"])
    }
    assert estimators == {"decision_tree", "lda", "linear_svm"}


ALLOW = "allowed_targets=[tests.test_kinds]"


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (
            ["model=decision_tree", "model._target_=tests.test_kinds.MyTree", "scheduler=none", "~space.optim"],
            "trainer.max_epochs is 6, but decision_tree is fitted once; set trainer.max_epochs=1",
        ),
        (["scheduler=median", "scheduler._target_=tests.test_kinds.MyMedian", "scheduler.hard_stop=false"],
         "scheduler.hard_stop is false; this would pause trials, which ferhpo does not support; set it to true"),
        (["scheduler=none", "scheduler._target_=tests.test_kinds.MyHyperBand"],
         "scheduler is MyHyperBand, which pauses trials or changes their hyperparameters, so that a sweep could not be "
         "resumed exactly; use scheduler=asha, hyperband or median"),
        (["sampler=grid", "sampler._target_=tests.test_kinds.MyGrid"],
         "space.optim.lr is continuous; a grid requires discrete draws; add a step or choices"),
        (["scheduler=none", "scheduler._target_=tests.test_kinds.MyStopper", "+scheduler.time_attr=fold"],
         "scheduler.time_attr is fold; trials report once per epoch; set scheduler.time_attr=epoch"),
    ],
)  # fmt: skip
def test_check_applies_the_rules_to_subclasses(overrides, fault):
    with pytest.raises(ConfigError) as caught:
        validate.check_composed(compose("demo", [ALLOW, *overrides]))
    assert fault in caught.value.faults


def test_subclasses_pass_check():
    validate.check_composed(compose("demo", [ALLOW, "scheduler=none", "scheduler._target_=tests.test_kinds.MyFIFO"]))
    more = ["sampler=grid", "sampler._target_=tests.test_kinds.MyGrid", "~space.optim", "num_trials=null"]
    validate.check_composed(compose("demo", [ALLOW, *more]))
