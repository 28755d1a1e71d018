"""The gates of a promotion: each passes and fails for its own reason, and all reasons are told at once."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from ferhpo.errors import ConfigError
from ferhpo.promotion.gates import _GATES, Facts, Gates, asks_anything, read_gates, tried
from ferhpo.scoring.statistics.paired import Difference

CONF = Path(__file__).parents[1] / "conf" / "gates"
BETTER = Difference(3589, 0.02, 0.011, 0.029, 200, 128, 0.0001)
GOOD = Facts(
    scored_on="test", num_images=3589, acc=0.7, macro_f1=0.66, recalls={"happy": 0.9, "disgust": 0.5},
    calibration_error=0.02, split_name="published", num_parameters=1_000_000, milliseconds=4.0, num_seeds=3,
    data_digest="d" * 64, champion="faces version 3", against_champion=BETTER, champion_digest="d" * 64,
    purpose="research",
)  # fmt: skip
ALL = Gates(0.65, 0.6, 0.4, 0.01, 2_000_000, 5.0, 3, True, True, 0.05, True, True)


def failed(gates, facts):
    return [result.gate for result in tried(gates, facts) if not result.passed]


def test_a_good_model_passes_all():
    results = tried(ALL, GOOD)
    assert [result.gate for result in results] == [field.name for field in fields(Gates)] == list(_GATES)
    assert failed(ALL, GOOD) == []
    assert all(result.found and result.asked for result in results)


@pytest.mark.parametrize(
    ("gate", "change"),
    [
        ("min_acc", {"acc": 0.6499}),
        ("min_macro_f1", {"macro_f1": 0.59}),
        ("min_class_recall", {"recalls": {"happy": 0.9, "disgust": 0.39}}),
        ("better_than_champion", {"against_champion": replace(BETTER, low=0.01)}),
        ("better_than_champion", {"against_champion": None}),
        ("max_parameters", {"num_parameters": 2_000_001}),
        ("max_parameters", {"num_parameters": None}),
        ("max_milliseconds", {"milliseconds": 5.1}),
        ("max_milliseconds", {"milliseconds": None}),
        ("min_seeds", {"num_seeds": 2}),
        ("min_seeds", {"num_seeds": None}),
        ("no_collapse", {"collapsed_to": "happy, 96 %"}),
        ("same_data", {"champion_digest": "e" * 64}),
        ("same_data", {"data_digest": "", "champion_digest": ""}),
        ("max_calibration_error", {"calibration_error": 0.06}),
        ("comparable_split", {"split_name": "random"}),
        ("comparable_split", {"scored_on": "val"}),
        ("purpose", {"purpose": ""}),
    ],
)
def test_each_gate_fails_for_its_own_reason(gate, change):
    assert failed(ALL, replace(GOOD, **change)) == [gate]
    assert (
        failed(
            replace(ALL, **{gate: None if gate.startswith(("min", "max", "better")) else False}),
            replace(GOOD, **change),
        )
        == []
    )


def test_all_reasons_are_told_at_once():
    bad = replace(GOOD, acc=0.1, macro_f1=0.1, purpose="", num_seeds=None)
    assert failed(ALL, bad) == ["min_acc", "min_macro_f1", "min_seeds", "purpose"]


def test_without_a_champion_there_is_none_to_beat():
    first = replace(GOOD, champion=None, against_champion=None, champion_digest="")
    assert failed(ALL, first) == []


@pytest.mark.parametrize("name", ["default", "strict", "none"])
def test_the_files_of_ferhpo_name_every_gate(name):
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert list(values) == [field.name for field in fields(Gates)]
    assert asks_anything(read_gates(values, name)) == (name != "none")
    if name == "default":
        assert read_gates(values, name) == Gates()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (3, "it must be a section"),
        ({"min_ac": 0.5}, "did you mean min_acc?"),
        ({"min_acc": 60}, "min_acc is 60; it must be a number from 0 to 1, or null"),
        ({"min_acc": "high"}, "min_acc is 'high'"),
        ({"min_acc": float("nan")}, "min_acc is nan"),
        ({"max_parameters": 1.5}, "whole number"),
        ({"min_seeds": 0}, "whole number"),
        ({"max_milliseconds": 0}, "above 0"),
        ({"no_collapse": 1}, "it must be true or false"),
        ({"better_than_champion": 2}, "from -1 to 1"),
        ({"purpose": None}, "it must be true or false"),
    ],
)
def test_a_wrong_file_is_refused(values, message):
    with pytest.raises(ConfigError) as error:
        read_gates(values, "mine")
    assert message in error.value.faults[0]


def test_every_fault_of_a_file_is_told():
    with pytest.raises(ConfigError) as error:
        read_gates({"min_acc": 2, "no_collapse": "yes", "x": 1}, "mine")
    assert len(error.value.faults) == 3
