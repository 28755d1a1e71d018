"""The study: samples depend on the history only, what is written is what is read, and a cut journal reopens."""

import json
import shutil

import pytest

from ferhpo.config import Objective
from ferhpo.errors import SweepError
from ferhpo.space import lint
from ferhpo.storage.study.journal import JOURNAL
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.storage.trial_record import read_trials

OBJECTIVE = Objective("val_acc", "max")
CONFIG = {"model": {"a": 1, "b": 0.5, "c": "x", "n": 1, "widths": [1, 2, 3]}}
CONDITIONAL = {
    "model": {
        "a": {"low": 0, "high": 9},
        "b": {"low": 0.01, "high": 1.0, "log": True},
        "c": {"choices": ["x", "y"]},
        "n": {"low": 1, "high": 3},
        "widths": {"low": 1, "high": 8, "repeat": "model.n"},
    }
}
NUMERIC = {"model": {"a": {"low": 0, "high": 9}, "b": {"low": 0.0, "high": 1.0}}}
FINITE = {"model": {"a": {"low": 0, "high": 3}, "c": {"choices": ["x", "y", "z"]}}}
SAMPLERS = {
    "random": ({"_target_": "optuna.samplers.RandomSampler"}, CONDITIONAL),
    "tpe": ({"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 4, "group": True}, CONDITIONAL),
    "cmaes": (
        {"_target_": "optuna.samplers.CmaEsSampler", "n_startup_trials": 3, "warn_independent_sampling": False},
        NUMERIC,
    ),
    "grid": ({"_target_": "optuna.samplers.GridSampler"}, FINITE),
    "qmc": ({"_target_": "optuna.samplers.QMCSampler", "warn_independent_sampling": False}, NUMERIC),
}


def open_study(folder, name, seed=3):
    sampler, entries = SAMPLERS[name]
    space, faults = lint.read(entries, CONFIG)
    assert faults == []
    folder.mkdir(exist_ok=True)
    return SweepStudy(folder, space, sampler, seed, OBJECTIVE)


def objective(sample) -> float:
    return 1.0 - abs(sample["model.a"] - 6) / 10 + (0.1 if sample.get("model.c") == "y" else 0.0)


def step(study) -> None:
    """Simulate one event of a sweep: ask, record an epoch, or end a trial; every fifth trial is infeasible."""
    running = study.interrupted()
    if not running:
        study.ask()
        return
    trial = study.trial(running[0])
    if trial.number % 5 == 4:
        study.finish(trial.number, "INFEASIBLE", "out of memory")
    elif len(trial.epochs) < 2:
        epoch = len(trial.epochs) + 1
        value = objective(trial.sample) * epoch / 2
        study.record_epoch(trial.number, epoch, {"val_acc": value, "val_loss": 1 - value}, "CONTINUE")
    else:
        study.finish(trial.number, "COMPLETE")


def state(folder):
    return [(t.number, t.state, t.sample, t.seed, t.value, t.epochs, t.reason) for t in read_trials(folder, OBJECTIVE)]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sweep_reopened_at_every_event_asks_what_an_uninterrupted_one_asks(tmp_path, name):
    whole = open_study(tmp_path / "whole", name)
    for _ in range(40):
        step(whole)
    whole.close()
    for _ in range(40):
        pieces = open_study(tmp_path / "pieces", name)
        step(pieces)
        pieces.close()
    assert state(tmp_path / "pieces") == state(tmp_path / "whole")


@pytest.mark.parametrize("name", ["random", "tpe", "grid"])
def test_a_journal_cut_at_any_line_goes_on_to_the_same_end(tmp_path, name):
    whole = open_study(tmp_path / "whole", name)
    while whole.num_asked < 10 or whole.interrupted():
        step(whole)
    whole.close()
    lines = (tmp_path / "whole" / JOURNAL).read_bytes().splitlines(keepends=True)
    for count in range(2, len(lines), 5):
        folder = tmp_path / f"cut{count}"
        folder.mkdir()
        torn = lines[count][: len(lines[count]) // 2]
        (folder / JOURNAL).write_bytes(b"".join(lines[:count]) + torn)
        study = open_study(folder, name)
        while study.num_asked < 10 or study.interrupted():
            step(study)
        study.close()
        assert [row[:-1] for row in state(folder)] == [row[:-1] for row in state(tmp_path / "whole")]
        shutil.rmtree(folder)


def test_a_report_that_a_kill_left_half_written_is_whole_after_the_opening(tmp_path):
    """CMA-ES and TPE rank a pruned trial by its intermediate value, which is the second line of a report."""
    study = open_study(tmp_path / "s", "tpe")
    study.record_epoch(study.ask().number, 1, {"val_acc": 0.25}, "CONTINUE")
    study.close()
    journal = tmp_path / "s" / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    study = open_study(tmp_path / "s", "tpe")
    study.close()
    assert json.loads(journal.read_bytes().splitlines()[-1])["intermediate_value"] == 0.25
    assert study._frozen()[0].intermediate_values == {1: 0.25}


def test_grid_covers_every_point_once(tmp_path):
    study = open_study(tmp_path / "grid", "grid")
    while study.num_asked < 12 or study.interrupted():
        step(study)
    points = {tuple(trial.sample.values()) for trial in study.trials()}
    assert len(points) == 12


def test_tpe_learns_from_infeasible_samples(tmp_path):
    """With a violated constraint, infeasible samples are drawn less often than by chance (a >= 5: half)."""
    study = open_study(tmp_path / "tpe", "tpe")
    for _ in range(40):
        trial = study.ask()
        if trial.sample["model.a"] >= 5:
            study.finish(trial.number, "INFEASIBLE", "out of memory")
        else:
            study.record_epoch(trial.number, 1, {"val_acc": 0.5}, "CONTINUE")
            study.finish(trial.number, "COMPLETE")
    last = [trial.state for trial in study.trials()[10:]]
    assert last.count("INFEASIBLE") < len(last) / 2


def test_value_is_the_objective_at_the_best_epoch(tmp_path):
    study = open_study(tmp_path / "s", "random")
    number = study.ask().number
    for epoch, value in enumerate([0.3, 0.7, float("nan"), 0.5], start=1):
        study.record_epoch(number, epoch, {"val_acc": value}, "CONTINUE")
    done = study.finish(number, "PRUNED", seconds=2.5, extra={"num_parameters": 12})
    assert (done.value, done.best_epoch, done.state, done.seconds) == (0.7, 2, "PRUNED", 2.5)
    assert done.extra == {"num_parameters": 12}
    assert study.best() is None  # pruned trials do not win
    study.close()
    stock = json.loads((tmp_path / "s" / JOURNAL).read_text().splitlines()[0])
    assert stock["op_code"] == 0  # stock Optuna reads it: its own journal format


def test_value_of_folds_is_their_mean_so_far_and_never_that_of_fewer(tmp_path):
    study = open_study(tmp_path / "s", "random")
    for means in ([0.9, 0.5, 0.6], [0.65, 0.7, 0.65]):  # by its first fold alone, the first trial would win
        number = study.ask().number
        for done, mean in enumerate(means, start=1):
            epochs = [{"epoch": 1, "val_acc": 0.1}, {"epoch": 2, "val_acc": mean}, {"epoch": 3, "val_acc": 0.2}]
            study.record_fold(number, done, {"val_acc": mean, "val_acc_std": 0.01}, epochs, "CONTINUE")
        study.finish(number, "COMPLETE")
    first, second = study.trials()
    assert (first.value, second.value) == (0.6, 0.65)
    assert study.best().number == 1
    assert [(row["fold"], row["val_acc"]) for row in first.reports] == [(1, 0.9), (2, 0.5), (3, 0.6)]
    assert [row["val_acc"] for row in first.epochs] == [0.1, 0.9, 0.2], "those of the fold whose network is kept"
    assert first.best_epoch == 2
    assert len(first.fold_epochs) == 3
    assert first.std("val_acc") == 0.01
    study.close()
    assert read_trials(tmp_path / "s", OBJECTIVE) == [first, second]
    reopened = open_study(tmp_path / "s", "random")
    assert reopened._memory.best_value == 0.65, "what the sampler learns from"
    reopened.close()


def test_complete_without_an_epoch_is_a_failure(tmp_path):
    study = open_study(tmp_path / "s", "random")
    number = study.ask().number
    assert study.finish(number, "COMPLETE").state == "FAILED"


def test_stock_optuna_reads_the_journal(tmp_path):
    import optuna
    from optuna.storages.journal import JournalFileBackend

    study = open_study(tmp_path / "s", "tpe")
    for _ in range(30):
        step(study)
    study.close()
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "s" / JOURNAL)))
    loaded = optuna.load_study(study_name="sweep", storage=storage)
    assert len(loaded.trials) == len(state(tmp_path / "s"))
    assert loaded.best_value == max(row[4] for row in state(tmp_path / "s") if row[1] == "COMPLETE")


def test_a_second_driver_is_refused_with_the_first_ones_host_and_process(tmp_path):
    import os
    import platform

    study = open_study(tmp_path / "s", "random")
    with pytest.raises(
        SweepError, match=rf"^sweep s is being run by process {os.getpid()} on {platform.node()} since "
    ):
        open_study(tmp_path / "s", "random")
    study.close()
    open_study(tmp_path / "s", "random").close()
