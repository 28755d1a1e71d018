"""The verb about this machine: doctor."""

import argparse
import json

import ferhpo
from ferhpo.cli.screen.console import make_console, typed


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
