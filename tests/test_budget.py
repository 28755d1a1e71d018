"""A budget ends a start of a sweep cleanly, and a resume continues."""

import json

import pytest

import ferhpo
from ferhpo import cli
from ferhpo.config.settings import BudgetSettings
from ferhpo.driver.budget import Budget
from ferhpo.errors import ConfigError
from tests.conftest import TINY
from tests.simulated_sweep import drive, make_sweep


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_gpu_hours_are_those_of_all_trials():
    clock = Clock()
    budget = Budget(BudgetSettings(gpu_hours=1.0), num_gpus=0.5, now=clock)
    budget.began(0)
    budget.began(1)
    clock.now = 3000.0
    budget.ended(0)
    assert budget.spent() == "", "3000 s of two halves of a GPU are 0.83 h"
    clock.now = 4300.0
    assert budget.spent() == "budget.gpu_hours is 1", "3000 + 4300 s of a half are 1.01 h"


def test_without_a_gpu_no_gpu_hours_pass():
    clock = Clock()
    budget = Budget(BudgetSettings(gpu_hours=0.1, hours=2), now=clock)
    budget.began(0)
    clock.now = 7199.0
    assert budget.spent() == ""
    clock.now = 7200.0
    assert budget.spent() == "budget.hours is 2"


def test_a_trial_that_continues_after_a_loss_counts_once():
    budget = Budget(BudgetSettings(trials=1))
    assert budget.has_trials
    budget.gave(0)
    assert not budget.has_trials
    budget = Budget(BudgetSettings(trials=2))
    budget.gave(0)
    budget.gave(0)
    assert budget.has_trials


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("budget.hours=0", "budget.hours is 0; it must be above 0, or null for no limit"),
        ("budget.gpu_hours=-1", "budget.gpu_hours is -1; it must be above 0, or null for no limit"),
        ("budget.trials=0", "budget.trials is 0; it must be a whole number of 1 or more, or null for no limit"),
        ("budget.trials=1.5", "budget.trials is 1.5"),
        ("+budget.minutes=5", "budget.minutes matches no key"),
        ("budget=5", "budget"),
    ],
)
def test_check_says_what_is_wrong(override, fault):
    with pytest.raises(ConfigError) as caught:
        ferhpo.check("demo", [override])
    assert fault in str(caught.value)


def test_a_start_runs_the_trials_of_its_budget_and_a_resume_has_it_again(tmp_path):
    """Without Ray: the ledger gives no more trials, and those of the starts together are those of one sweep."""
    whole = make_sweep(tmp_path, "whole", "sampler=random")
    assert drive(whole)
    parts = make_sweep(tmp_path, "parts", "sampler=random", "budget.trials=4")
    for num_trials in (4, 8, 9):
        drive(parts)
        assert len(parts.trials()) == num_trials
    samples = [[(t.sample, t.seed, t.state, t.value) for t in sweep.trials()] for sweep in (whole, parts)]
    assert samples[0] == samples[1]


@pytest.mark.full
@pytest.mark.usefixtures("warm")
def test_a_sweep_ends_with_its_budget_and_continues(tmp_path, capsys):
    options = [*TINY, f"output_dir={tmp_path}", "num_trials=5", "compute.num_cpus=2", "compute.gpus_per_trial=0"]
    options += ["scheduler=none", "tracking.models=none", "tracking.report=false"]
    assert cli.main(["sweep", "demo", *options, "budget.trials=2"]) == 0
    assert "Stopped: budget.trials is 2, which is used up. Resume with: ferhpo sweep --resume demo" in said(capsys)
    assert [trial.state for trial in ferhpo.load_sweep("demo", tmp_path).trials()] == ["COMPLETE"] * 2
    place = [f"output_dir={tmp_path}"]
    assert cli.main(["sweep", "--resume", "demo", *place, "budget.trials=null", "budget.hours=1e-9", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["finished"], answer["stop_reason"]) == (False, "budget.hours is 1e-09")
    assert "RUNNING" not in statuses(tmp_path)
    assert cli.main(["sweep", "--resume", "demo", *place, "budget.hours=null"]) == 0
    assert [trial.state for trial in ferhpo.load_sweep("demo", tmp_path).trials()] == ["COMPLETE"] * 5


def said(capsys):
    return " ".join(capsys.readouterr().out.split())


def statuses(folder):
    from mlflow import MlflowClient

    return {run.info.status for run in MlflowClient(f"sqlite:///{folder}/mlflow.db").search_runs(["1"])}
