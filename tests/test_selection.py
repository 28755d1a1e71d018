"""`ferhpo runs` with conditions, sorting, columns and several sweeps."""

import csv
import json

import pytest

from ferhpo import cli
from ferhpo.errors import ConfigError
from ferhpo.storage.selection import select
from ferhpo.storage.sweep import load_sweep
from tests.reports.made_sweeps import CONDITIONAL_SPACE, made_sweep

STATES = ["COMPLETE"] * 6 + ["PRUNED", "FAILED"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("selection")
    made_sweep(folder, STATES, name="one")
    made_sweep(folder, ["COMPLETE"] * 3, name="two", space=CONDITIONAL_SPACE)
    return folder


@pytest.fixture
def one(folder):
    return load_sweep("one", folder)


def test_a_condition_is_that_of_python(one):
    trials = one.trials()
    limit = sorted(trial.sample["optim.lr"] for trial in trials)[3]
    for sign, test in (("<", float.__lt__), ("<=", float.__le__), (">", float.__gt__), (">=", float.__ge__)):
        found = select([one], [f"optim.lr {sign} {limit!r}"])
        numbers = {row["trial"] for row in found.dicts()}
        assert numbers == {trial.number for trial in trials if test(trial.sample["optim.lr"], limit)}, sign


@pytest.mark.parametrize("text", ["state = complete", "state==COMPLETE", "state = 'complete'"])
def test_texts_are_compared_without_case(one, text):
    assert len(select([one], [text]).rows) == 6


@pytest.mark.parametrize("text", ["state != complete and value > 0", "state!=complete && value>0"])
def test_conditions_are_joined(one, text):
    (row,) = select([one], [text]).dicts()
    assert row["state"] == "PRUNED"
    assert select([one], ["state != complete", "value > 0"]).dicts() == [row]


def test_a_trial_without_a_value_meets_no_condition(one):
    numbers = [row["trial"] for row in select([one], ["value < 100"]).dicts()]
    assert len(numbers) == 7
    assert len(select([one], ["value != 100"]).rows) == 7


def test_sorting_puts_missing_values_last(one):
    values = [row["value"] for row in select([one], sort="value").dicts()]
    assert values[-1] is None
    assert values[:-1] == sorted(values[:-1], reverse=True)
    rising = [row["lr"] for row in [{"lr": row["optim.lr"]} for row in select([one], sort="-lr").dicts()]]
    assert rising == sorted(rising)


def test_the_objective_has_two_names(one):
    assert select([one], ["val_acc > 0.5"]).rows == select([one], ["value > 0.5"]).rows


def test_columns_and_top(one):
    table = select([one], columns=["trial", "lr", "value"], top=2)
    assert table.columns == ["trial", "optim.lr", "value"]
    assert len(table.rows) == 2


def test_several_sweeps_are_one_table(folder, one):
    table = select([one, load_sweep("two", folder)])
    assert table.columns[0] == "sweep"
    assert [row["sweep"] for row in table.dicts()] == ["one"] * 8 + ["two"] * 3
    assert {row["optim.lr"] for row in table.dicts() if row["sweep"] == "two"} == {None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": ["optim.lr"]}, "it must be KEY < VALUE"),
        ({"where": ["optim.rl < 1"]}, "did you mean optim.lr?"),
        ({"where": ["__import__('os').system('true') < 1"]}, "it must be KEY < VALUE"),
        ({"sort": "seconds_"}, "did you mean seconds?"),
        ({"columns": ["nothing like it"]}, "is not a column"),
    ],
)
def test_what_is_not_known_is_refused(one, options, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?").replace("(", r"\(")):
        select([one], **options)


def test_runs_prints_csv_json_and_a_table(folder, capsys):
    place = ["--output-dir", str(folder)]
    assert (
        cli.main(["runs", "one", "--where", "state = complete", "--sort", "value", "--top", "2", "--csv", *place]) == 0
    )
    header, *rows = csv.reader(capsys.readouterr().out.splitlines())
    assert len(rows) == 2
    assert header[:3] == ["trial", "state", "value"]
    assert cli.main(["runs", "one", "two", "--json", "--columns", "sweep,trial,value", *place]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 11
    assert cli.main(["runs", "one", "two", "--where", "value > 0.1", *place]) == 0
    shown = capsys.readouterr().out
    assert "sweep" in shown
    assert "two" in shown


def test_to_pandas_is_the_leaderboard(one):
    assert one.to_pandas().equals(one.frame())
