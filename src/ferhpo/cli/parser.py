"""Define the verbs, their arguments and their help texts."""

import argparse
from typing import Any

from ferhpo import __version__
from ferhpo.cli import commands
from ferhpo.cli.arguments import add_json, add_name, add_output_dir, add_overrides, add_sweep, add_verb, path


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, with one subparser per verb."""
    parser = argparse.ArgumentParser(
        prog="ferhpo",
        description="Hyperparameter sweeps with experiment tracking for facial emotion recognition.",
        epilog="Run `ferhpo VERB --help` for the options of a verb. To get started, run `ferhpo sweep demo`.",
    )
    parser.add_argument(
        "--version", action="version", version=f"ferhpo {__version__}", help="show the version and exit"
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    _add_running(verbs)
    _add_planning(verbs)
    _add_own_code(verbs)
    _add_results(verbs)
    _add_models(verbs)
    _add_system(verbs)
    return parser


def _add_running(verbs: Any) -> None:
    sweep = add_verb(
        verbs,
        "sweep",
        commands.sweep,
        "Run a hyperparameter sweep.",
        "sweep demo",
        "sweep vulpe2021 data.path=fer2013.csv num_trials=20 trainer.max_epochs=3",
        "sweep --resume demo num_trials=16",
    )
    train = add_verb(
        verbs,
        "train",
        commands.train,
        "Train one network with a fixed configuration.",
        "train demo trainer.max_epochs=3",
        "train vulpe2021_winner data.path=fer2013.csv",
    )
    for sub in (sweep, train):
        add_name(sub)
        sub.add_argument(
            "--resume",
            action="store_true",
            help="resume NAME; only num_trials, keep_checkpoints, budget, compute and tracking can be overridden",
        )
        sub.add_argument("--new", action="store_true", help="if NAME exists already, use the next free name (NAME-2)")


def _add_planning(verbs: Any) -> None:
    sub = add_verb(
        verbs,
        "plan",
        commands.plan,
        "Estimate what a sweep or a training costs, without running it.",
        "plan demo",
        "plan vulpe2021 data.path=fer2013.csv",
        "plan demo space=null",
    )
    add_name(sub)
    sub.add_argument(
        "--untimed", action="store_true", help="train no network to measure the time; estimate it from MACs alone"
    )
    sub = add_verb(
        verbs,
        "check",
        commands.check,
        "Check a configuration and report all faults at once.",
        "check demo optim.lr=0.01",
    )
    add_name(sub)
    sub = add_verb(
        verbs,
        "show",
        commands.show,
        "Show a composed configuration and the origin of each value.",
        "show demo model=resnet",
    )
    add_name(sub)
    sub = add_verb(
        verbs,
        "list",
        commands.list_options,
        "List the sweeps and the options of each config group.",
        "list",
        "list sweeps",
        "list models",
    )
    sub.add_argument(
        "what",
        nargs="?",
        metavar="GROUP",
        help="sweeps, or a config group, e.g. data, model, optim, sampler, scheduler (default: all)",
    )
    add_json(sub)
    sub = add_verb(
        verbs,
        "data",
        commands.data,
        "Describe and verify a data set.",
        "data synthetic",
        "data fer2013 path=fer2013.csv",
    )
    sub.add_argument("name", metavar="DATA", help="name of a data set (see `ferhpo list data`)")
    add_overrides(sub, "settings of the data set, e.g. path=fer2013.csv")
    add_json(sub)


def _add_own_code(verbs: Any) -> None:
    sub = add_verb(
        verbs,
        "new",
        _new,
        "Write a starting point for own code: a Python file and a YAML file.",
        "new model my_network",
        "new data my_faces",
        "new metric brier",
    )
    sub.add_argument("kind", metavar="KIND", help="model, data, augment, loss, metric, ... (see below)")
    sub.add_argument("name", metavar="NAME", help="name of the new file and of the option, e.g. my_network")


def _new(args: argparse.Namespace) -> None:
    from ferhpo.cli.new import new

    new(args)


def _add_results(verbs: Any) -> None:
    sub = add_verb(
        verbs,
        "runs",
        commands.runs,
        "Show the leaderboard of a sweep, or all sweeps.",
        "runs",
        "runs demo",
        "runs demo --json",
    )
    sub.add_argument(
        "name", nargs="?", metavar="SWEEP", help="name of a sweep, or path of its folder (default: list all sweeps)"
    )
    add_output_dir(sub)
    sub.add_argument("--rows", type=int, default=20, metavar="N", help="maximum number of trials to show (default: 20)")
    add_json(sub)
    sub = add_verb(
        verbs,
        "report",
        commands.report,
        "Write an HTML report of a sweep or a trial.",
        "report demo",
        "report demo --trial 3",
        "report demo --out demo.html",
        "report demo --panel my_panel",
    )
    add_sweep(sub)
    sub.add_argument("--trial", type=int, metavar="N", help="report on trial N instead of the sweep")
    sub.add_argument(
        "--out", type=path, metavar="FILE", help="file to write (default: report/index.html in the sweep's folder)"
    )
    sub.add_argument(
        "--panel",
        action="append",
        default=[],
        metavar="MODULE",
        help="Python module of yours with a function panel, shown on the page; may be repeated",
    )
    sub = add_verb(verbs, "ui", commands.ui, "Serve the MLflow UI.", "ui", "ui --port 5001")
    add_output_dir(sub)
    sub.add_argument("--port", type=int, default=5000, help="port to listen on (default: 5000)")
    sub.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1); with any other address, the UI is accessible to other "
        "machines, without a password",
    )
    sub = add_verb(
        verbs,
        "sync",
        commands.sync,
        "Upload records that are not in MLflow yet.",
        "sync demo",
        "sync demo tracking.uri=http://user:password@host:5000",
    )
    add_sweep(sub)
    add_overrides(sub, "tracking.uri=..., e.g. to give the password, which ferhpo never stores")


def _add_models(verbs: Any) -> None:
    sub = add_verb(
        verbs,
        "evaluate",
        commands.evaluate,
        "Evaluate a trial or a registered model.",
        "evaluate demo",
        "evaluate demo/7 --ten-crop",
        "evaluate models:/ferhpo-demo@champion data=fer2013 data.path=fer2013.csv",
        "evaluate demo --split test",
    )
    sub.add_argument(
        "model",
        metavar="MODEL",
        help="SWEEP (its best trial), SWEEP/N (trial N), models:/NAME@ALIAS or models:/NAME/VERSION",
    )
    add_overrides(sub, "settings of the data set, or another data set, e.g. data=fer2013 data.path=fer2013.csv")
    sub.add_argument("--split", default="val", choices=("val", "test"), help="split to evaluate (default: val)")
    sub.add_argument("--ten-crop", action="store_true", help="also average the predictions over ten crops per image")
    add_output_dir(sub)
    add_json(sub)
    sub = add_verb(
        verbs,
        "confirm",
        commands.confirm,
        "Retrain the best trials of a sweep with fresh seeds.",
        "confirm demo --top 5 --seeds 3",
        "confirm demo trainer.max_epochs=60 data.train_subset=null",
        "confirm demo --resume",
    )
    add_sweep(sub)
    add_overrides(sub, "settings of the retraining, of compute and of tracking, e.g. trainer.max_epochs=60")
    sub.add_argument("--top", type=int, metavar="N", help="number of complete trials to retrain (default: 5)")
    sub.add_argument("--seeds", type=int, metavar="N", help="number of fresh seeds per trial (default: 3)")
    sub.add_argument("--resume", action="store_true", help="resume an existing confirmation; never start one")
    sub.add_argument(
        "--new", action="store_true", help="start another confirmation (SWEEP-confirm-2) even if one exists"
    )
    add_json(sub)
    sub = add_verb(
        verbs,
        "promote",
        commands.promote,
        "Set an alias of a sweep's registered model.",
        "promote demo",
        "promote demo --alias staging",
    )
    add_sweep(sub)
    sub.add_argument("--alias", default="champion", help="alias to set (default: champion)")
    sub.add_argument("--version", type=int, metavar="N", help="version of the registered model (default: the newest)")
    add_json(sub)


def _add_system(verbs: Any) -> None:
    sub = add_verb(
        verbs,
        "doctor",
        commands.doctor,
        "Show versions, devices, the MLflow store, and free disk space.",
        "doctor",
    )
    add_output_dir(sub)
    add_json(sub)
