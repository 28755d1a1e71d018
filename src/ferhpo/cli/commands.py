"""What each verb of the command line does: call it, print its answer as tables for people or as JSON. cli.py parses.

Heavy packages are imported inside the functions: `ferhpo --help` loads none of torch, ray and mlflow.
"""

import argparse
import json
import signal
from typing import TYPE_CHECKING, NoReturn

import ferhpo
from ferhpo.cli.results import exit_status, print_result, registered_text, result_dict, trial_dict, waiting_text
from ferhpo.errors import StillRunning

if TYPE_CHECKING:
    pass


def sweep(args: argparse.Namespace) -> int:
    from ferhpo.cli.progress import Progress
    from ferhpo.cli.tables import make_console

    console = make_console(stderr=args.json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as ctrl-C does
    with Progress(console) as progress:
        function = ferhpo.train if args.verb == "train" else ferhpo.sweep
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
        print(json.dumps(result_dict(result)))
    else:
        print_result(result)
    return exit_status(result)


train = sweep


def evaluate(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ferhpo.cli.tables import evaluation_tables, make_console

    found = ferhpo.evaluate(
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


def confirm(args: argparse.Namespace) -> int:
    from ferhpo.cli.progress import Progress
    from ferhpo.cli.tables import confirmation_tables, make_console

    console = make_console(stderr=args.json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as ctrl-C does
    with Progress(console) as progress:
        result = ferhpo.confirm(
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
        found = None if result.found is None else result.found.to_json()
        print(json.dumps({**result_dict(result), "found": found}))
    elif result.found is None:
        console.print(f"Stopped. {result.sweep.resume_command} goes on.")
    else:
        console.print()
        for part in confirmation_tables(result.found):
            console.print(part, soft_wrap=isinstance(part, str))
            console.print()
        if result.registered and result.confirmed is not None:
            console.print(f"ferhpo promote {result.confirmed.name} makes it the champion.")
    if result.unshipped and not args.json:
        console.print(waiting_text(result.unshipped, result.sweep.name))
    return exit_status(result)


def plan(args: argparse.Namespace) -> None:
    from ferhpo.cli.tables import make_console, plan_table

    plan = ferhpo.plan(args.name, args.overrides, args.config_dir)
    if args.json:
        print(json.dumps(plan.to_dict()))
        return
    console = make_console()
    console.print(plan_table(plan))
    for warning in plan.warnings:
        console.print(f"warning: {warning}", style="yellow")


def check(args: argparse.Namespace) -> None:
    warnings = ferhpo.check(args.name, args.overrides, args.config_dir)
    if args.json:
        print(json.dumps({"faults": [], "warnings": warnings}))
        return
    for warning in warnings:
        print(f"warning: {warning}")
    print(f"{args.name} can run")


def show(args: argparse.Namespace) -> None:
    from rich.text import Text

    from ferhpo.cli.tables import key_values, make_console
    from ferhpo.config.compose import compose
    from ferhpo.keys import leaves

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


def list_options(args: argparse.Namespace) -> None:
    from ferhpo.cli.tables import key_values, make_console
    from ferhpo.config import GROUPS
    from ferhpo.config.files import group_files, headline, sweep_files
    from ferhpo.errors import ConfigError
    from ferhpo.keys import nearest

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


def runs(args: argparse.Namespace) -> None:
    from ferhpo.cli.tables import leaderboard, make_console, sweeps_table
    from ferhpo.storage import listing
    from ferhpo.storage.sweep import load_sweep

    console = make_console()
    if args.name is None:
        rows = ferhpo.list_sweeps(args.output_dir)
        if args.json:
            print(json.dumps(rows))
            return
        console.print(sweeps_table(rows))
        waiting = [row["name"] for row in rows if row.get("unshipped") and not row["runs"]]
        if waiting:
            console.print(f"\nferhpo sync {' or '.join(waiting)} ships what is not in MLflow yet.")
        return
    record = load_sweep(args.name, args.output_dir)
    trials = record.leaderboard()
    if args.json:
        print(json.dumps([trial_dict(trial) for trial in trials]))
    else:
        console.print(leaderboard(trials, record.objective.metric, args.rows))
        waiting_records, runs = listing.unshipped(record)
        interrupted = sum(not trial.state.is_over for trial in trials)
        if interrupted and not runs:
            of_them = "1 trial was" if interrupted == 1 else f"{interrupted} trials were"
            console.print(f"\nNo driver runs it: {of_them} interrupted. {record.resume_command} goes on.")
        if waiting_records and not runs:
            console.print(waiting_text(waiting_records, record.name))


def ui(args: argparse.Namespace) -> NoReturn:
    from ferhpo.cli.ui import ui as serve

    serve(args.output_dir, args.host, args.port)


def promote(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ferhpo.publish.sync import store_of

    promotion = ferhpo.promote(args.name, args.alias, args.version, args.output_dir)
    if args.json:
        print(json.dumps(asdict(promotion)))
        return
    before = "" if promotion.previous is None else f" (before: version {promotion.previous})"
    print(f"{promotion.name}@{promotion.alias} is version {promotion.version}{before}")
    print(f"load it: mlflow.set_tracking_uri('{store_of(args.name, args.output_dir)}')")
    print(f"         mlflow.pyfunc.load_model('models:/{promotion.name}@{promotion.alias}')")


def report(args: argparse.Namespace) -> None:
    print(ferhpo.report(args.name, args.trial, args.out, args.output_dir))


def sync(args: argparse.Namespace) -> None:
    from ferhpo.errors import ConfigError
    from ferhpo.publish.sync import ship_and_register
    from ferhpo.storage import listing
    from ferhpo.storage.sweep import load_sweep
    from ferhpo.tracking import hide_all

    overrides = hide_all(args.overrides)
    faults = [f"{t.partition('=')[0]} is no setting of sync; tracking.uri=... is" for t in overrides if not _is_uri(t)]
    if faults:
        raise ConfigError(f"sync {args.name}", faults)
    uri = overrides[-1].removeprefix("tracking.uri=") if overrides else None
    try:
        num_records, registered = ship_and_register(args.name, args.output_dir, uri)
    except StillRunning:  # what was asked for is being done: no error, so that a script may sync all it finds
        left, _ = listing.unshipped(load_sweep(args.name, args.output_dir))
        print(f"sweep {args.name} runs and ships its records itself; {left} are on their way")
        return
    print(f"{num_records} records shipped")
    if registered:
        print(registered_text(registered, args.name))


def _is_uri(override: str) -> bool:
    return override.startswith("tracking.uri=")


def data(args: argparse.Namespace) -> None:
    from ferhpo.cli.tables import data_tables, make_console

    description = ferhpo.describe_data(args.name, args.overrides, args.config_dir)
    if args.json:
        print(json.dumps(description))
        return
    console = make_console()
    for table in data_tables(description):
        console.print(table)
        console.print()


def doctor(args: argparse.Namespace) -> None:
    from ferhpo.cli.tables import key_values, make_console

    found = ferhpo.doctor(args.output_dir)
    if args.json:
        print(json.dumps(found))
        return
    console = make_console()
    for title, rows in found.items():
        console.print(title, style="bold")
        console.print(key_values([(f"  {key}", value) for key, value in rows.items()]))
