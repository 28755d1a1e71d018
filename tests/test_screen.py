"""What the terminal shows: tables at every width, a running sweep, commands and links that work."""

import dataclasses
import io
import json
import logging
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from ferhpo.cli.screen import console as screen
from ferhpo.cli.screen import running as running_module
from ferhpo.cli.screen.grid import Grid, KeyValues
from ferhpo.cli.screen.leaderboard import leaderboard
from ferhpo.cli.screen.progress import Progress
from ferhpo.cli.screen.running import RunningTable, RunningTrial, shortened
from ferhpo.cli.tables import Confusion, sweeps_table
from ferhpo.states import TrialState
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import STEPS, duration, short_names

WIDTHS = (80, 120, 200)


def shown(monkeypatch, part, width):
    """The lines that a part prints, without trailing spaces."""
    monkeypatch.setenv("COLUMNS", str(width))
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    screen.make_console().print(part)
    monkeypatch.undo()
    return [line.rstrip() for line in file.getvalue().splitlines()]


def trial(number, sample, state=TrialState.COMPLETE, value=0.123456):
    epochs = [{"epoch": 1, "val_acc": value}]
    return TrialRecord(number, state, sample, 0, epochs, value=value, best_epoch=1, extra={"num_parameters": 1234})


def wide_space(number):
    """A space with 24 hyperparameters, long names, a repeated draw and a choice among networks."""
    names = [f"model.a_rather_long_name_of_a_setting_{i}" for i in range(18)]
    sample = {name: (i * 7.77 + number) / 3 for i, name in enumerate(names)}
    sample |= {"optim.lr": 0.00123456 * (number + 1), "optim": ["adam", "sgd"][number % 2], "model.fixed": 0.5}
    return sample | {f"model.block_channels.{i}": 64 * (i + number) for i in range(3)}


@pytest.mark.parametrize("width", WIDTHS)
def test_a_leaderboard_fits_and_breaks_no_word(monkeypatch, width):
    trials = [trial(number, wide_space(number), value=0.1 + number / 7) for number in range(5)]
    text = shown(monkeypatch, leaderboard(trials, "val_acc"), width)
    assert max(map(len, text)) <= width
    words = " ".join(text).split()
    for path, value in trials[3].sample.items():
        if not path.startswith("model.block") and path != "model.fixed":
            shown_value = f"{value:.4g}" if isinstance(value, float) else value
            assert f"{path.rpartition('.')[2]}={shown_value}" in words, path
    assert "block_channels=192,256,320" in words
    assert text[-1] == "The same in all trials: fixed=0.5, params=1.23k."


def test_a_narrow_space_has_a_column_for_each_hyperparameter(monkeypatch):
    trials = [trial(n, {"optim.lr": 0.1 / (n + 1), "model.conv_dropout": 0.5 * n, "trainer.weight": 1}) for n in (0, 1)]
    assert shown(monkeypatch, leaderboard(trials, "val_acc"), 80) == [
        "trial state    val_acc epoch   lr conv_dropout",
        "    0 complete  0.1235   1/1  0.1            0",
        "    1 complete  0.1235   1/1 0.05          0.5",
        "The same in all trials: weight=1, params=1.23k.",
    ]
    assert shown(monkeypatch, leaderboard(trials, "val_acc"), 42)[:3] == [
        "                                     conv_",
        "trial state    val_acc epoch   lr  dropout",
        "    0 complete  0.1235   1/1  0.1        0",
    ]


def test_one_trial_keeps_its_columns(monkeypatch):
    text = shown(monkeypatch, leaderboard([trial(0, {"optim.lr": 0.1})], "val_acc"), 80)
    assert text[0].split() == ["trial", "state", "val_acc", "epoch", "params", "lr"]


def test_names_are_the_shortest_endings_that_are_unique():
    paths = ["model.lr", "optim.lr", "optim.momentum", "optim", "a.b.c", "z.b.c", "model.state"]
    assert short_names(paths, taken=["state"]) == {
        "model.lr": "model.lr", "optim.lr": "optim.lr", "optim.momentum": "momentum", "optim": "optim",
        "a.b.c": "a.b.c", "z.b.c": "z.b.c", "model.state": "model.state",
    }  # fmt: skip


@pytest.mark.parametrize("width", [30, *WIDTHS])
def test_other_tables_fit_and_keep_every_word(monkeypatch, width):
    names = ["anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt"]
    rows = [
        {"name": f"{'long_' * n}name", "created": "2026-11-27 17:38:15", "num_trials": 8, "counts": {"RUNNING": 2},
         "best": 0.5, "unshipped": 3, "runs": n == 1}
        for n in (1, 4)
    ]  # fmt: skip
    parts = [
        Confusion(names, [[123456] * 8] * 8),
        sweeps_table([*rows, {"name": "broken", "error": "sweep.json is damaged (it is not a JSON object)"}]),
        Grid(["class", "train"], [["a", "1"], ["all", "12,345"]], ["class"], bold=True),
    ]
    for part in parts:
        text = shown(monkeypatch, part, width)
        assert width < 80 or max(map(len, text)) <= width
    words = set(" ".join(shown(monkeypatch, parts[1], width)).replace("states=", " ").split())
    assert words >= {"long_long_long_long_name", "running", "interrupted", "damaged", "broken"}
    matrix = " ".join(shown(monkeypatch, parts[0], width))
    assert matrix.count("123,456") == 64
    assert all(name in matrix for name in names)


def test_a_long_value_is_not_broken(monkeypatch):
    path = "/a/very/long/path/" + "x" * 90
    text = shown(monkeypatch, KeyValues({"output": path, "free": "77 GB", "empty": ""}), 60)
    assert text == ["output", f"    {path}", "free    77 GB", "empty"]


@pytest.mark.parametrize(("columns", "width"), [("64", 64), ("0", 120), ("wide", 120), ("", 120)])
def test_columns_is_respected_without_a_terminal(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert screen.make_console().width == width


def test_after_an_interruption_a_trial_is_interrupted(monkeypatch):
    trials = [trial(0, {}, TrialState.RUNNING)]
    assert "running" in shown(monkeypatch, leaderboard(trials, "val_acc"), 80)[1]
    assert "interrupted" in shown(monkeypatch, leaderboard(trials, "val_acc", is_running=False), 80)[1]


@pytest.mark.parametrize(
    ("started", "on_path", "program"),
    [
        (".venv/bin/ferhpo", None, ".venv/bin/ferhpo"),
        ("/opt/my tools/ferhpo", None, "'/opt/my tools/ferhpo'"),
        (".venv/bin/ferhpo", "/usr/bin/ferhpo", "ferhpo"),
        ("/usr/lib/python3/ferhpo/__main__.py", None, "ferhpo"),
    ],
)
def test_commands_are_printed_as_they_can_be_typed(monkeypatch, started, on_path, program):
    monkeypatch.setattr(sys, "argv", [started])
    monkeypatch.setattr("shutil.which", lambda name: on_path)
    text = "Run `ferhpo ui`, or with: ferhpo sweep --resume demo; ferhpo records it in /srv/ferhpo ui and my-ferhpo ui"
    expected = f"Run `{program} ui`, or with: {program} sweep --resume demo; ferhpo records it"
    assert screen.typed(text) == f"{expected} in /srv/ferhpo ui and my-ferhpo ui"


def test_every_verb_is_known_as_a_command():
    from tests.test_cli import VERBS

    assert set(screen.VERBS) == set(VERBS)


def test_a_link_is_a_hyperlink_on_a_terminal_only():
    for terminal in (True, False):
        file = io.StringIO()
        Console(file=file, force_terminal=terminal, width=200).print(screen.link("http://127.0.0.1:5000/#/x?a=1"))
        assert ("\x1b]8;" in file.getvalue()) == terminal
        assert "http://127.0.0.1:5000/#/x?a=1" in file.getvalue()


def test_the_link_has_the_port_of_a_ui_that_runs(monkeypatch, tmp_path):
    from ferhpo.tracking import TrackingSettings

    settings = TrackingSettings(output_dir=tmp_path)
    words = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", settings.store_uri, "--port", "5017"]
    processes = [SimpleNamespace(info={"cmdline": None}), SimpleNamespace(info={"cmdline": ["other", "server"]})]
    monkeypatch.setattr("psutil.process_iter", lambda keys: processes)
    monkeypatch.setattr(sys, "argv", ["ferhpo"])
    view = "{server}/#/experiments/1"
    assert str(screen.view_text(view, settings)) == (
        f"http://127.0.0.1:5000/#/experiments/1 (first run: ferhpo ui --output-dir {tmp_path})"
    )
    processes.append(SimpleNamespace(info={"cmdline": words}))
    assert str(screen.view_text(view, settings)) == "http://127.0.0.1:5017/#/experiments/1"
    assert str(screen.view_text("http://h:1/#/x", TrackingSettings(tmp_path, "http://h:1"))) == "http://h:1/#/x"


def ledger(trials, running, run_id=None):
    """As much of a ledger as the screen reads."""
    best = next((t for t in trials if t.state == TrialState.COMPLETE), None)
    study = SimpleNamespace(
        trials=lambda: trials, best=lambda: best, objective=SimpleNamespace(metric="val_acc", mode="max")
    )
    tracker = SimpleNamespace(
        last_error=None, unshipped=0, run_id=lambda number: run_id, experiment_id="7", sweep_id="s"
    )
    tracking = SimpleNamespace(off=False, shown_uri="http://h:1", sqlite_path=None, output_dir=None)
    return SimpleNamespace(
        study=study, running=running, num_reports=6, unit="epoch", num_trials=8, num_ended_before=0,
        started_seconds=time.monotonic() - 50, tracker=tracker, sweep=SimpleNamespace(tracking=tracking),
    )  # fmt: skip


def test_steps_link_ends_and_the_state_each_minute_without_a_terminal(monkeypatch):
    monkeypatch.setattr("ferhpo.cli.screen.progress.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("ferhpo.cli.screen.progress.LINE_SECONDS", 0.2)
    file = io.StringIO()
    with Progress(Console(file=file, width=40, markup=False), "demo: checking the configuration") as progress:
        assert file.getvalue() == "demo: checking the configuration\n"
        logging.getLogger(STEPS).info("reading the data set")
        logging.getLogger(STEPS).warning("a warning [with brackets]")
        progress(ledger([], {}))
        trials = [trial(0, {"optim.lr": 0.1}, TrialState.RUNNING), trial(1, {"optim.lr": 0.2}, TrialState.RUNNING)]
        progress(ledger(trials, {0: 1, 1: 2}))
        trials[0] = trial(0, {"optim.lr": 0.1})
        progress(ledger(trials, {1: 2}, run_id="r"))
        time.sleep(0.5)
    lines = file.getvalue().splitlines()
    assert lines[:4] == [
        "demo: checking the configuration",
        "reading the data set",
        "warning: a warning [with brackets]",
        "trial    0 complete   val_acc 0.1235 at epoch 1 of 1  best so far",
    ]
    address = "http://h:1/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=s"
    assert lines[4] == f"MLflow: {address}"
    state = "1 of 8 trials done · 1 running (epoch 2 of 6) · 0 pruned · best val_acc 0.1235 (trial 0) · 1.2 trials/min"
    assert set(lines[5:]) == {state}
    assert progress.warned == ["a warning [with brackets]"]
    assert logging.getLogger(STEPS).handlers == []


def test_the_time_left_counts_what_the_running_trials_have_done():
    """Of 8 trials one has ended after 60 s and two run, 3 and 0 epochs of 6 in: 5 + 0.5 + 1 trials, two at a time."""
    ended = dataclasses.replace(trial(0, {"optim.lr": 0.1}), seconds=60.0)
    found = running_module._rate(ledger([ended], {1: 3, 2: 0}), [ended])
    assert found[1] == f"about {duration(6.5 * 60.0 / 2)} left"


def test_a_terminal_shows_the_running_trials():
    file = io.StringIO()
    console = Console(file=file, width=100, height=30, force_terminal=True)
    progress = Progress(console, "demo: checking the configuration")
    console.print(progress._display())
    trials = [trial(0, {"optim.lr": 0.1}), trial(1, {"optim.lr": 0.2, "model.width": 8}, TrialState.RUNNING, 0.5)]
    progress(ledger(trials, {1: 1}))
    console.print(progress._display())
    plain = Console(file=io.StringIO(), width=100, height=30)
    plain.print(progress._display())
    lines = [line.rstrip() for line in plain.file.getvalue().splitlines()]
    assert lines[0] == "trial  epoch  val_acc    best  time  sampled"
    assert lines[1] == "    1    2/6   0.5000  0.5000   0 s  lr=0.2 width=8"
    assert lines[2].startswith("1 of 8 trials done · 1 running")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_live_table_has_one_line_a_trial(width):
    sample = " ".join(f"some_name_{i}=0.123" for i in range(12))
    running = [RunningTrial(n, 1, 20, 0.5, 0.5, sample, time.monotonic()) for n in range(50)]
    console = Console(file=io.StringIO(), width=width, height=24)
    console.print(RunningTable(running, "epoch", "val_acc"))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 1 + 18 + 1
    assert max(len(line.rstrip()) for line in lines) <= width
    assert lines[-1].strip() == "and 32 more running trials"


def test_a_sample_is_shortened_at_whole_items():
    assert shortened("lr=0.1 width=8 depth=3", 100) == "lr=0.1 width=8 depth=3"
    assert shortened("lr=0.1 width=8 depth=3", 18) == "lr=0.1 width=8 ..."
    assert shortened("lr=0.1 width=8", 5) == ""


def test_the_ui_prints_links_to_the_sweeps_and_none_of_mlflows_chatter(tmp_path, capfd, monkeypatch):
    from ferhpo.cli.servers import _pass_on, _print_links
    from tests.reports.made_sweeps import made_sweep

    for name in ("first", "second"):
        sweep = made_sweep(tmp_path, ["COMPLETE"], name=name)
        position = {
            "store": sweep.tracking.shown_uri, "experiment": "ferhpo", "experiment_id": "1", "sweep_id": f"id-{name}",
        }  # fmt: skip
        (sweep.folder / "spool.shipped.json").write_text(json.dumps(position))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sweep.json").write_text("{")
    monkeypatch.setenv("COLUMNS", "200")
    _print_links(tmp_path, "http://127.0.0.1:5001")
    _pass_on(
        io.BytesIO(
            b"Registry store URI not provided. Using backend store URI.\n[MLflow] Security middleware enabled with defaults\n"
            b"INFO:     Uvicorn running\n2026/11/27 WARNING mlflow: old\n/x.py:1: UserWarning: y\nTraceback (most recent call)\n"
        )
    )
    out, err = capfd.readouterr()
    view = "http://127.0.0.1:5001/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=id-"
    *lines, hint = out.splitlines()
    assert hint == "On other pages, choose Model training at the top left."
    assert sorted(lines) == [f"  first   {view}first", f"  second  {view}second"]
    assert err == "Traceback (most recent call)\n"


@pytest.mark.parametrize(
    ("settings", "present", "found", "words"),
    [
        ({}, 0, 0, ""),
        ({"num_gpus": 0}, 2, 0, ""),
        ({"num_gpus": 2}, 2, 2, ""),
        ({"num_gpus": 2}, 0, 0, "compute.num_gpus is 2, but torch finds 0 GPUs on this machine; trials that"),
        ({"num_gpus": 2}, 0, 1, "compute.num_gpus is 2, but torch finds 1 GPU on"),
        ({"gpus_per_trial": 0.5}, 0, 0, "compute.gpus_per_trial is 0.5, but torch finds 0 GPUs"),
        ({"address": "h:1", "gpus_per_trial": 1}, 0, 0, ""),
        ({}, 1, 0, "torch finds 0 GPUs on this machine (the machine has 1; torch is built "),
    ],
)
def test_gpus_that_are_not_there_are_said_before_a_sweep(monkeypatch, tmp_path, settings, present, found, words):
    from ferhpo.config.settings import ComputeSettings, gpu_faults

    for number in range(present):
        (tmp_path / str(number)).mkdir()
    monkeypatch.setattr("ferhpo.config.settings._GPU_FOLDER", tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: found)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    warnings = gpu_faults(ComputeSettings(**settings))
    assert len(warnings) == bool(words)
    assert not words or warnings[0].startswith(words)


@pytest.mark.parametrize(("visible", "num_faults"), [("", 0), ("-1", 0), ("3", 0), ("0,1", 1)])
def test_hidden_gpus_are_not_missing(monkeypatch, tmp_path, visible, num_faults):
    """A batch system gives a job one of eight GPUs."""
    from ferhpo.config.settings import ComputeSettings, gpu_faults

    for number in range(8):
        (tmp_path / str(number)).mkdir()
    monkeypatch.setattr("ferhpo.config.settings._GPU_FOLDER", tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1 if visible in ("3", "0,1") else 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert len(gpu_faults(ComputeSettings())) == num_faults


def test_a_sweep_does_not_start_without_its_gpus(capsys, monkeypatch, tmp_path):
    from ferhpo import cli

    monkeypatch.delenv("FERHPO_PRETEND_GPU", raising=False)
    assert cli.main(["sweep", "demo", "compute.num_gpus=64", f"output_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith("compute: compute.num_gpus is 64, but torch finds ")
    assert not list(tmp_path.iterdir())


def test_check_says_it(capsys):
    from ferhpo import cli

    assert cli.main(["check", "demo", "compute.num_gpus=64"]) == 0
    assert "warning: compute.num_gpus is 64, but torch finds" in capsys.readouterr().out


FIRST = """
import os, sys, time
from ferhpo.cli.screen.progress import Progress

def first(self, text):
    print(text, sorted({'torch', 'ray', 'mlflow', 'optuna', 'hydra'} & set(sys.modules)), time.process_time() < 1)
    sys.stdout.flush()
    os._exit(0)

Progress._show_step = first
from ferhpo.cli import main
main(['sweep', 'demo'])
"""


def test_the_first_line_comes_within_a_second_and_before_any_heavy_import():
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=60)
    assert done.stdout == "demo: checking the configuration [] True\n"
