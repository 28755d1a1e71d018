"""The command line: help of every verb, JSON, exit status, one message for a user's mistake, colour on a terminal only."""

import argparse
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import ferhpo
from ferhpo import cli
from ferhpo.cli.parser import make_parser
from ferhpo.cli.screen.leaderboard import leaderboard
from ferhpo.states import TrialState
from tests.conftest import TINY

ROOT = Path(__file__).parents[1]
FERHPO = Path(sys.executable).with_name("ferhpo")


def subparsers():
    actions = make_parser()._actions
    return next(action for action in actions if isinstance(action, argparse._SubParsersAction)).choices


VERBS = tuple(subparsers())


def examples(verb):
    text = subparsers()[verb].format_help()
    return re.findall(r"^  (ferhpo .*)$", text.partition("examples:")[2], re.MULTILINE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder that holds one small training, called once."""
    folder = tmp_path_factory.mktemp("cli") / "mlruns"
    ferhpo.train("demo", [*TINY, f"output_dir={folder}", "tracking=none", "name=once", "trainer.max_epochs=1"])
    return folder


def answer(capsys, *arguments):
    """What a verb prints under --json: nothing but JSON."""
    assert cli.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_verbs_are_those_of_the_design():
    assert set(VERBS) >= {"sweep", "plan", "check", "train", "show", "list", "runs", "ui", "promote", "data", "doctor"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples_and_exit_codes(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert re.search(r"exit status: 0 \w+.* 2 .* 3 .* 130 ", text)
    assert examples(verb)
    for action in subparsers()[verb]._actions:
        assert action.help, f"{verb}: {action.option_strings or action.dest} has no help"
    assert re.search(rf"^    {verb} +\S", make_parser().format_help(), re.MULTILINE), "the first page tells of it"


@pytest.mark.parametrize("verb", VERBS)
def test_every_example_is_understood(verb):
    for example in examples(verb):
        _, *arguments = shlex.split(example)
        assert arguments[0] == verb
        args = make_parser().parse_args(arguments)
        if verb in ("sweep", "train", "plan", "check", "show") and not getattr(args, "resume", False):
            ferhpo.compose(args.name, args.overrides)


@pytest.mark.parametrize("verb", VERBS)
def test_the_readme_tells_of_every_verb(verb):
    assert f"ferhpo {verb}" in (ROOT / "README.md").read_text()


def test_without_a_verb_the_help_is_shown(capsys):
    assert cli.main([]) == 0
    assert capsys.readouterr().out.startswith("usage: ferhpo")


def test_an_unknown_verb_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["swep", "demo"])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert "'swep'" in message
    assert all(verb in message for verb in VERBS)


def test_json_of_check(capsys):
    assert answer(capsys, "check", "demo") == {"faults": [], "warnings": []}


def test_json_of_list(capsys):
    lists = answer(capsys, "list")
    assert set(lists) >= {"sweeps", "data", "model", "sampler", "scheduler"}
    assert "demo" in lists["sweeps"]
    assert set(lists["sampler"]) >= {"random", "tpe", "cmaes", "grid"}
    assert answer(capsys, "list", "models") == {"model": lists["model"]}


WORDS = {
    "optim": ["optim", "optims", "optimizer", "optimizers", "optimiser", "optimisers", "Optimizers"],
    "lr_schedule": ["lr_schedule", "lr_schedules", "lr-schedule", "schedule", "schedules"],
    "sweeps": ["sweep", "sweeps", "training", "trainings"],
    "augment": ["augment", "augmentation", "augmentations"],
    "data": ["data", "dataset", "datasets", "data-sets"],
    "model": ["model", "models", "network", "networks"],
    "sampler": ["sampler", "samplers"],
    "scheduler": ["scheduler", "schedulers"],
    "compute": ["compute"],
}


@pytest.mark.parametrize("group", WORDS)
def test_list_accepts_singulars_plurals_and_both_spellings(group, capsys):
    lists = [answer(capsys, "list", word) for word in WORDS[group]]
    assert lists == [{group: lists[0][group]}] * len(lists)


def test_json_of_show_says_where_each_value_came_from(capsys):
    shown = answer(capsys, "show", "demo", "optim.lr=0.5")
    assert shown["config"]["optim"]["lr"] == 0.5
    assert shown["origins"]["optim.lr"] == "override"
    assert shown["groups"]["model"] == "cnn"


def test_json_of_plan(capsys, monkeypatch):
    monkeypatch.setattr("ferhpo.tuning.plan.NUM_SAMPLES", 10)
    plan = answer(capsys, "plan", "demo", "--untimed", "data.num_train=70", "data.num_val=14", "data.num_test=7")
    assert plan["num_trials"] == 8
    assert 0 < plan["parameters"]["low"] <= plan["parameters"]["median"] <= plan["parameters"]["high"]


def test_json_of_plan_of_a_training(capsys):
    plan = answer(
        capsys, "plan", "demo", "--untimed", "space=null", "data.num_train=70", "data.num_val=14", "data.num_test=7"
    )
    assert (plan["kind"], plan["num_trials"], plan["num_samples"], plan["num_train"]) == ("training", 1, 1, 70)
    assert 0 < plan["parameters"]["low"] == plan["parameters"]["median"] == plan["parameters"]["high"]
    assert min(plan["macs"]["high"], plan["memory_bytes"]["high"], plan["disk_bytes"], plan["seconds"]) > 0


def test_json_of_data(capsys):
    found = answer(capsys, "data", "synthetic", "num_train=70", "num_val=14", "num_test=7")
    assert found["num_images"] == 91
    assert sum(found["counts"]["train"].values()) == 70


def test_json_of_doctor(capsys, tmp_path):
    found = answer(capsys, "doctor", "--output-dir", tmp_path)
    assert set(found) >= {"versions", "devices", "store", "disk"}
    assert found["store"]["state"] == "does not exist yet; the first sweep creates it"
    assert found["versions"]["ferhpo"] == ferhpo.__version__


def test_json_of_runs(capsys, trained):
    (row,) = answer(capsys, "runs", "--output-dir", trained)
    assert (row["name"], row["counts"]) == ("once", {"COMPLETE": 1})
    (trial,) = answer(capsys, "runs", "once", "--output-dir", trained)
    assert (trial["number"], trial["state"], trial["best_epoch"]) == (0, "COMPLETE", 1)


def test_tables_for_people(capsys, trained):
    assert cli.main(["runs", "once", "--output-dir", str(trained)]) == 0
    heading, line = capsys.readouterr().out.splitlines()[:2]
    assert heading.split()[:3] == ["trial", "state", "val_acc"]
    assert line.split()[:2] == ["0", "complete"]
    for arguments in (["runs"], ["doctor"]):
        assert cli.main([*arguments, "--output-dir", str(trained)]) == 0
    assert "once" in capsys.readouterr().out
    for arguments in (["list", "sweeps"], ["show", "demo"], ["check", "demo"]):
        assert cli.main(arguments) == 0
        assert "demo" in capsys.readouterr().out


def test_the_leaderboard_has_a_column_without_duplicates_if_it_differs():
    def trial(number, value, dedup):
        return SimpleNamespace(
            number=number, value=value, clean_acc=dedup, dedup_acc=dedup, state=TrialState.COMPLETE, sample={}, folds=[],
            epochs=[{}], best_epoch=1, extra={}, std=lambda metric: None,
        )  # fmt: skip

    def headings(*trials, metric="val_acc"):
        return leaderboard(trials, metric).grid(120).headings

    assert headings(trial(0, 0.5, 0.25), trial(1, 0.4, 0.4))[2:4] == ["val_acc", "val_acc (dedup)"]
    assert "val_acc (dedup)" not in headings(trial(0, 0.5, 0.5), trial(1, 0.4, None))
    assert "val_acc (dedup)" not in headings(trial(0, 0.5, 0.25), metric="val_loss")


MISTAKES = [
    (["sweep", "dmo"], "sweep: unknown name 'dmo'; did you mean demo?"),
    (["train", "dmo"], "sweep: unknown name 'dmo'; did you mean demo?"),
    (["plan", "demo", "model=resent"], "demo: model is resent; did you mean resnet?"),
    (["check", "demo", "optim.lrr=1"], "demo: optim.lrr matches no key; did you mean optim.lr?"),
    (["show", "demo", "lr=1"], "demo: lr matches no key; choose from: allowed_targets, augment,"),
    (["list", "modle"], "list: unknown group 'modle'; did you mean model?"),
    (["list", "optimzers"], "list: unknown group 'optimzers'; did you mean optim?"),
    (
        ["list", "xyz"],
        "list: unknown group 'xyz'; choose from: augment, callbacks, compute, data, exports, loss, ",
    ),
    (["data", "fer2012"], "config: data is fer2012; did you mean fer2013?"),
    (["data", "fer2013"], "config: data.path is not set; add data.path=..."),
    (
        ["data", "fer2013", "path=nowhere.csv"],
        "data.path is nowhere.csv: there is no such file; no similar name in {folder}",
    ),
    (["runs", "nothing"], "there is no sweep nothing in {folder}/mlruns; there are none yet"),
    (["promote", "nothing"], "there is no sweep nothing in {folder}/mlruns; there are none yet"),
    (["sync", "nothing"], "there is no sweep nothing in {folder}/mlruns; there are none yet"),
    (["sweep", "--resume", "nothing"], "there is no sweep nothing in {folder}/mlruns; there are none yet"),
    (["check", "demo", "--config-dir", "nowhere"], "--config-dir is nowhere: the folder does not exist"),
    (["ui"], "there is no MLflow store at sqlite:///{folder}/mlruns/mlflow.db; run a sweep first, or set --output-dir"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_users_mistake_is_one_message_and_exit_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    running = arguments[0] in ("sweep", "train")
    assert out == (f"{arguments[-1]}: checking the configuration\n" if running else "")
    assert err.startswith(message.format(folder=tmp_path)), err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing behind"


def test_a_misspelled_sweep_of_runs_names_the_nearest(capsys, trained):
    assert cli.main(["runs", "onec", "--output-dir", str(trained)]) == 2
    assert capsys.readouterr().err == f"there is no sweep onec in {trained}; did you mean once?\n"


def test_a_mistake_under_json_is_json_too(capsys):
    assert cli.main(["check", "demo", "optim.lrr=1", "model=resent", "--json"]) == 2
    out, err = capsys.readouterr()
    faults = ["model is resent; did you mean resnet?", "optim.lrr matches no key; did you mean optim.lr?"]
    assert json.loads(out)["faults"] == faults
    assert err == "demo: 2 faults\n  " + "\n  ".join(faults) + "\n"


@pytest.mark.parametrize("command", [[FERHPO], [sys.executable, "-m", "ferhpo"]], ids=["ferhpo", "python -m"])
def test_a_mistake_ends_the_process_without_a_traceback(command, tmp_path):
    done = subprocess.run([*command, "check", "dmo"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "sweep: unknown name 'dmo'; did you mean demo?\n"


def in_terminal(*arguments):
    """What the program writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    for name in ("NO_COLOR", "FORCE_COLOR"):
        environment.pop(name, None)
    with subprocess.Popen([FERHPO, *arguments], stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux's end of file of a terminal
                break
            written += part
            if not part:
                break
    os.close(ours)
    assert process.returncode == 0
    return written.decode()


def test_colour_on_a_terminal_only():
    piped = subprocess.run([FERHPO, "list"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "\x1b" not in piped
    assert "\x1b[" in in_terminal("list")


@pytest.mark.parametrize("arguments", [["list"], ["show", "demo", "--json"]], ids=" ".join)
def test_a_reader_that_goes_away_is_no_error(arguments):
    """As in `ferhpo list | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([FERHPO, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert done.stderr == ""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_after_the_end_changes_nothing(sent):
    """What torch and others do at the end of their process takes a moment."""
    program = (
        "import atexit, sys, time; from ferhpo.cli import command\n"
        "atexit.register(lambda: (print('ending', flush=True), time.sleep(60)))\n"
        "sys.argv = ['ferhpo', 'list']; command()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.stdout.readline() != "ending\n":
            assert process.poll() is None
        process.send_signal(sent)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
