"""The space: its grammar, its lint (exact messages), its size, and what a sample does to a configuration."""

import math

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferhpo.space import Space, lint

CONFIG = {
    "model": {"width": 8, "depth": 2, "dropout": 0.1, "norm": "batch", "num_blocks": 2, "block_channels": [8, 8, 8, 8]},
    "optim": {"lr": 0.1, "momentum": 0.9},
    "trainer": {"max_epochs": 5},
}
GROUPS = {"optim": "sgd"}
GROUP_OPTIONS = {"optim": ["sgd", "adam"]}

VULPE = {
    "model": {
        "stem_channels": {"low": 32, "high": 256, "step": 32},
        "num_blocks": {"low": 1, "high": 4},
        "block_channels": {"low": 64, "high": 512, "step": 64, "repeat": "model.num_blocks"},
        "conv_dropout": {"low": 0.1, "high": 0.4, "step": 0.1},
        "dense_dropout": {"low": 0.1, "high": 0.4, "step": 0.1},
    }
}
VULPE_CONFIG = {
    "model": {"stem_channels": 256, "num_blocks": 4, "block_channels": 64, "conv_dropout": 0.4, "dense_dropout": 0.3}
}


def read(space: dict, **kwargs) -> tuple[Space, list[str]]:
    return lint.read(space, CONFIG, GROUPS, GROUP_OPTIONS, **kwargs)


def draw(space: Space, seed: int = 0) -> dict:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return space.suggest(study.ask())


def test_vulpe_space_has_exactly_599040_points():
    space, faults = lint.read(VULPE, VULPE_CONFIG)
    assert faults == []
    assert space.size() == (599_040, 0)


def test_vulpe_winner_lies_inside_the_space():
    space, _ = lint.read(VULPE, VULPE_CONFIG)
    winner = {"model.stem_channels": 256, "model.num_blocks": 4, "model.conv_dropout": 0.4, "model.dense_dropout": 0.3}
    winner |= {f"model.block_channels.{i}": width for i, width in enumerate([512, 384, 192, 384])}
    sample = space.suggest(optuna.trial.FixedTrial(winner))
    assert sample == winner
    assert space.apply(sample)["model"]["block_channels"] == [512, 384, 192, 384]


def test_size_equals_enumeration():
    entry = {
        "model": {
            "norm": {"choices": ["batch", "none"]},
            "dropout": {"low": 0.0, "high": 0.2, "step": 0.1, "when": {"model.norm": "none"}},
            "num_blocks": {"low": 1, "high": 3},
            "block_channels": {"choices": [8, 16], "repeat": "model.num_blocks"},
        }
    }
    space, faults = read(entry)
    assert faults == []
    seen = {tuple(sorted(draw(space, seed).items())) for seed in range(3000)}
    assert len(seen) == space.size()[0] == (1 + 3) * (2 + 4 + 8)


def test_values_are_read_as_people_write_them():
    space, _ = read({"model": {"dropout": {"low": 0.1, "high": 0.4, "step": 0.1}}})
    seen = {draw(space, seed)["model.dropout"] for seed in range(60)}
    assert seen == {0.1, 0.2, 0.3, 0.4}


def test_when_on_a_group_that_stands_elsewhere_takes_no_part():
    entry = {"optim": {"momentum": {"low": 0.8, "high": 0.99, "when": {"optim": "sgd"}}}}
    space, faults = lint.read(entry, {"optim": {"lr": 0.1}}, {"optim": "adam"}, GROUP_OPTIONS)
    assert (faults, space.draws) == ([], ())
    space, faults = read(entry)
    assert faults == []
    assert "optim.momentum" in draw(space)


def test_options_bring_each_its_own_slice():
    options = {"optim": {"sgd": {"lr": 0.1, "momentum": 0.9}, "adam": {"lr": 0.001}}}
    slices = {
        "optim": {
            "sgd": {"lr": {"low": 0.01, "high": 1.0, "log": True}, "momentum": {"low": 0.8, "high": 0.99}},
            "adam": {"lr": {"low": 1e-5, "high": 1e-2, "log": True}},
        }
    }
    space, faults = read({"optim": {"options": ["sgd", "adam"]}}, options=options, slices=slices)
    assert faults == []
    chosen = {}
    for seed in range(20):
        sample = draw(space, seed)
        chosen[sample["optim"]] = sample
        applied = space.apply(sample)["optim"]
        assert applied["lr"] == sample["optim.lr"]
        assert ("momentum" in applied) == (sample["optim"] == "sgd")
    assert set(chosen) == {"sgd", "adam"}
    assert {d.name for d in space.draws} == {"optim", "optim.lr@sgd", "optim.lr@adam", "optim.momentum"}


def test_list_choices_survive_optuna():
    space, faults = read({"model": {"block_channels": {"choices": [[8, 8], [16, 32]]}}})
    assert faults == []
    assert space.apply(draw(space))["model"]["block_channels"] in ([8, 8], [16, 32])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"model": {"widht": {"low": 1, "high": 4}}},
            "space.model.widht matches no key; model has: block_channels, depth, dropout, norm, num_blocks, width; "
            "did you mean width?",
        ),
        (
            {"modle": {"width": {"low": 1, "high": 4}}},
            "space.modle matches no key; the configuration has: model, optim, trainer; did you mean model?",
        ),
        (
            {"model": {"width": {"low": 9, "high": 4}}},
            "space.model.width.low is 9, above space.model.width.high 4; swap them",
        ),
        (
            {"model": {"width": {"low": 4, "high": 4}}},
            "space.model.width has only one value, 4; set model.width instead",
        ),
        ({"model": {"width": {"low": 4}}}, "space.model.width has no high; a draw requires low and high, or choices"),
        (
            {"model": {"width": 5}},
            "space.model.width is 5; it must be a draw with low and high, or with choices; write {choices: [...]}, or to give it one value, set model.width and space.model.width: null",
        ),
        (
            {"model": {"width": {"low": 1, "high": 4, "setp": 2}}},
            "space.model.width.setp is not a valid key of a draw; did you mean step?",
        ),
        (
            {"model": {"width": {"low": 1, "high": 6, "step": 2}}},
            "space.model.width.step is 2, which misses high 6; the last value would be 5",
        ),
        (
            {"model": {"width": {"low": 1, "high": 6, "step": 0.5}}},
            "space.model.width.step is 0.5, but low and high are integers; use an integer step",
        ),
        (
            {"optim": {"lr": {"low": 0.0, "high": 0.1, "log": True}}},
            "space.optim.lr.low is 0.0; a log scale requires bounds above 0",
        ),
        (
            {"optim": {"lr": {"low": 0.1, "high": 0.4, "log": True, "step": 0.1}}},
            "space.optim.lr has log and step; keep only one of them",
        ),
        (
            {"optim": {"lr": {"low": "1e-4", "high": 0.1}}},
            "space.optim.lr.low is 1e-4; it must be a finite number; write 1.0e-4, not 1e-4, in YAML",
        ),
        (
            {"model": {"norm": {"choices": ["batch"]}}},
            "space.model.norm has only one value, batch; set model.norm instead",
        ),
        (
            {"model": {"norm": {"choices": ["batch", "batch"]}}},
            'space.model.norm.choices is ["batch", "batch"]; its values must be distinct',
        ),
        ({"model": {"norm": {"choices": []}}}, "space.model.norm.choices is []; it must be a list of values"),
        (
            {"model": {"norm": {"choices": ["a", "b"], "low": 1}}},
            "space.model.norm has choices and low; keep only one of them",
        ),
        (
            {"model": {"width": {"low": 1, "high": 4, "when": {"model.norm": "layer"}}}},
            "space.model.width.when requires model.norm to be layer, which is impossible; possible values: batch",
        ),
        (
            {"model": {"width": {"low": 1, "high": 4, "when": {"model.nrm": "layer"}, "repeat": 2}}},
            "space.model.width.when refers to unknown key model.nrm; did you mean model.norm?",
        ),
        (
            {"model": {"block_channels": {"low": 1, "high": 4, "repeat": "model.dropout"}}},
            "space.model.block_channels.repeat refers to model.dropout, which is not a count; it must be an integer of 0 or more",
        ),
        (
            {
                "model": {
                    "width": {"low": 1, "high": 4, "when": {"model.depth": 2}},
                    "depth": {"low": 1, "high": 4, "when": {"model.width": 2}},
                }
            },
            "circular dependency between space.model.width and space.model.depth (through when or repeat)",
        ),
        (
            {"model": {"width": {"low": 1, "high": 2}, "extra": {"low": 1, "high": 2}}},
            "space.model.extra matches no key; model has: block_channels, depth, dropout, norm, num_blocks, width",
        ),
        (
            {"optim": {"momentum": {"low": 0.1, "high": 0.2, "when": {"optim": "sdg"}}}},
            "space.optim.momentum.when requires optim to be sdg; did you mean sgd?",
        ),
    ],
)
def test_lint_says_key_value_rule_remedy(entry, message):
    assert read(entry)[1] == [message]


def test_lint_tells_all_faults_at_once():
    entry = {"model": {"width": {"low": 9, "high": 4}, "depht": {"low": 1, "high": 2}}, "optim": {"lr": {"low": 1}}}
    assert len(read(entry)[1]) == 3


numbers = st.integers(-20, 20) | st.floats(-20, 20, allow_nan=False)
draws = st.fixed_dictionaries(
    {},
    optional={
        "low": numbers | st.text(max_size=3),
        "high": numbers,
        "step": numbers,
        "log": st.booleans(),
        "choices": st.lists(st.integers(0, 3) | st.text(max_size=2), max_size=4),
        "when": st.dictionaries(
            st.sampled_from(["model.norm", "model.width", "optim", "x"]), st.integers(0, 2), max_size=1
        ),
        "repeat": st.sampled_from([1, 2, 0, "model.depth", "model.norm", "nothing"]),
    },
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["width", "depth", "dropout", "norm", "other"]), draws, max_size=4),
    st.integers(0, 9),
)
def test_any_space_is_either_refused_with_words_or_can_be_drawn(entries, seed):
    """No input raises; a space without faults gives samples that lie inside it and fit the configuration."""
    space, faults = read({"model": entries})
    assert all(fault.startswith("space") for fault in faults)
    if faults:
        return
    sample = draw(space, seed)
    applied = space.apply(sample)
    assert set(applied["model"]) == set(CONFIG["model"])
    points, num_continuous = space.size()
    assert points >= 1
    assert num_continuous == sum(d.num_points is None for d in space.draws)
    for d in space.draws:
        if d.path in sample and d.low is not None:
            assert d.low <= sample[d.path] <= d.high or math.isclose(sample[d.path], d.high, abs_tol=1e-9)
