"""Exact resume: a simulated sweep with one slot, killed at every event, ends as an uninterrupted one does; so does a real
one with Ray, killed once.

The study's journal only grows, and each line of it is one write: what a kill leaves on disk is the journal cut somewhere.
"""

import itertools
import os
import random
import shutil
import time

import pytest

from ferhpo.storage.journal import JOURNAL
from ferhpo.storage.sweep import META, load_sweep
from tests.conftest import TINY
from tests.simulated_sweep import CONDITIONAL, NUM_TRIALS, SCHEDULERS, SPACES, drive, make_sweep, told

SLICES = {  # of the grid sampler x scheduler, so that each stands in the fast set once
    ("random", "none"),
    ("tpe_quick", "asha"),
    ("tpe_quick", "median"),
    ("cmaes", "hyperband"),
    ("grid", "median"),
    ("qmc", "asha"),
}


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Nothing here loses power: waiting for the disk at each line would be most of the time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def choice_of(sampler, scheduler, folds=None):
    # With this seed every scheduler stops a trial of every sampler.
    choice = [f"sampler={sampler}", f"scheduler={scheduler}", "seed=1", *SPACES[sampler]]
    return choice if folds is None else [*choice, f"data.folds={folds}"]


def run_whole(folder, *choice, **more):
    """An uninterrupted sweep, what it came to, and the length of its journal at each event."""
    sweep, sizes = make_sweep(folder, "whole", *choice, **more), []
    assert drive(sweep, noted=lambda scheduler: sizes.append((sweep.folder / JOURNAL).stat().st_size))
    expected = told(sweep)
    assert len(expected) == NUM_TRIALS
    assert all(row[1] != "RUNNING" for row in expected)
    return sweep, expected, sizes


def cut(whole, num_bytes):
    """The sweep that a kill left when its journal was so long."""
    folder = whole.folder.with_name(f"cut{num_bytes}")
    folder.mkdir()
    shutil.copy(whole.folder / META, folder)
    (folder / JOURNAL).write_bytes((whole.folder / JOURNAL).read_bytes()[:num_bytes])
    return load_sweep(folder)


def assert_ends_alike(whole, expected, sizes):
    for num_bytes in sizes:
        sweep = cut(whole, num_bytes)
        assert drive(sweep)
        assert told(sweep) == expected, f"cut at byte {num_bytes}"
        shutil.rmtree(sweep.folder)


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [
        pytest.param(*pair, marks=() if pair in SLICES else pytest.mark.full)
        for pair in itertools.product(SPACES, SCHEDULERS)
    ],
)
def test_a_sweep_whose_driver_dies_at_every_event_ends_as_an_uninterrupted_one(tmp_path, sampler, scheduler):
    choice = choice_of(sampler, scheduler)
    _, expected, sizes = run_whole(tmp_path, *choice)
    states = {row[1] for row in expected}
    assert {"COMPLETE", "INFEASIBLE"} < states
    assert scheduler == "none" or "PRUNED" in states, "the scheduler had something to decide"
    sweep, num_drivers = make_sweep(tmp_path, "killed", *choice), 1
    while not drive(sweep, num_events=1):
        num_drivers += 1
    assert told(sweep) == expected
    assert num_drivers > 0.75 * len(sizes), "an opening tells what the kill kept from being told, so there are fewer"


@pytest.mark.full
@pytest.mark.parametrize(("sampler", "scheduler"), list(itertools.product(SPACES, SCHEDULERS)))
def test_a_sweep_killed_once_at_any_event_ends_as_an_uninterrupted_one(tmp_path, sampler, scheduler):
    assert_ends_alike(*run_whole(tmp_path, *choice_of(sampler, scheduler)))


@pytest.mark.parametrize(
    ("sampler", "scheduler", "folds"),
    [
        ("tpe_quick", "asha", None),
        ("tpe_quick", "median", None),
        ("cmaes", "asha", None),
        ("qmc", "none", None),
        ("tpe_quick", "asha", 5),
        ("tpe_quick", "median", 5),
    ],
)
@pytest.mark.full
def test_a_journal_cut_after_any_line_goes_on_to_the_same_end(tmp_path, sampler, scheduler, folds):
    whole, expected, _ = run_whole(tmp_path, *choice_of(sampler, scheduler, folds))
    lines = (whole.folder / JOURNAL).read_bytes().splitlines(keepends=True)
    assert_ends_alike(whole, expected, list(itertools.accumulate(map(len, lines)))[1:])


@pytest.mark.parametrize("scheduler", SCHEDULERS[1:])
def test_a_scheduler_that_hears_the_record_knows_what_the_one_before_knew(tmp_path, scheduler):
    """Also of trials that ended by themselves between two of its rungs."""

    def knowledge(schedulers):
        stock = schedulers[-1].stock
        if scheduler == "median":
            return {stub.trial_id: [row["val_acc"] for row in rows] for stub, rows in stock._results.items()}
        return [bracket._rungs for bracket in stock._brackets]

    sweep = make_sweep(tmp_path, "sweep", *choice_of("random", scheduler))
    before, after = [], []
    assert drive(sweep, noted=before.append)
    assert drive(sweep, noted=after.append)
    assert knowledge(after) == knowledge(before)


@pytest.mark.parametrize("sampler", ["tpe_quick", pytest.param("cmaes", marks=pytest.mark.full)])
def test_a_sweep_extended_after_its_end_equals_one_begun_with_that_number(tmp_path, sampler):
    choice = choice_of(sampler, "asha")
    _, expected, _ = run_whole(tmp_path, *choice)
    sweep = make_sweep(tmp_path, "grown", *choice)
    for num_trials in (4, 5, NUM_TRIALS):
        assert drive(sweep, num_trials=num_trials)
        assert len(told(sweep)) == num_trials
    assert told(sweep) == expected


def test_a_listed_sweep_that_is_killed_ends_as_an_uninterrupted_one(tmp_path):
    """The trials of a confirmation are listed, not drawn."""
    drawn, expected, _ = run_whole(tmp_path / "drawn", *choice_of("random", "none"))
    listed = [{"sample": row[3], "seed": row[4] + 1} for row in expected]
    whole, expected, sizes = run_whole(tmp_path / "listed", *choice_of("random", "none"), listed=listed)
    assert [(row[3], row[4]) for row in expected] == [(entry["sample"], entry["seed"]) for entry in listed]
    assert drawn.listed == []
    assert_ends_alike(whole, expected, sizes[::5])


@pytest.mark.full
def test_a_journal_cut_at_any_byte_goes_on_to_the_same_end(tmp_path):
    """What a loss of power may leave; a kill leaves whole lines."""
    whole, expected, sizes = run_whole(tmp_path, *choice_of("tpe_quick", "asha"))
    numbers = random.Random(7)
    assert_ends_alike(whole, expected, [numbers.randrange(1, sizes[-1]) for _ in range(40)])


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_real_sweep_killed_in_the_middle_ends_as_an_uninterrupted_one(warm, tmp_path):
    """Ray, networks in training, one slot of one thread: values too are equal to the bit."""
    options = [*TINY, f"output_dir={tmp_path}", "num_trials=6", "compute.num_cpus=1", "compute.gpus_per_trial=0"]
    options += ["compute.max_concurrent=1", "tracking=none", "trainer.max_epochs=4", *CONDITIONAL]
    log = tmp_path / "log.txt"
    timings = ("epoch_seconds", "images_per_second", "device_memory_mb")

    def came_to(name):
        trials = load_sweep(name, tmp_path).trials()
        rows = [[{k: v for k, v in row.items() if k not in timings} for row in trial.epochs] for trial in trials]
        return [
            (t.number, t.state, t.sample, t.seed, t.value, t.best_epoch, t.decisions, epochs)
            for t, epochs in zip(trials, rows, strict=True)
        ]

    def is_worth_killing():
        trials = load_sweep("cut", tmp_path).trials() if (tmp_path / "cut" / META).exists() else []
        return any(t.state == "RUNNING" and t.number > 2 and t.decisions[-1:] == ["CONTINUE"] for t in trials)

    assert warm.run("sweep", "demo", "name=whole", *options, log=log) == 0, log.read_text()
    driver = warm.start("sweep", "demo", "name=cut", *options, log=log)
    while not is_worth_killing():
        assert driver.poll() is None, log.read_text()
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    assert any(row[1] == "RUNNING" and row[-1] for row in came_to("cut")), "a trial was in the middle of its epochs"
    assert warm.run("sweep", "--resume", "cut", f"output_dir={tmp_path}", log=log) == 0, log.read_text()
    assert came_to("cut") == came_to("whole")
    assert "PRUNED" in {row[1] for row in came_to("whole")}
