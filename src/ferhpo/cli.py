"""The command line: parse, call, print. Nothing else; the verbs are in verbs.py.

Exit status: 0 done, 1 an error of ours, 2 a mistake of the user's, 3 a sweep in which a trial failed, 130 stopped by a
person.
"""

import argparse
import atexit
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ferhpo import __version__
from ferhpo.errors import FerhpoError

if TYPE_CHECKING:
    from ferhpo.running import SweepResult

EXIT_CODES = "exit status: 0 done, 2 a mistake in the configuration, data or names, 3 a trial failed, 130 stopped"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = _parser()
    args, left = parser.parse_known_args(argv)
    # argparse ends a verb's overrides at its first option: `confirm demo --top 2 optim.lr=0.1` leaves one over.
    if any(text.startswith("-") for text in left) or (left and not hasattr(args, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        args.overrides = [*args.overrides, *left]
    if args.verb is None:
        parser.print_help()
        return 0
    try:
        return int(args.run(args) or 0)
    except FerhpoError as error:
        if getattr(args, "json", False):
            print(json.dumps({"error": str(error), "faults": getattr(error, "faults", [])}))
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, as `head`, has gone
        sys.stderr.close()
        return 0


def command() -> NoReturn:
    """The `ferhpo` command: `main` in a process of its own, which then ends at once.

    Python would first take apart, for seconds, all that torch, Ray and MLflow made; what they registered to be done at
    the end is done.
    """
    status = main()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its reader has gone
            stream.flush()
    os._exit(status)


def _parser() -> argparse.ArgumentParser:
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
            _sweep,
            "Run a sweep: sample, train, prune, record, register the best.",
            (
                "sweep demo",
                "sweep vulpe2021 data.path=fer2013.csv num_trials=20 trainer.max_epochs=3",
                "sweep --resume demo num_trials=16",
            ),
        ),
        (
            "train",
            _train,
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
        "plan", _plan, "Show what a sweep would do and cost.", "plan demo", "plan vulpe2021 data.path=fer2013.csv"
    )
    named(sub)
    json_too(sub)
    sub = verb("check", _check, "Check a configuration: every fault at once.", "check demo optim.lr=0.01")
    named(sub)
    json_too(sub)
    sub = verb("show", _show, "Show what a name composes to, and where each value came from.", "show demo model=resnet")
    named(sub)
    json_too(sub)
    sub = verb("list", _list, "List sweeps, and the options of each group.", "list", "list sweeps", "list model")
    sub.add_argument("what", nargs="?", metavar="WHAT", help="sweeps, or a group: data, model, optim, sampler, ...")
    json_too(sub)
    sub = verb("runs", _runs, "Show the leaderboard of a sweep.", "runs", "runs demo", "runs demo --json")
    sub.add_argument("name", nargs="?", metavar="SWEEP", help="a sweep's name or folder; without it, all sweeps")
    sub.add_argument("--output-dir", default="mlruns", help="where sweeps are kept (default: mlruns)")
    sub.add_argument("--rows", type=int, default=20, help="how many trials (default: 20)")
    json_too(sub)
    sub = verb("ui", _ui, "Serve the MLflow UI on 127.0.0.1.", "ui", "ui --port 5001")
    sub.add_argument("--output-dir", default="mlruns", help="where sweeps are kept (default: mlruns)")
    sub.add_argument("--port", type=int, default=5000, help="default: 5000")
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on; anything else can be reached by others")
    sub = verb(
        "evaluate",
        _evaluate,
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
        _confirm,
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
        _promote,
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
        _report,
        "Write a sweep's figures and tables as one HTML page that needs no network.",
        "report demo",
        "report demo --trial 3",
        "report demo --out demo.html",
    )
    of_sweep(sub)
    sub.add_argument("--trial", type=int, metavar="N", help="the page of this trial instead")
    sub.add_argument("--out", type=Path, metavar="FILE", help="default: report/index.html in the sweep's folder")
    sub = verb("sync", _sync, "Ship to MLflow what a sweep could not.", "sync demo")
    of_sweep(sub)
    sub = verb(
        "data",
        _data,
        "Describe and verify a data set: counts, duplicates, conflicts, blanks, overlap.",
        "data synthetic",
        "data fer2013 path=fer2013.csv",
    )
    sub.add_argument("name", metavar="DATA", help="an option of the group data; see ferhpo list data")
    sub.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the data set, as path=fer2013.csv")
    json_too(sub)
    sub = verb("doctor", _doctor, "Show versions, devices, store and disk.", "doctor")
    sub.add_argument("--output-dir", default="mlruns", help="where sweeps are kept (default: mlruns)")
    json_too(sub)
    return parser


def _sweep(args: argparse.Namespace) -> int:
    from ferhpo import running
    from ferhpo.console import Progress, make_console

    console = make_console(stderr=args.json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as ctrl-C does
    with Progress(console) as progress:
        function = running.train if args.verb == "train" else running.sweep
        result = function(
            args.name,
            args.overrides,
            resume=args.resume,
            new=args.new,
            config_dir=args.config_dir,
            listener=progress,
        )
    for warning in result.warnings:
        console.print(f"warning: {warning}", style="yellow")
    if args.json:
        print(json.dumps(_result_dict(result)))
    else:
        _print_result(result)
    if not result.finished:
        return 130
    return 3 if result.counts.get("FAILED") else 0


_train = _sweep


def _result_dict(result: "SweepResult") -> dict[str, Any]:
    return {
        "name": result.sweep.name,
        "folder": str(result.sweep.folder),
        "counts": result.counts,
        "finished": result.finished,
        "best": None if result.best is None else _trial_dict(result.best),
        "registered": result.registered,
        "unshipped": result.unshipped,
        "warnings": result.warnings,
    }


def _trial_dict(trial: Any) -> dict[str, Any]:
    keys = ("number", "state", "value", "best_epoch", "sample", "seed", "seconds", "reason", "epochs", "folds", "extra")
    return {key: getattr(trial, key) for key in keys}


def _print_result(result: "SweepResult") -> None:
    from ferhpo.console import leaderboard, make_console

    console = make_console()
    record = result.sweep
    console.print()
    console.print(leaderboard(record.leaderboard(), record.objective.metric))
    console.print()
    failed = {state: n for state, n in result.counts.items() if state in ("FAILED", "INFEASIBLE", "DIVERGED")}
    if failed:
        first = next(t for t in record.trials() if t.state in failed)
        shares = ", ".join(f"{n} {state.lower()}" for state, n in failed.items())
        console.print(f"{shares}; the first: trial {first.number}: {(first.reason or '?').splitlines()[0]}")
    if not result.finished:
        verb = "train" if record.meta["kind"] == "train" else "sweep"
        console.print(f"Stopped. ferhpo {verb} --resume {record.name} goes on.")
    if result.registered:
        name, version = result.registered
        console.print(f"Registered {name} version {version}; ferhpo promote {record.name} makes it the champion.")
    if result.unshipped:
        console.print(f"{result.unshipped} records wait for MLflow; ferhpo sync {record.name} ships them.")
    if result.view:
        view = result.view.format(server="http://127.0.0.1:5000")
        console.print(f"Look at it: ferhpo ui, then {view}", soft_wrap=True)


def _evaluate(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ferhpo.console import make_console
    from ferhpo.evaluating import evaluate
    from ferhpo.score_tables import evaluation_tables

    found = evaluate(
        args.model,
        args.overrides,
        split=args.split,
        ten_crop=args.ten_crop,
        output_dir=args.output_dir,
        config_dir=args.config_dir,
    )
    if args.json:
        print(json.dumps(asdict(found)))
        return
    console = make_console()
    for table in evaluation_tables(found):
        console.print(table)
        console.print()
    for warning in found.warnings:
        console.print(f"warning: {warning}", style="yellow")


def _confirm(args: argparse.Namespace) -> int:
    from ferhpo.confirming import confirm
    from ferhpo.console import Progress, make_console
    from ferhpo.score_tables import confirmation_tables

    console = make_console(stderr=args.json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as ctrl-C does
    with Progress(console) as progress:
        result = confirm(
            args.name,
            args.overrides,
            top=args.top,
            seeds=args.seeds,
            resume=args.resume,
            new=args.new,
            output_dir=args.output_dir,
            listener=progress,
        )
    for warning in result.warnings:
        console.print(f"warning: {warning}", style="yellow")
    if args.json:
        print(json.dumps({**_result_dict(result), "found": result.found}))
    elif result.found is None:
        console.print(f"Stopped. ferhpo confirm --resume {result.sweep.name} goes on.")
    else:
        console.print()
        for part in confirmation_tables(result.found):
            console.print(part, soft_wrap=isinstance(part, str))
            console.print()
        if result.registered and result.confirmed is not None:
            console.print(f"ferhpo promote {result.confirmed.name} makes it the champion.")
    if not result.finished:
        return 130
    return 3 if result.counts.get("FAILED") else 0


def _plan(args: argparse.Namespace) -> None:
    from ferhpo import verbs
    from ferhpo.console import make_console, plan_table

    plan = verbs.plan(args.name, args.overrides, args.config_dir)
    if args.json:
        print(json.dumps(plan.to_dict()))
        return
    console = make_console()
    console.print(plan_table(plan))
    for warning in plan.warnings:
        console.print(f"warning: {warning}", style="yellow")


def _check(args: argparse.Namespace) -> None:
    from ferhpo import verbs

    warnings = verbs.check(args.name, args.overrides, args.config_dir)
    if args.json:
        print(json.dumps({"faults": [], "warnings": warnings}))
        return
    for warning in warnings:
        print(f"warning: {warning}")
    print(f"{args.name} can run")


def _show(args: argparse.Namespace) -> None:
    from rich.text import Text

    from ferhpo.config import compose
    from ferhpo.console import key_values, make_console
    from ferhpo.space import leaves

    composed = compose(args.name, args.overrides, args.config_dir)
    if args.json:
        print(json.dumps({"config": composed.config, "groups": composed.groups, "origins": composed.origins}))
        return
    rows = []
    for path, value in leaves(composed.config):
        origin = next((composed.origins[p] for p in _parents(path) if p in composed.origins), "")
        rows.append((path, Text.assemble(str(value), (f"  {origin}" if origin else "", "dim"))))
    make_console().print(key_values(rows))


def _parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _list(args: argparse.Namespace) -> None:
    from ferhpo.config import GROUPS, group_files, headline, sweep_files
    from ferhpo.console import key_values, make_console
    from ferhpo.errors import ConfigError
    from ferhpo.space import nearest

    kinds = ["sweeps", *GROUPS]
    alias = {name.rstrip("s"): name for name in kinds} | {f"{name}s": name for name in GROUPS} | {"optimisers": "optim"}
    what = alias.get(args.what, args.what) if args.what else None
    if what is not None and what not in kinds:
        raise ConfigError("list", [f"{args.what} is nothing to list; {nearest(args.what, kinds)}"])
    found = {
        kind: sweep_files(args.config_dir) if kind == "sweeps" else group_files(kind, args.config_dir)
        for kind in ([what] if what else kinds)
    }
    lines = {kind: {name: headline(path) for name, path in files.items()} for kind, files in found.items()}
    if args.json:
        print(json.dumps(lines))
        return
    console = make_console()
    for kind, names in lines.items():
        console.print(kind, style="bold")
        console.print(key_values([(f"  {name}", text) for name, text in names.items()]))


def _runs(args: argparse.Namespace) -> None:
    from ferhpo import verbs
    from ferhpo.console import leaderboard, make_console
    from ferhpo.record import load_sweep

    console = make_console()
    if args.name is None:
        rows = verbs.list_sweeps(args.output_dir)
        if args.json:
            print(json.dumps(rows))
            return
        from rich.table import Table

        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("sweep", "created", "trials", "best", "states"):
            table.add_column(heading)
        for row in rows:
            states = ", ".join(f"{count} {state.lower()}" for state, count in row["counts"].items())
            value = "" if row["best"] is None else f"{row['best']:.4f}"
            table.add_row(row["name"], row["created"], str(row["num_trials"]), value, states)
        console.print(table)
        return
    record = load_sweep(args.name, args.output_dir)
    trials = record.leaderboard()
    if args.json:
        print(json.dumps([_trial_dict(trial) for trial in trials]))
    else:
        console.print(leaderboard(trials, record.objective.metric, args.rows))


def _ui(args: argparse.Namespace) -> int:
    from ferhpo import verbs

    return verbs.ui(args.output_dir, args.host, args.port)


def _promote(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ferhpo import verbs

    promotion = verbs.promote(args.name, args.alias, args.version, args.output_dir)
    if args.json:
        print(json.dumps(asdict(promotion)))
        return
    before = "" if promotion.previous is None else f" (before: version {promotion.previous})"
    print(f"{promotion.name}@{promotion.alias} is version {promotion.version}{before}")
    print(f"load it: mlflow.set_tracking_uri('{verbs.store_of(args.name, args.output_dir)}')")
    print(f"         mlflow.pyfunc.load_model('models:/{promotion.name}@{promotion.alias}')")


def _report(args: argparse.Namespace) -> None:
    from ferhpo import verbs

    print(verbs.report(args.name, args.trial, args.out, args.output_dir))


def _sync(args: argparse.Namespace) -> None:
    from ferhpo import verbs

    print(f"{verbs.sync(args.name, args.output_dir)} records shipped")


def _data(args: argparse.Namespace) -> None:
    from ferhpo import verbs
    from ferhpo.console import data_tables, make_console

    description = verbs.describe_data(args.name, args.overrides, args.config_dir)
    if args.json:
        print(json.dumps(description))
        return
    console = make_console()
    for table in data_tables(description):
        console.print(table)
        console.print()


def _doctor(args: argparse.Namespace) -> None:
    from ferhpo import verbs
    from ferhpo.console import key_values, make_console

    found = verbs.doctor(args.output_dir)
    if args.json:
        print(json.dumps(found))
        return
    console = make_console()
    for title, rows in found.items():
        console.print(title, style="bold")
        console.print(key_values([(f"  {key}", value) for key, value in rows.items()]))


if __name__ == "__main__":
    command()
