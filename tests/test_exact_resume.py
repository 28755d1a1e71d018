"""Exact resume: a simulated sweep with one slot that is killed at every event ends like an uninterrupted one. So does a
real sweep with Ray that is killed once.

The study's journal is append-only, with one write per line, so what a kill leaves on disk is a prefix of the journal.
"""

import itertools
import os
import random
import shutil
import time

import pytest

from ferhpo.storage.meta import META
from ferhpo.storage.study.journal import JOURNAL
from ferhpo.storage.sweep import load_sweep
from ferhpo.training.hardware.usage import NAMES
from tests.conftest import TINY
from tests.simulated_sweep import CONDITIONAL, NUM_TRIALS, SCHEDULERS, SPACES, drive, make_sweep, recorded

SLICES = {  # of all pairs of sampler and scheduler, so that the fast tests have each of them
    ("random", "none"),
    ("tpe_quick", "asha"),
    ("tpe_quick", "median"),
    ("cmaes", "hyperband"),
    ("grid", "median"),
    ("qmc", "asha"),
}


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Do not wait for the disk at each line, which would take most of the time: no test here loses power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def choice_of(sampler, scheduler, folds=None):
    # With this seed, every scheduler stops a trial of every sampler.
    choice = [f"sampler={sampler}", f"scheduler={scheduler}", "seed=1", *SPACES[sampler]]
    return choice if folds is None else [*choice, f"data.folds={folds}"]


def run_whole(folder, *choice, **more):
    """Run an uninterrupted sweep; return it, its recorded trials, and the length of its journal at each event."""
    sweep, sizes = make_sweep(folder, "whole", *choice, **more), []
    assert drive(sweep, on_event=lambda scheduler: sizes.append((sweep.folder / JOURNAL).stat().st_size))
    expected = recorded(sweep)
    assert len(expected) == NUM_TRIALS
    assert all(row[1] != "RUNNING" for row in expected)
    return sweep, expected, sizes


def cut(whole, num_bytes):
    """Return the sweep as a kill leaves it when its journal has this length."""
    folder = whole.folder.with_name(f"cut{num_bytes}")
    folder.mkdir()
    shutil.copy(whole.folder / META, folder)
    (folder / JOURNAL).write_bytes((whole.folder / JOURNAL).read_bytes()[:num_bytes])
    return load_sweep(folder)


def assert_ends_alike(whole, expected, sizes):
    for num_bytes in sizes:
        sweep = cut(whole, num_bytes)
        assert drive(sweep)
        assert recorded(sweep) == expected, f"cut at byte {num_bytes}"
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
    assert recorded(sweep) == expected
    assert num_drivers > 0.75 * len(sizes), "opening the study completes partial writes, so there are fewer drivers"


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
    """Including trials that ended by themselves between two of its rungs."""

    def knowledge(schedulers):
        stock = schedulers[-1].stock
        if scheduler == "median":
            return {stub.trial_id: [row["val_acc"] for row in rows] for stub, rows in stock._results.items()}
        return [bracket._rungs for bracket in stock._brackets]

    sweep = make_sweep(tmp_path, "sweep", *choice_of("random", scheduler))
    before, after = [], []
    assert drive(sweep, on_event=before.append)
    assert drive(sweep, on_event=after.append)
    assert knowledge(after) == knowledge(before)


@pytest.mark.parametrize("sampler", ["tpe_quick", pytest.param("cmaes", marks=pytest.mark.full)])
def test_a_sweep_extended_after_its_end_equals_one_begun_with_that_number(tmp_path, sampler):
    choice = choice_of(sampler, "asha")
    _, expected, _ = run_whole(tmp_path, *choice)
    sweep = make_sweep(tmp_path, "grown", *choice)
    for num_trials in (4, 5, NUM_TRIALS):
        assert drive(sweep, num_trials=num_trials)
        assert len(recorded(sweep)) == num_trials
    assert recorded(sweep) == expected


def test_a_listed_sweep_that_is_killed_ends_as_an_uninterrupted_one(tmp_path):
    """The trials of a confirmation are listed, not sampled."""
    sampled, expected, _ = run_whole(tmp_path / "sampled", *choice_of("random", "none"))
    listed = [{"sample": row[3], "seed": row[4] + 1} for row in expected]
    whole, expected, sizes = run_whole(tmp_path / "listed", *choice_of("random", "none"), listed=listed)
    assert [(row[3], row[4]) for row in expected] == [(entry["sample"], entry["seed"]) for entry in listed]
    assert sampled.listed == []
    assert_ends_alike(whole, expected, sizes[::5])


@pytest.mark.full
def test_a_journal_cut_at_any_byte_goes_on_to_the_same_end(tmp_path):
    """A power loss may leave a partial line; a kill leaves complete lines."""
    whole, expected, sizes = run_whole(tmp_path, *choice_of("tpe_quick", "asha"))
    rng = random.Random(7)
    assert_ends_alike(whole, expected, [rng.randrange(1, sizes[-1]) for _ in range(40)])


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_real_sweep_killed_in_the_middle_ends_as_an_uninterrupted_one(warm, tmp_path):
    """With Ray, real training and one slot of one thread, values are bit-identical too."""
    options = [*TINY, f"output_dir={tmp_path}", "num_trials=6", "compute.num_cpus=1", "compute.gpus_per_trial=0"]
    options += ["compute.max_concurrent=1", "tracking=none", "trainer.max_epochs=4", *CONDITIONAL]
    log = tmp_path / "log.txt"
    timings = ("epoch_seconds", "images_per_second", "device_memory_mb", *NAMES)

    def result_of(name):
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
    assert any(row[1] == "RUNNING" and row[-1] for row in result_of("cut")), "a trial was interrupted between epochs"
    assert warm.run("sweep", "--resume", "cut", f"output_dir={tmp_path}", log=log) == 0, log.read_text()
    assert result_of("cut") == result_of("whole")
    assert "PRUNED" in {row[1] for row in result_of("whole")}
