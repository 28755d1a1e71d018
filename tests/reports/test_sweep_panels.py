"""Panels of a sweep: their numbers equal those of a plain computation, and their sentences are true."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ferhpo.config import Objective
from ferhpo.reports.sweep import (
    axes,
    history,
    importance,
    leaderboard,
    optimizers,
    outcomes,
    parallel,
    pareto,
    ranking,
    slices,
)
from ferhpo.storage import evaluation_log
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.training.checkpoint import FORMAT
from tests.reports.made_sweeps import BARE_CHECKPOINT, CONDITIONAL_SPACE, LIST_SPACE, made_sweep, score

FER2013 = "data=fer2013", "data.path=/nowhere/fer2013.csv"


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def trial(number, value, cost=1, state="COMPLETE"):
    return TrialRecord(number, state, {}, 0, value=value, extra={"macs": cost})


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_front_is_the_trials_that_none_equals_or_beats_for_no_more(points):
    board = sorted(
        (trial(n, value, cost) for n, (value, cost) in enumerate(points)), key=lambda t: (-t.value, t.number)
    )
    kept = {(t.value, t.extra["macs"]) for t in pareto.front(board, "macs")}
    assert kept == {
        (v, c) for v, c in points if not any((w >= v and d <= c) and (w, d) != (v, c) for w, d in points)
    }  # fmt: skip


def test_the_history_steps_at_each_new_best_complete_trial(tmp_path):
    sweep = made_sweep(tmp_path, ["COMPLETE", "PRUNED", "FAILED", "COMPLETE", "COMPLETE", "RUNNING"])
    trials = sweep.trials()
    complete = [t.value if t.state == "COMPLETE" else -np.inf for t in trials]
    expected = [(n, v) for n, v in enumerate(complete) if v > max(complete[:n], default=-np.inf)]
    assert history.best_so_far(sweep, trials) == expected
    panel = history.panel(sweep, tmp_path)
    assert f"number {sweep.best().number} with val_acc {sweep.best().value:.4f}" in panel.text
    assert "lower edge" in panel.text


def test_importance_finds_what_matters_and_needs_enough_trials(tmp_path):
    sweep = made_sweep(tmp_path, ["COMPLETE"] * 40)
    found = importance.importances(sweep.space(), sweep.trials(), sweep.objective)
    assert sum(found.values()) == pytest.approx(1)
    assert found["optim.lr"] > 0.9, "the value depends on the learning rate alone"
    chance = importance.chance_importances(sweep.space(), sweep.trials(), sweep.objective)
    assert chance["optim.lr"] < found["optim.lr"]
    few = made_sweep(tmp_path, ["COMPLETE"] * 19, name="few")
    panel = importance.panel(few, tmp_path)
    assert panel.images == ()
    assert "19 trials with a value; importances from fewer than 20" in panel.text


def test_among_the_best_trials_something_else_matters(tmp_path):
    """The learning rate makes a trial good; among the good ones, only the norm makes a difference."""
    sweep = made_sweep(tmp_path, ["COMPLETE"] * 120)
    rate, norm = "optim.lr", "model.norm"
    trials = [
        replace(t, value=(t.sample[rate] > 0.01) + 0.1 * (t.sample[norm] == "batch") + 1e-4 * t.number / 120)
        for t in sweep.trials()
    ]
    everywhere = importance.importances(sweep.space(), trials, sweep.objective)
    inside = importance.region_importances(sweep.space(), trials, sweep.objective)
    assert importance.num_in_region(120) == 12
    assert importance.num_in_region(25) == 10
    assert everywhere[rate] > 0.2
    assert set(inside) == {rate, norm}
    text = importance._region_text([rate, norm], {rate: 0.2, norm: 0.8}, 12)
    assert text.startswith("Among the best 12 trials alone, what separates the better half is mostly model.norm (80%)")


def test_importance_of_values_without_a_cause_is_chance(tmp_path):
    sweep = made_sweep(tmp_path, ["COMPLETE"] * 40)
    random = np.random.default_rng(1)
    trials = [TrialRecord(t.number, t.state, t.sample, 0, value=random.random()) for t in sweep.trials()]
    found = importance.importances(sweep.space(), trials, Objective("val_loss", "min"))
    chance = importance.chance_importances(sweep.space(), trials, Objective("val_loss", "min"))
    assert all(found[path] <= chance[path] for path in found)
    assert "no hyperparameter is more important than expected by chance" in importance._text(
        list(found), found, chance, trials
    )


def test_importance_knows_conditional_and_repeated_draws(tmp_path):
    sweep = made_sweep(tmp_path, ["COMPLETE", "PRUNED"] * 15, CONDITIONAL_SPACE)
    found = importance.importances(sweep.space(), sweep.trials(), sweep.objective)
    assert set(found) == {"model.num_blocks", *(f"model.block_channels.{index}" for index in range(3))}


def test_axes_are_those_of_the_space(tmp_path):
    sweep = made_sweep(tmp_path, ["COMPLETE"] * 8)
    lr, norm = axes.varied(sweep, sweep.trials())
    assert (lr.path, lr.low, lr.high, lr.log) == ("optim.lr", 1e-4, 0.1, True)
    assert lr.fraction(1e-4) == 0
    assert lr.fraction(10**-2.5) == pytest.approx(0.5)
    assert [text for _, text in lr.ticks()] == ["1e-4", "0.001", "0.01", "0.1"]
    assert norm.categories == ("batch", "none")
    assert norm.fraction("none") == 1
    assert (lr.edge(0.0999), lr.edge(0.01), norm.edge("none")) == ("highest", "", "")


def test_lists_are_categories(tmp_path):
    sweep = made_sweep(tmp_path, ["COMPLETE"] * 6, LIST_SPACE)
    (axis,) = axes.varied(sweep, sweep.trials())
    assert set(axis.categories) == {"[64]", "[64, 32]"}
    assert parallel.panel(sweep, tmp_path).images[0].exists()
    assert len(slices.panel(sweep, tmp_path).images) == 1


@given(st.floats(1e-9, 1e9), st.floats(1.0001, 1e6))
@settings(max_examples=60, deadline=None)
def test_log_ticks_lie_within_and_are_few(low, factor):
    ticks = axes.log_ticks(low, low * factor)
    assert 1 <= len(ticks) <= 5
    assert all(low * 0.999 <= tick <= low * factor * 1.001 for tick in ticks)


def test_thinning_keeps_the_best_and_the_worst():
    board = [trial(number, 1 - number / 1000) for number in range(1000)]
    shown = parallel.thinned(board, 150)
    assert len(shown) == 150
    assert shown[:50] == board[:50]
    assert shown[-1] is board[-1]
    assert parallel.thinned(board[:7], 150) == board[:7]


def test_optimizers_are_compared_by_what_varies_of_them(tmp_path):
    space = {"optim": {"lr": {"low": 1e-4, "high": 0.1, "log": True}, "amsgrad": {"choices": [True, False]}}}
    sweep = made_sweep(tmp_path, ["COMPLETE", "PRUNED", "COMPLETE"] * 4, space)
    panel = optimizers.panel(sweep, tmp_path)
    table = rows(panel.tables[0])
    assert {row["value"] for row in table if row["hyperparameter"] == "optim.amsgrad"} == {"true", "false"}
    thirds = [row for row in table if row["hyperparameter"] == "optim.lr"]
    assert [int(row["trials"]) for row in thirds] == [4, 4, 4]
    for row in table:
        if row["hyperparameter"] == "optim.amsgrad":
            own = [t for t in sweep.trials() if t.sample["optim.amsgrad"] == (row["value"] == "true")]
            assert float(row["median val_acc"]) == pytest.approx(np.median([t.value for t in own]))
            best = max((t for t in own if t.state == "COMPLETE"), key=lambda t: t.value)
            assert int(row["best trial"]) == best.number
    assert optimizers.panel(made_sweep(tmp_path, ["COMPLETE"] * 3, LIST_SPACE, name="none"), tmp_path) is None


def test_each_optimizers_best_has_its_confusion_matrix(tmp_path):
    overrides = ("+space.optim.options=[sgd,adam]",)
    sweep = made_sweep(tmp_path, ["COMPLETE"] * 8, {"optim": {"options": ["sgd", "adam"]}}, overrides=overrides)
    groups = {name: [t for t in sweep.trials() if t.sample["optim"] == name] for name in ("sgd", "adam")}
    best = max(groups["adam"], key=lambda t: t.value)
    checkpoint = sweep.trial_folder(best.number) / "best.ckpt"
    checkpoint.parent.mkdir(parents=True)
    kept = {"format": FORMAT, "class_names": ["a", "b"], "confusion": torch.tensor([[3, 1], [0, 4]])}
    torch.save({**BARE_CHECKPOINT, **kept}, checkpoint)
    panel = optimizers.panel(sweep, tmp_path)
    assert [path.name for path in panel.images] == ["optimizers_optim.svg", "optimizers_confusion_adam.svg"]
    assert {row["value"]: int(row["trials"]) for row in rows(panel.tables[0])} == {k: len(v) for k, v in groups.items()}


def test_outcomes_are_counted_by_reason(tmp_path):
    sweep = made_sweep(tmp_path, ["FAILED", "COMPLETE", "FAILED", "INFEASIBLE"], reason="out of memory\nmore")
    panel = outcomes.panel(sweep, tmp_path)
    assert "3 trials of 4 ended without a result: 2 failed and 1 infeasible." in panel.text
    assert [(row["trials"], row["numbers"], row["reason"]) for row in rows(panel.tables[0])] == [
        ("2", "0, 2", "out of memory"),
        ("1", "3", "out of memory"),
    ]
    assert outcomes.panel(made_sweep(tmp_path, ["COMPLETE"], name="fine"), tmp_path) is None


def test_the_leaderboard_table_has_every_trial_best_first(tmp_path):
    sweep = made_sweep(tmp_path, ["COMPLETE", "FAILED", "COMPLETE", "PRUNED"], CONDITIONAL_SPACE)
    table = rows(leaderboard.panel(sweep, tmp_path).tables[0])
    assert [int(row["trial"]) for row in table] == [t.number for t in sweep.leaderboard()]
    best = sweep.best()
    widths = [str(best.sample[f"model.block_channels.{i}"]) for i in range(best.sample["model.num_blocks"])]
    assert table[0]["model.block_channels"] == " ".join(widths)


def test_a_validation_score_is_not_ranked(tmp_path):
    sweep = made_sweep(tmp_path, ["COMPLETE", "COMPLETE"], overrides=FER2013)
    table = rows(ranking.panel(sweep, tmp_path).tables[0])
    assert [row["accuracy %"] for row in table[:9]] == [
        "72.70", "72.16", "72.11", "71.86", "71.60", "71.16", "70.80", "68.20", "68.18",
    ]  # fmt: skip
    assert table[9]["rank"] == ""
    assert table[9]["accuracy %"] == f"{100 * max(score(t.sample) for t in sweep.trials()):.2f}"
    assert table[9]["scored on"] == "validation (PublicTest), on which it was selected"


def test_a_test_score_is_ranked(tmp_path):
    sweep = made_sweep(tmp_path, ["COMPLETE"], overrides=FER2013)
    entry = {"when": "2026-01-02 03:04:05", "verb": "evaluate", "model": "made/0", "split_name": "published"}
    own = {**entry, "data_digest": "a", "scores": {"one_view": {"all": {"acc": 0.715}}}}
    random = {**own, "split_name": "random", "scores": {"one_view": {"all": {"acc": 0.99}}}}
    other = {**own, "data_digest": "b"}
    old = {**own, "scores": {"one_view": {"published": {"acc": 0.705}}}}  # as versions before the variants wrote it
    sweep.meta["data"] = {"digest": "a"}
    lines = [json.dumps(entry) for entry in (own, random, other, old)]
    (sweep.folder / evaluation_log.FILE).write_text("\n".join(lines))
    table = rows(ranking.panel(sweep, tmp_path).tables[0])
    ours, ours_old = [row for row in table if row["scored on"] == "test (PrivateTest)"]
    assert (ours["rank"], ours["accuracy %"]) == ("6", "71.50")
    assert (ours_old["rank"], ours_old["accuracy %"]) == ("9", "70.50")
    assert len(table) == 12


@pytest.mark.parametrize("overrides", [(), (*FER2013, "data.labels=ferplus_majority")])
def test_other_data_have_no_ranking(tmp_path, overrides):
    assert ranking.panel(made_sweep(tmp_path, ["COMPLETE"], overrides=overrides), tmp_path) is None
