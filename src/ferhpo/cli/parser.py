"""Define the verbs, their arguments and their help texts."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ferhpo import __version__
from ferhpo.cli import commands

EXIT_CODES = "exit status: 0 done, 2 a mistake in the configuration, data or names, 3 a trial failed, 130 stopped"


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ferhpo",
        description="Hyperparameter sweeps with experiment tracking for facial emotion recognition.",
        epilog="ferhpo VERB --help tells more. Start with: ferhpo sweep demo",
    )
    parser.add_argument("--version", action="version", version=f"ferhpo {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int | None], text: str, *examples: str) -> Any:
        lines = "\n".join(f"  ferhpo {example}" for example in examples)
        sub = verbs.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"examples:\n{lines}\n\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        sub.add_argument("--config-dir", type=Path, help="a folder of your own configurations, searched first")
        return sub

    def named(sub: Any, what: str = "a sweep or training; see ferhpo list") -> None:
        sub.add_argument("name", metavar="NAME", help=what)
        sub.add_argument(
            "overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides, as optim.lr=0.01 model=resnet"
        )

    def json_too(sub: Any) -> None:
        sub.add_argument("--json", action="store_true", help="print the answer as JSON")

    def of_sweep(sub: Any) -> None:
        sub.add_argument("name", metavar="SWEEP", help="a sweep's name, or its folder")
        sub.add_argument("--output-dir", default="mlruns", help="where sweeps are kept (default: mlruns)")

    for name, run, text, examples in (
        (
            "sweep",
            commands.sweep,
            "Run a sweep: sample, train, prune, record, register the best.",
            (
                "sweep demo",
                "sweep vulpe2021 data.path=fer2013.csv num_trials=20 trainer.max_epochs=3",
                "sweep --resume demo num_trials=16",
            ),
        ),
        (
            "train",
            commands.train,
            "Train one network with a configuration as it stands, without Ray.",
            ("train demo trainer.max_epochs=3", "train vulpe2021 data.path=fer2013.csv"),
        ),
    ):
        sub = verb(name, run, text, *examples)
        named(sub)
        sub.add_argument("--resume", action="store_true", help="go on with the sweep called NAME")
        sub.add_argument("--new", action="store_true", help="where the name is taken, use the next free one (NAME-2)")
        json_too(sub)

    sub = verb(
        "plan",
        commands.plan,
        "Show what a sweep would do and cost.",
        "plan demo",
        "plan vulpe2021 data.path=fer2013.csv",
    )
    named(sub)
    json_too(sub)
    sub = verb("check", commands.check, "Check a configuration: every fault at once.", "check demo optim.lr=0.01")
    named(sub)
    json_too(sub)
    sub = verb(
        "show", commands.show, "Show what a name composes to, and where each value came from.", "show demo model=resnet"
    )
    named(sub)
    json_too(sub)
    sub = verb(
        "list",
        commands.list_options,
        "List sweeps, and the options of each group.",
        "list",
        "list sweeps",
        "list model",
    )
    sub.add_argument("what", nargs="?", metavar="WHAT", help="sweeps, or a group: data, model, optim, sampler, ...")
    json_too(sub)
    sub = verb("runs", commands.runs, "Show the leaderboard of a sweep.", "runs", "runs demo", "runs demo --json")
    sub.add_argument("name", nargs="?", metavar="SWEEP", help="a sweep's name or folder; without it, all sweeps")
    sub.add_argument("--output-dir", default="mlruns", help="where sweeps are kept (default: mlruns)")
    sub.add_argument("--rows", type=int, default=20, help="how many trials (default: 20)")
    json_too(sub)
    sub = verb("ui", commands.ui, "Serve the MLflow UI on 127.0.0.1.", "ui", "ui --port 5001")
    sub.add_argument("--output-dir", default="mlruns", help="where sweeps are kept (default: mlruns)")
    sub.add_argument("--port", type=int, default=5000, help="default: 5000")
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on; anything else can be reached by others")
    sub = verb(
        "evaluate",
        commands.evaluate,
        "Score a trial or a registered model, with and without images that stand in training.",
        "evaluate demo",
        "evaluate demo/7 --ten-crop",
        "evaluate models:/ferhpo-demo@champion data=fer2013 data.path=fer2013.csv",
        "evaluate demo --split test",
    )
    sub.add_argument(
        "model",
        metavar="MODEL",
        help="a sweep (its best trial), SWEEP/7 (trial 7), models:/NAME@ALIAS or models:/NAME/VERSION",
    )
    sub.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="another data set, as data=fer2013 data.path=fer2013.csv"
    )
    sub.add_argument(
        "--split", default="val", choices=("val", "test"), help="default: val; a reading of test is recorded"
    )
    sub.add_argument("--ten-crop", action="store_true", help="also the mean of ten views of each image")
    sub.add_argument("--output-dir", default="mlruns", help="where sweeps are kept (default: mlruns)")
    json_too(sub)
    sub = verb(
        "confirm",
        commands.confirm,
        "Train a sweep's best trials again on fresh seeds, choose by the mean, read the test images once.",
        "confirm demo --top 5 --seeds 3",
        "confirm demo trainer.max_epochs=60 data.train_subset=null",
        "confirm demo --resume",
    )
    of_sweep(sub)
    sub.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="settings of the retraining, of compute and of tracking"
    )
    sub.add_argument("--top", type=int, help="how many of the best complete trials (default: 5)")
    sub.add_argument("--seeds", type=int, help="how many fresh seeds each (default: 3)")
    sub.add_argument("--resume", action="store_true", help="go on with the confirmation, and never start one")
    sub.add_argument("--new", action="store_true", help="start another one (SWEEP-confirm-2) where there is one")
    json_too(sub)
    sub = verb(
        "promote",
        commands.promote,
        "Point an alias at a sweep's registered model.",
        "promote demo",
        "promote demo --alias staging",
    )
    of_sweep(sub)
    sub.add_argument("--alias", default="champion", help="default: champion")
    sub.add_argument("--version", type=int, help="default: the newest")
    json_too(sub)
    sub = verb(
        "report",
        commands.report,
        "Write a sweep's figures and tables as one HTML page that needs no network.",
        "report demo",
        "report demo --trial 3",
        "report demo --out demo.html",
    )
    of_sweep(sub)
    sub.add_argument("--trial", type=int, metavar="N", help="the page of this trial instead")
    sub.add_argument("--out", type=Path, metavar="FILE", help="default: report/index.html in the sweep's folder")
    sub = verb(
        "sync",
        commands.sync,
        "Ship to MLflow what a sweep could not, and register its best model.",
        "sync demo",
        "sync demo tracking.uri=http://user:password@host:5000",
    )
    of_sweep(sub)
    sub.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="tracking.uri=..., with its password, which is kept nowhere"
    )
    sub = verb(
        "data",
        commands.data,
        "Describe and verify a data set: counts, duplicates, conflicts, blanks, overlap.",
        "data synthetic",
        "data fer2013 path=fer2013.csv",
    )
    sub.add_argument("name", metavar="DATA", help="an option of the group data; see ferhpo list data")
    sub.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the data set, as path=fer2013.csv")
    json_too(sub)
    sub = verb("doctor", commands.doctor, "Show versions, devices, store and disk.", "doctor")
    sub.add_argument("--output-dir", default="mlruns", help="where sweeps are kept (default: mlruns)")
    json_too(sub)
    return parser
