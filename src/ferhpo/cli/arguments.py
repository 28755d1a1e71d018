"""The arguments that several verbs share."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ferhpo.cli.help import DETAILS, EXIT_CODES, HelpFormatter
from ferhpo.config.input.overrides import expand

OUTPUT_DIR = "folder that contains the sweeps (default: mlruns)"


def add_verb(verbs: Any, name: str, run: Callable[[argparse.Namespace], int | None], text: str, *examples: str) -> Any:
    """Add a verb. text: its line in `ferhpo --help`, and the first one of its own help."""
    details = DETAILS.get(name)
    lines = "\n".join(f"  ferhpo {example}" for example in examples)
    sub = verbs.add_parser(
        name,
        help=text,
        description=f"{text}\n\n{details}" if details else text,
        epilog=f"examples:\n{lines}\n\n{EXIT_CODES}",
        formatter_class=HelpFormatter,
    )
    sub.set_defaults(run=run)
    sub.add_argument(
        "--config-dir",
        type=path,
        metavar="DIR",
        help="folder of your own configurations, searched before those of ferhpo (default: $FERHPO_CONFIG_DIR, "
        "otherwise ferhpo.d/, conf/ and sweeps/ in the current folder); the Python files in it are trusted",
    )
    sub.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE",
        help="Python module that a _target_ may name, like allowed_targets=[MODULE]; may be repeated",
    )
    return sub


def path(text: str) -> Path:
    """Return the path that a user wrote, e.g. with ~."""
    return Path(expand(text))


def add_overrides(sub: Any, text: str) -> None:
    """Add the overrides of a configuration."""
    sub.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=text)


def add_name(sub: Any) -> None:
    """Add the name of a sweep, with overrides."""
    sub.add_argument(
        "name",
        metavar="NAME",
        help="name of a sweep or training (see `ferhpo list sweeps`), or path of its .yaml file",
    )
    add_overrides(sub, "Hydra overrides, e.g. optim.lr=0.01 model=resnet space.optim.lr.high=0.1")
    add_json(sub)


def add_sweep(sub: Any) -> None:
    """Add the name of a sweep that exists."""
    sub.add_argument("name", metavar="SWEEP", help="name of a sweep, or path of its folder")
    add_output_dir(sub)


def add_output_dir(sub: Any) -> None:
    """Add --output-dir."""
    sub.add_argument("--output-dir", type=expand, default="mlruns", metavar="DIR", help=OUTPUT_DIR)


def add_json(sub: Any) -> None:
    """Add --json."""
    sub.add_argument("--json", action="store_true", help="print the result as JSON")


def add_notify(sub: Any) -> None:
    """Add --notify."""
    sub.add_argument(
        "--notify",
        metavar="URL",
        help="webhook to tell at the end, with JSON: event, text and facts; it delays nothing",
    )


def add_server(sub: Any, port: int) -> None:
    """Add --port and --host of a server."""
    sub.add_argument("--port", type=int, default=port, help=f"port to listen on (default: {port})")
    sub.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1); with any other address, the page is accessible to other "
        "machines, without a password",
    )
