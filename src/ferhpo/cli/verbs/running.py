"""The verbs that train: sweep, train, confirm."""

import argparse
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import ferhpo
from ferhpo.cli.results import exit_status, print_result, result_dict, stopped_text, unshipped_text
from ferhpo.cli.screen.console import make_console, print_warnings, typed
from ferhpo.cli.verbs.notify import check_url, sweep_ended, telling_failure

if TYPE_CHECKING:
    from ferhpo.cli.screen.progress import Progress


@contextmanager
def _shown(args: argparse.Namespace, first_step: str) -> Iterator["Progress"]:
    """Show the progress of a sweep, end it on SIGTERM as on Ctrl-C, and tell the webhook of an error."""
    from ferhpo.cli.screen.progress import Progress

    check_url(args.notify)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    telling = telling_failure(args.notify, args.name)
    with telling, Progress(make_console(stderr=args.json), f"{args.name}: {first_step}") as progress:
        yield progress


def sweep(args: argparse.Namespace) -> int:
    with _shown(args, "checking the configuration") as progress:
        function = ferhpo.train if args.verb == "train" else ferhpo.sweep
        result = function(
            args.name,
            args.overrides,
            resume=args.resume,
            new=args.new,
            config_dir=args.config_dir,
            listener=progress,
        )
    notice = sweep_ended(args.notify, result)
    console = make_console(stderr=args.json)
    print_warnings(console, [text for text in result.warnings if text not in progress.warned])
    if args.json:
        print(json.dumps(result_dict(result)))
    else:
        print_result(result)
    if notice is not None:
        notice.wait()
    return exit_status(result)


train = sweep


def confirm(args: argparse.Namespace) -> int:
    from ferhpo.cli.tables import confirmation_tables

    with _shown(args, "reading its trials") as progress:
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
    notice = sweep_ended(args.notify, result)
    console = make_console(stderr=args.json)
    print_warnings(console, [text for text in result.warnings if text not in progress.warned])
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
    if notice is not None:
        notice.wait()
    return exit_status(result)
