"""The verbs about trained models: evaluate, predict, ensemble, promote, rollback."""

import argparse
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ferhpo
from ferhpo.cli.screen.console import make_console, print_warnings, say, steps_shown
from ferhpo.cli.verbs.notify import alias_moved, check_url

if TYPE_CHECKING:
    from ferhpo.cli.screen.grid import Grid
    from ferhpo.promotion.gates import Passed
    from ferhpo.promotion.promote import Promotion


def evaluate(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ferhpo.cli.tables import evaluation_tables

    scores = ferhpo.evaluate(
        args.model,
        args.overrides,
        split=args.split,
        ten_crop=args.ten_crop,
        calibration=args.calibration,
        robustness=args.robustness,
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
    print_warnings(console, scores.warnings)


def predict(args: argparse.Namespace) -> None:
    from ferhpo.cli.tables import predictions_table

    overrides = [text for text in args.images if re.match(r"(tracking|security)\.\w+=", text)]
    images = [text for text in args.images if text not in overrides]
    warnings: list[str] = []
    found = ferhpo.predict(
        args.model, images, overrides, output_dir=args.output_dir, config_dir=args.config_dir, warnings=warnings
    )
    if args.json:
        rows = [{"image": name, **row} for name, row in zip(found.index, found.to_dict("records"), strict=True)]
        print(json.dumps(rows))
        print_warnings(make_console(stderr=True), warnings)
        return
    make_console().print(predictions_table(found))
    print_warnings(make_console(), warnings)


def promote(args: argparse.Namespace) -> None:
    from ferhpo.promotion.promote import GatesError

    check_url(args.notify)
    try:
        with steps_shown():
            promotion = ferhpo.promote(
                args.name,
                args.alias,
                args.version,
                args.output_dir,
                model=args.model,
                gates=args.gates,
                purpose=args.purpose,
                force=args.force,
                config_dir=args.config_dir,
            )
    except GatesError as error:
        if not args.json:
            console = make_console()
            console.print(gates_table(error.results))
            print_warnings(console, error.notes)
        raise
    _show(promotion, args)


def rollback(args: argparse.Namespace) -> None:
    check_url(args.notify)
    promotion = ferhpo.rollback(args.name, args.alias, args.output_dir, model=args.model, reason=args.reason)
    _show(promotion, args)


def _show(promotion: "Promotion", args: argparse.Namespace) -> None:
    """Print a move of an alias, and tell the webhook."""
    from dataclasses import asdict

    notice = alias_moved(args.notify, promotion)
    if args.json:
        print(json.dumps(asdict(promotion)))
    else:
        _print_promotion(promotion, args)
    if notice is not None:
        notice.wait()


def _print_promotion(promotion: "Promotion", args: argparse.Namespace) -> None:
    from ferhpo.promotion.promote import store_of

    console = make_console()
    if promotion.gates:
        console.print(gates_table(promotion.gates))
    print_warnings(console, promotion.notes)
    if promotion.forced:
        say(f"Moved in spite of the gates, because: {promotion.forced}")
    before = "" if promotion.previous is None else f" (previously version {promotion.previous})"
    say(f"{promotion.name}@{promotion.alias} is now version {promotion.version}{before}. Load it in Python with:")
    say(f"  mlflow.set_tracking_uri({store_of(args.name, args.output_dir)!r})")
    say(f"  mlflow.pyfunc.load_model({f'models:/{promotion.name}@{promotion.alias}'!r})")


def gates_table(results: Sequence["Passed"]) -> "Grid":
    """Return the table of the gates that were asked."""
    from ferhpo.cli.screen.grid import Grid

    heads = ["gate", "", "found", "asked"]
    rows = [[each.gate, "passed" if each.passed else "refused", each.found, each.asked] for each in results]
    return Grid(heads, rows, heads)


def ensemble(args: argparse.Namespace) -> None:
    from ferhpo.cli.results import registered_text
    from ferhpo.evaluation.ensemble import sentences
    from ferhpo.storage.sweep import load_sweep

    result = ferhpo.ensemble(args.name, args.top, register=not args.no_register, output_dir=args.output_dir)
    if args.json:
        print(json.dumps(result.to_json()))
        return
    console = make_console()
    for sentence in sentences(result):
        console.print(sentence, soft_wrap=True)
    if result.registered is None:
        console.print(f"Exported to {result.folder}", soft_wrap=True)
    else:
        console.print(registered_text(result.registered, load_sweep(args.name, args.output_dir)), soft_wrap=True)
