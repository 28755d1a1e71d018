"""Panels about the search: enough trials, time, early epochs, isolation."""

import itertools

import numpy as np
import pytest

from ferhpo.reports.panel import safe_name
from ferhpo.reports.search import early, enough, isolation, over_time
from ferhpo.reports.search.early import by_epoch
from ferhpo.reports.search.enough import expected_best
from ferhpo.reports.search.over_time import best_over_seconds
from ferhpo.reports.sweep.axes import varied
from ferhpo.scoring.objective import Objective
from ferhpo.states import TrialState
from ferhpo.storage.trial_record import TrialRecord
from tests.reports.made_sweeps import CONDITIONAL_SPACE, made_sweep

MAX = Objective("val_acc", "max")


def test_the_expected_best_is_that_of_all_draws():
    scores = [0.3, 0.5, 0.1, 0.5]
    mean, deviation = expected_best(scores)
    for k in (1, 2, 3, 4):
        best = [max(drawn) for drawn in itertools.product(scores, repeat=k)]
        assert mean[k - 1] == pytest.approx(np.mean(best))
        assert deviation[k - 1] == pytest.approx(np.std(best), abs=1e-9)


def trial(number, curve, seconds=1.0, state=TrialState.COMPLETE):
    epochs = [{"epoch": epoch, "val_acc": value} for epoch, value in enumerate(curve, 1)]
    value = max(curve) if curve else None
    return TrialRecord(number, state, {}, 0, epochs, value=value, seconds=seconds)


def test_the_best_value_counts_the_seconds_of_all_trials():
    trials = [trial(0, [0.2], 5), trial(1, [0.9], 7, TrialState.PRUNED), trial(2, [0.4], 1), trial(3, [0.3], 2)]
    assert best_over_seconds(trials, MAX) == ([(5.0, 0.2), (13.0, 0.4)], 15.0)


def test_early_epochs_that_order_as_the_end_does():
    trials = [trial(number, [number / 10, number / 9, number / 8]) for number in range(6)]
    found = by_epoch(trials, MAX)
    assert [each.epoch for each in found] == [1, 2]
    assert all(each.correlation == pytest.approx(1) and each.cost == 0 for each in found)
    assert found[0].saved == pytest.approx(8 / 18)  # four of six trials stop two epochs early


def test_the_cost_of_stopping_the_late_bloomer():
    trials = [trial(number, [0.5 - number / 100, 0.5 + number / 100]) for number in range(9)]
    (found,) = by_epoch(trials, MAX)
    assert found.correlation == pytest.approx(-1)
    assert found.cost == pytest.approx(0.58 - 0.52)


def test_of_a_loss_the_smallest_is_the_best():
    loss = Objective("val_loss", "min")
    epochs = [[{"epoch": 1, "val_loss": 2.0 - n / 10}, {"epoch": 2, "val_loss": 1.0 - n / 10}] for n in range(6)]
    trials = [
        TrialRecord(n, TrialState.COMPLETE, {}, 0, rows, value=rows[-1]["val_loss"]) for n, rows in enumerate(epochs)
    ]
    (found,) = by_epoch(trials, loss)
    assert (found.correlation, found.cost) == (pytest.approx(1), 0)


@pytest.mark.parametrize("space", [None, CONDITIONAL_SPACE])
def test_panels_of_a_sweep(tmp_path, space):
    sweep = made_sweep(tmp_path, ["COMPLETE"] * 20 + ["PRUNED", "FAILED"], space=space)
    for module in (enough, over_time, early, isolation):
        panel = module.panel(sweep, tmp_path)
        if module is early and space is not None:
            assert panel is None, "all trials have the same value"
            continue
        assert panel is not None, module
        assert all(path.exists() for path in (*panel.images, *panel.tables))


@pytest.mark.parametrize("states", [[], ["FAILED"], ["COMPLETE"], ["COMPLETE", "PRUNED"], ["RUNNING"]])
def test_few_trials_have_no_panel_and_no_traceback(tmp_path, states):
    sweep = made_sweep(tmp_path, states)
    for module in (enough, early, isolation):
        assert module.panel(sweep, tmp_path) is None
    over_time.panel(sweep, tmp_path)


def test_each_part_has_its_best_trial(tmp_path):
    sweep = made_sweep(tmp_path, ["COMPLETE"] * 30)
    trials = sweep.trials()
    for axis in varied(sweep, trials):
        parts = isolation.parts_of(axis, trials, sweep.objective)
        assert sum(part.count for part in parts) == 30
        assert max(part.best for part in parts) == max(each.value for each in trials)
        assert [part.position for part in parts] == sorted(part.position for part in parts)


@pytest.mark.parametrize(
    ("text", "name"), [("optim.lr", "optim.lr"), ("../../x", "_./.._x"), (".hidden", "_hidden"), ("a/b\n", "a_b_")]
)
def test_names_of_files_lead_nowhere(text, name):
    found = safe_name(text)
    assert "/" not in found
    assert "\n" not in found
    assert not found.startswith(".")
    if "/" not in name:
        assert found == name
