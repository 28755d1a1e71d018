"""The verbs that look at a configuration or at data: plan, check, show, list, data."""

import argparse
import json

import ferhpo
from ferhpo.cli.screen.console import make_console, print_warnings, say


def plan(args: argparse.Namespace) -> None:
    from ferhpo.cli.tables import plan_table

    plan = ferhpo.plan(args.name, args.overrides, args.config_dir, timed=not args.untimed)
    if args.json:
        print(json.dumps(plan.to_dict()))
        return
    console = make_console()
    console.print(plan_table(plan))
    print_warnings(console, plan.warnings)


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
