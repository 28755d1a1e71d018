"""Whatever YAML a space is written in: it reads, or every fault is told; and what reads keeps its word."""

import math
import os
from collections.abc import Mapping

import optuna
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ferhpo.keys import get_path
from ferhpo.space import Space, lint

CONFIG = {
    "model": {"width": 8, "depth": 2, "dropout": 0.1, "norm": "batch", "num_blocks": 2, "block_channels": [8, 8]},
    "optim": {"lr": 0.1, "momentum": 0.9, "nesterov": False},
    "trainer": {"max_epochs": 5},
}
GROUPS = {"optim": "sgd", "model": "cnn"}
GROUP_OPTIONS = {"optim": ["sgd", "adam"], "model": ["cnn", "resnet"]}
OPTIONS = {"model": {"cnn": CONFIG["model"], "resnet": {"width": 16, "num_stages": 3}}}
PATHS = [f"{section}.{key}" for section, keys in CONFIG.items() for key in keys]

optuna.logging.set_verbosity(optuna.logging.ERROR)


def examples(usual: int) -> settings:
    """So many examples, or $FERHPO_FUZZ where it is set."""
    number = int(os.environ.get("FERHPO_FUZZ", usual))
    return settings(max_examples=number, deadline=None, suppress_health_check=list(HealthCheck))


words = st.sampled_from(
    [
        "low",
        "high",
        "step",
        "log",
        "choices",
        "when",
        "repeat",
        "options",
        "model",
        "optim",
        "width",
        "norm",
        "lr",
        "_target_",
    ]
) | st.sampled_from(PATHS)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | words | st.dates()
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(words | st.integers() | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=12,
)
numbers = (
    st.integers(-3, 12) | st.sampled_from([0.0, 0.1, 0.25, 1e-4, 1e-13, 1.0, 1e9, 5e-324]) | st.integers() | st.floats()
)
draws = st.fixed_dictionaries(
    {},
    optional={
        "low": numbers,
        "high": numbers,
        "step": numbers | st.none(),
        "log": st.booleans(),
        "choices": st.lists(st.sampled_from([1, 2, 3, 1.0, "a", "batch", True, None, [1], [2, 3]]), max_size=4),
        "when": st.dictionaries(
            st.sampled_from([*PATHS, "optim", "model"]),
            st.sampled_from([2, 3, "a", "batch", "sgd", "adam", [1, 2]]),
            max_size=2,
        ),
        "repeat": st.integers(0, 3) | st.sampled_from(PATHS),
    },
)
bounded = st.tuples(st.integers(0, 5), st.integers(1, 5)).map(lambda pair: {"low": pair[0], "high": sum(pair)})
chosen = st.lists(st.sampled_from([1, 2, 3, "a", "batch", False]), min_size=2, max_size=3, unique_by=repr).map(
    lambda values: {"choices": values}
)
conditions = st.fixed_dictionaries(
    {},
    optional={
        "when": st.dictionaries(st.sampled_from(PATHS), st.sampled_from([1, 2, 3, "a", "batch"]), max_size=1),
        "repeat": st.integers(1, 3) | st.just("model.num_blocks"),
    },
)
likely = st.tuples(bounded | chosen, conditions).map(lambda pair: pair[0] | pair[1])


def nested(entries: Mapping[str, object]) -> dict[str, dict[str, object]]:
    space: dict[str, dict[str, object]] = {}
    for path, draw in entries.items():
        section, _, key = path.partition(".")
        space.setdefault(section, {})[key] = draw
    return space


def spaces(of):
    return st.dictionaries(st.sampled_from(PATHS), of, max_size=4).map(nested)


def check_samples(space: Space) -> None:
    """Draws some samples and holds each to what the space says."""
    num_points, num_continuous = space.size()
    assert num_points >= 1
    seen = set()
    for seed in range(5):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        sample = space.suggest(study.ask())
        seen.add(repr(sample))
        expected = set()
        for draw in space.draws:
            if not space.is_active(draw, sample):
                continue
            repeats = space.num_repeats(draw, sample)
            names = [draw.path] if repeats is None else [f"{draw.path}.{index}" for index in range(repeats)]
            expected |= set(names)
            for value in (sample[name] for name in names):
                if draw.choices:
                    assert any(value == choice and type(value) is type(choice) for choice in draw.choices)
                else:
                    assert draw.low <= value <= draw.high
                    assert isinstance(value, int) == draw.is_int
                    if draw.num_points is not None and draw.num_points < 10**6:
                        assert draw.holds(value)
        assert set(sample) == expected, "when and repeat hold"
        config = space.apply(sample)
        repeated = {draw.path for draw in space.draws if draw.repeat is not None}
        for name, value in sample.items():
            parent, _, index = name.rpartition(".")
            if name in space.options:
                continue
            found = get_path(config, parent if parent in repeated else name)
            assert (found[int(index)] if parent in repeated else found) == value
    if num_continuous == 0:
        assert len(seen) <= num_points


@examples(150)
@given(space=st.dictionaries(words | st.text(max_size=3) | st.integers(), anything, max_size=5))
def test_any_yaml_reads_or_every_fault_is_told(space):
    read, faults = lint.read(space, CONFIG, GROUPS, GROUP_OPTIONS)
    assert all(fault.startswith("space") for fault in faults)
    if not faults:
        check_samples(read)


@examples(200)
@given(space=spaces(draws))
def test_any_draws_read_or_every_fault_is_told(space):
    read, faults = lint.read(space, CONFIG, GROUPS, GROUP_OPTIONS)
    assert all(fault.startswith("space") for fault in faults)
    if not faults:
        check_samples(read)


@examples(60)
@given(space=spaces(likely), cnn=st.none() | likely, resnet=st.none() | bounded)
def test_options_of_a_group_read_or_every_fault_is_told(space, cnn, resnet):
    slices = {"model": {"cnn": {"width": cnn}, "resnet": {"width": resnet}}}
    space = {**{key: value for key, value in space.items() if key != "model"}, "model": {"options": ["cnn", "resnet"]}}
    read, faults = lint.read(space, CONFIG, GROUPS, GROUP_OPTIONS, OPTIONS, slices)
    if not faults:
        check_samples(read)


@examples(40)
@given(space=spaces(likely))
def test_the_size_of_a_finite_space_is_the_number_of_its_samples(space):
    read, faults = lint.read(space, CONFIG, GROUPS, GROUP_OPTIONS)
    if faults or read.size()[0] > 60:
        return
    seen = set()

    def note(trial) -> float:
        seen.add(repr(sorted(read.suggest(trial).items())))
        return 0.0

    study = optuna.create_study(sampler=optuna.samplers.BruteForceSampler(seed=0))
    study.optimize(note, n_trials=read.size()[0] + 1)
    assert len(seen) == read.size()[0]


def test_what_would_take_for_ever_is_refused():
    """Each of these once enumerated its values."""
    for space, message in (
        (
            {"model": {"depth": {"low": 1, "high": 10**9}, "width": {"low": 1, "high": 9, "repeat": "model.depth"}}},
            "at most 1,000",
        ),
        ({"model": {"width": {"low": 1, "high": 9, "repeat": 10**9}}}, "at most 1,000"),
        ({"model": {"width": {"low": 1, "high": 10**30}}}, "of at most 1e+15"),
        (
            {
                "model": {
                    "width": {"low": 1, "high": 900},
                    "depth": {"low": 1, "high": 900, "when": {"model.width": 3}},
                    "num_blocks": {"low": 1, "high": 900, "when": {"model.depth": 3}},
                    "dropout": {"low": 0, "high": 900, "when": {"model.num_blocks": 3}},
                }
            },
            "729,000,000 combinations",
        ),
    ):
        _, faults = lint.read(space, CONFIG, GROUPS, GROUP_OPTIONS)
        assert len(faults) == 1
        assert message in faults[0]


def test_a_condition_on_one_of_very_many_values_is_counted():
    space = {
        "model": {
            "depth": {"low": 1, "high": 10**9},
            "norm": {"choices": ["a", "b", "c"], "when": {"model.depth": [5, 7]}},
        }
    }
    read, faults = lint.read(space, CONFIG, GROUPS, GROUP_OPTIONS)
    assert faults == []
    assert read.size() == (10**9 - 2 + 2 * 3, 0)


def test_a_tiny_value_is_no_zero():
    read, faults = lint.read({"optim": {"lr": {"low": 1e-15, "high": 1e-13, "log": True}}}, CONFIG)
    assert faults == []
    for seed in range(20):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        value = read.suggest(study.ask())["optim.lr"]
        assert 1e-15 <= value <= 1e-13
        assert math.log10(value) < -12
