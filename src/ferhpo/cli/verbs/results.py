"""The verbs about the results of sweeps: runs, compare, report, sync."""

import argparse
import json
from pathlib import Path

import ferhpo
from ferhpo.cli.results import registered_text, trial_dict, unshipped_text
from ferhpo.cli.screen.console import make_console, print_warnings, say, typed
from ferhpo.errors import StillRunning
from ferhpo.text import plural


def runs(args: argparse.Namespace) -> None:
    if not args.names:
        _print_sweeps(args)
    elif len(args.names) > 1 or args.where or args.sort or args.columns or args.csv or args.top is not None:
        _print_selection(args)
    else:
        _print_leaderboard(args)


def _print_sweeps(args: argparse.Namespace) -> None:
    from ferhpo.cli.tables import sweeps_table
    from ferhpo.storage.commands import command

    rows = ferhpo.list_sweeps(args.output_dir)
    if args.json:
        print(json.dumps(rows))
        return
    console = make_console()
    console.print(sweeps_table(rows))
    unshipped = [row["name"] for row in rows if row.get("unshipped") and not row["runs"]]
    if unshipped:
        commands = typed(", ".join(command("sync", Path(args.output_dir, name)) for name in unshipped))
        console.print(f"\nSome records are not in MLflow yet. Upload them with: {commands}", soft_wrap=True)


def _print_leaderboard(args: argparse.Namespace) -> None:
    from ferhpo.cli.screen.leaderboard import leaderboard
    from ferhpo.storage import listing
    from ferhpo.storage.provenance import changes_text
    from ferhpo.storage.sweep import load_sweep

    console = make_console()
    sweep = load_sweep(args.names[0], args.output_dir)
    trials = sweep.leaderboard()
    if args.json:
        print(json.dumps([trial_dict(trial) for trial in trials]))
        return
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


def _print_selection(args: argparse.Namespace) -> None:
    from ferhpo.cli.screen.grid import Grid
    from ferhpo.storage.selection import select
    from ferhpo.storage.sweep import load_sweep
    from ferhpo.text import csv_text, number, short_names

    sweeps = [load_sweep(name, args.output_dir) for name in args.names]
    columns = [name for text in args.columns for name in text.split(",") if name]
    table = select(sweeps, args.where, args.sort, columns, args.top)
    if args.json:
        print(json.dumps(table.dicts()))
    elif args.csv:
        say(csv_text([table.columns, *table.rows]).rstrip())
    else:
        # A column that is empty in all rows, or too wide for a table, is left out unless it was asked for.
        used = [
            place
            for place, name in enumerate(table.columns)
            if columns or (name != "reason" and any(row[place] not in (None, "") for row in table.rows))
        ]
        names = short_names([table.columns[place] for place in used], taken=[])
        cells = [[number(row[place]) for place in used] for row in table.rows[: args.rows]]
        left = len(table.rows) - args.rows
        more = f"{plural(left, 'more trial')} (show with --rows)." if left > 0 else ""
        headings = [names[table.columns[place]] for place in used]
        make_console().print(Grid(headings, cells, ["sweep", "state", "reason"], caption=more))


def compare(args: argparse.Namespace) -> None:
    from ferhpo.cli.screen.comparison import comparison_parts

    models = [text for text in args.models if "=" not in text]
    overrides = [text for text in args.models if "=" in text]
    found = ferhpo.compare(*models, overrides=overrides, output_dir=args.output_dir, config_dir=args.config_dir)
    page = None
    if args.out is not None:
        from ferhpo.reports.comparison import comparison_page

        page = comparison_page(found, args.out)
    if args.json:
        print(json.dumps(found.to_json()))
        return
    console = make_console()
    for part in comparison_parts(found, page):
        console.print(part, soft_wrap=isinstance(part, str))
        console.print()
    print_warnings(console, found.warnings)


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
