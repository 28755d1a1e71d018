"""One function per verb: call it with the parsed arguments, and print the result as tables or as JSON.

Heavy packages are imported inside functions: `ferhpo --help` imports none of torch, ray and mlflow.
"""

import argparse
import json
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import ferhpo
from ferhpo.cli.results import (
    exit_status,
    print_result,
    registered_text,
    result_dict,
    stopped_text,
    trial_dict,
    unshipped_text,
)
from ferhpo.cli.screen.console import make_console, say, typed
from ferhpo.errors import StillRunning
from ferhpo.text import plural

if TYPE_CHECKING:
    from rich.console import Console


def sweep(args: argparse.Namespace) -> int:
    from ferhpo.cli.screen.progress import Progress

    console = make_console(stderr=args.json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # handled like Ctrl-C
    with Progress(console, f"{args.name}: checking the configuration") as progress:
        function = ferhpo.train if args.verb == "train" else ferhpo.sweep
        result = function(
            args.name,
            args.overrides,
            resume=args.resume,
            new=args.new,
            config_dir=args.config_dir,
            listener=progress,
        )
    _print_warnings(console, [text for text in result.warnings if text not in progress.warned])
    if args.json:
        print(json.dumps(result_dict(result)))
    else:
        print_result(result)
    return exit_status(result)


train = sweep


def evaluate(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ferhpo.cli.tables import evaluation_tables

    scores = ferhpo.evaluate(
        args.model,
        args.overrides,
        split=args.split,
        ten_crop=args.ten_crop,
        output_dir=args.output_dir,
        config_dir=args.config_dir,
    )
    if args.json:
        print(json.dumps(asdict(scores)))
        return
    console = make_console()
    for table in evaluation_tables(scores):
        console.print(table)
        console.print()
    _print_warnings(console, scores.warnings)


def confirm(args: argparse.Namespace) -> int:
    from ferhpo.cli.screen.progress import Progress
    from ferhpo.cli.tables import confirmation_tables

    console = make_console(stderr=args.json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # handled like Ctrl-C
    with Progress(console, f"{args.name}: reading its trials") as progress:
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
    _print_warnings(console, [text for text in result.warnings if text not in progress.warned])
    if args.json:
        found = None if result.found is None else result.found.to_json()
        print(json.dumps({**result_dict(result), "found": found}))
    elif result.found is None:
        console.print(stopped_text(result.sweep, result.stop_reason), soft_wrap=True)
    else:
        console.print()
        for part in confirmation_tables(result.found):
            console.print(part, soft_wrap=isinstance(part, str))
            console.print()
        if result.registered and result.confirmed is not None:
            console.print(typed(f"Promote it with: {result.confirmed.command('promote')}"))
    if result.unshipped and not args.json:
        console.print(unshipped_text(result.unshipped, result.sweep), soft_wrap=True)
    return exit_status(result)


def plan(args: argparse.Namespace) -> None:
    from ferhpo.cli.tables import plan_table

    plan = ferhpo.plan(args.name, args.overrides, args.config_dir, timed=not args.untimed)
    if args.json:
        print(json.dumps(plan.to_dict()))
        return
    console = make_console()
    console.print(plan_table(plan))
    _print_warnings(console, plan.warnings)


def check(args: argparse.Namespace) -> None:
    warnings = ferhpo.check(args.name, args.overrides, args.config_dir)
    if args.json:
        print(json.dumps({"faults": [], "warnings": warnings}))
        return
    for warning in warnings:
        say(f"warning: {warning}")
    say(f"{args.name}: no faults found")


def show(args: argparse.Namespace) -> None:
    from rich.text import Text

    from ferhpo.cli.screen.grid import KeyValues
    from ferhpo.config.compose import compose
    from ferhpo.keys import leaves

    composed = compose(args.name, args.overrides, args.config_dir)
    if args.json:
        shown = {"config": composed.config, "groups": composed.groups, "origins": composed.origins}
        print(json.dumps({**shown, "options": composed.options, "slices": composed.slices}))
        return
    rows = []
    for path, value in leaves(composed.with_slices()):
        origin = next((composed.origins[p] for p in _parents(path) if p in composed.origins), "")
        rows.append((path, Text.assemble(str(value), (f"  {origin}" if origin else "", "dim"))))
    make_console().print(KeyValues(rows))


def _parents(path: str) -> list[str]:
    """Return a dotted path and every path above it, longest first."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def list_options(args: argparse.Namespace) -> None:
    from ferhpo.cli.screen.grid import KeyValues
    from ferhpo.config import GROUPS
    from ferhpo.config.files import NAMED, descriptions, group_of

    groups = [group_of(args.what)] if args.what else ["sweeps", *GROUPS, *NAMED]
    lines = {group: descriptions(group, args.config_dir) for group in groups}
    if args.json:
        print(json.dumps(lines))
        return
    console = make_console()
    for group, names in lines.items():
        console.print(group, style="bold")
        rows = [(f"  {name}", text) for name, text in names.items()]
        console.print(KeyValues(rows or [("  none", f"`ferhpo new {group.removesuffix('s')} NAME` writes one")]))


def runs(args: argparse.Namespace) -> None:
    from ferhpo.cli.screen.leaderboard import leaderboard
    from ferhpo.cli.tables import sweeps_table
    from ferhpo.storage import listing
    from ferhpo.storage.commands import command
    from ferhpo.storage.provenance import changes_text
    from ferhpo.storage.sweep import load_sweep

    console = make_console()
    if args.name is None:
        rows = ferhpo.list_sweeps(args.output_dir)
        if args.json:
            print(json.dumps(rows))
            return
        console.print(sweeps_table(rows))
        unshipped = [row["name"] for row in rows if row.get("unshipped") and not row["runs"]]
        if unshipped:
            commands = typed(", ".join(command("sync", Path(args.output_dir, name)) for name in unshipped))
            console.print(f"\nSome records are not in MLflow yet. Upload them with: {commands}", soft_wrap=True)
        return
    sweep = load_sweep(args.name, args.output_dir)
    trials = sweep.leaderboard()
    if args.json:
        print(json.dumps([trial_dict(trial) for trial in trials]))
    else:
        num_unshipped, is_running = listing.unshipped(sweep)
        note = changes_text(sweep.meta)
        console.print(leaderboard(trials, sweep.objective.metric, args.rows, is_running=is_running, note=note))
        num_interrupted = sum(not trial.state.is_over for trial in trials)
        if num_interrupted and not is_running:
            were = "was" if num_interrupted == 1 else "were"
            trials_text = f"{plural(num_interrupted, 'trial')} {were} interrupted"
            text = f"\nNot running; {trials_text}. Resume with: {typed(sweep.resume_command)}"
            console.print(text, soft_wrap=True)
        if num_unshipped and not is_running:
            console.print(unshipped_text(num_unshipped, sweep), soft_wrap=True)


def ui(args: argparse.Namespace) -> NoReturn:
    from ferhpo.cli.ui import ui as serve

    serve(args.output_dir, args.host, args.port)


def promote(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ferhpo.publish.promote import store_of

    promotion = ferhpo.promote(args.name, args.alias, args.version, args.output_dir)
    if args.json:
        print(json.dumps(asdict(promotion)))
        return
    before = "" if promotion.previous is None else f" (previously version {promotion.previous})"
    say(f"{promotion.name}@{promotion.alias} is now version {promotion.version}{before}. Load it in Python with:")
    say(f"  mlflow.set_tracking_uri({store_of(args.name, args.output_dir)!r})")
    say(f"  mlflow.pyfunc.load_model({f'models:/{promotion.name}@{promotion.alias}'!r})")


def report(args: argparse.Namespace) -> None:
    say(str(ferhpo.report(args.name, args.trial, args.out, args.output_dir, args.panel)))


def sync(args: argparse.Namespace) -> None:
    from ferhpo.config.input.overrides import unquoted
    from ferhpo.errors import ConfigError
    from ferhpo.publish.sync import ship_and_register
    from ferhpo.storage import listing
    from ferhpo.storage.sweep import load_sweep
    from ferhpo.tracking import hide_all, rejected_text

    overrides = hide_all(args.overrides)
    keys = [text.partition("=")[0] for text in overrides if not text.startswith("tracking.uri=")]
    if faults := [f"{key} cannot be set in sync; only tracking.uri can" for key in keys]:
        raise ConfigError(f"sync {args.name}", faults)
    uri = unquoted(overrides[-1].removeprefix("tracking.uri=")) if overrides else None
    try:
        num_records, registered = ship_and_register(args.name, args.output_dir, uri)
    except StillRunning:  # not an error, so that a script can call sync for every sweep
        left, _ = listing.unshipped(load_sweep(args.name, args.output_dir))
        say(f"sweep {args.name} is running and uploads its records itself; {plural(left, 'record')} pending")
        return
    say(f"{plural(num_records, 'record')} uploaded to MLflow")
    sweep = load_sweep(args.name, args.output_dir)
    if rejected := rejected_text(sweep.folder, sweep.command("sync")):
        say(rejected)
    if registered:
        say(registered_text(registered, sweep))


def data(args: argparse.Namespace) -> None:
    from ferhpo.cli.tables import data_tables

    description = ferhpo.describe_data(args.name, args.overrides, args.config_dir)
    if args.json:
        print(json.dumps(description))
        return
    console = make_console()
    for table in data_tables(description):
        console.print(table)
        console.print()


def doctor(args: argparse.Namespace) -> None:
    from ferhpo.cli.screen.grid import KeyValues

    facts = ferhpo.doctor(args.output_dir)
    if args.json:
        print(json.dumps(facts))
        return
    console = make_console()
    for title, rows in facts.items():
        console.print("records not in MLflow" if title == "unshipped" else title, style="bold")
        console.print(KeyValues([(f"  {key}", typed(str(value))) for key, value in rows.items()]))


def _print_warnings(console: "Console", warnings: Iterable[str]) -> None:
    for warning in warnings:
        console.print(f"warning: {typed(warning)}", style="yellow", soft_wrap=True)
