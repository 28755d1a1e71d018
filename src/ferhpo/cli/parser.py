"""Define the verbs, their arguments and their help texts."""

import argparse
from typing import Any

from ferhpo import __version__
from ferhpo.cli.arguments import (
    add_json,
    add_name,
    add_notify,
    add_output_dir,
    add_overrides,
    add_verb,
)
from ferhpo.cli.help import VerbsFormatter
from ferhpo.cli.parser_results import add_keys, add_models, add_results
from ferhpo.cli.verbs import planning, running, system


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, with one subparser per verb."""
    parser = argparse.ArgumentParser(
        prog="ferhpo",
        formatter_class=VerbsFormatter,
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
    add_results(verbs)
    add_models(verbs)
    add_keys(verbs)
    _add_system(verbs)
    return parser


def _add_running(verbs: Any) -> None:
    sweep = add_verb(
        verbs,
        "sweep",
        running.sweep,
        "Run a hyperparameter sweep.",
        "sweep demo",
        "sweep vulpe2021 data.path=fer2013.csv num_trials=20 trainer.max_epochs=3",
        "sweep --resume demo num_trials=16",
    )
    train = add_verb(
        verbs,
        "train",
        running.train,
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
        add_notify(sub)


def _add_planning(verbs: Any) -> None:
    sub = add_verb(
        verbs,
        "plan",
        planning.plan,
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
        planning.check,
        "Check a configuration and report all faults at once.",
        "check demo optim.lr=0.01",
    )
    add_name(sub)
    sub = add_verb(
        verbs,
        "show",
        planning.show,
        "Show a composed configuration and the origin of each value.",
        "show demo model=resnet",
    )
    add_name(sub)
    sub = add_verb(
        verbs,
        "list",
        planning.list_options,
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
        planning.data,
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


def _add_system(verbs: Any) -> None:
    sub = add_verb(
        verbs,
        "doctor",
        system.doctor,
        "Show versions, devices, the MLflow store, and free disk space.",
        "doctor",
    )
    add_output_dir(sub)
    add_json(sub)
