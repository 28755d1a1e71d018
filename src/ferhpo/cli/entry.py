"""Run the command line: parse the arguments, call the verb, map errors to an exit status.

Exit status: 0 success, 1 internal error (with a traceback), 2 invalid input, 3 a trial of the sweep failed, 4 the
Ray cluster was lost, or gates refuse a promotion, 130 interrupted by the user.
"""

import atexit
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

from ferhpo.addresses.secrets import hide_command_line, redact
from ferhpo.cli.parser import make_parser
from ferhpo.cli.screen.console import say
from ferhpo.components import own_code
from ferhpo.config.input.hydra import flag_answer
from ferhpo.errors import FerhpoError, printable
from ferhpo.text import LAYOUT, escape_logs


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = make_parser()
    given = sys.argv[1:] if argv is None else argv
    args, left = parser.parse_known_args(argv)
    if answer := flag_answer([text for text in given if text in left or text.partition("=")[0] in left]):
        say(f"ferhpo: {answer}", error=True)
        return 2
    # argparse ends a verb's overrides at its first option: `confirm demo --top 2 optim.lr=0.1` leaves one.
    if any(text.startswith("-") for text in left) or (left and not hasattr(args, "overrides")):
        parser.error(f"unrecognized arguments: {redact(' '.join(left))}")
    if left:
        args.overrides = [*args.overrides, *left]
    if args.verb is None:
        parser.print_help()
        return 0
    own_code.allow(args.allow)
    if args.config_dir is not None:
        own_code.trust_folder(args.config_dir)
    try:
        return int(args.run(args) or 0)
    except FerhpoError as error:
        if getattr(args, "json", False):
            print(json.dumps({"error": str(error), "faults": getattr(error, "faults", [])}))
        say(str(error), error=True)
        return error.exit_status
    except KeyboardInterrupt as error:
        say(". ".join(["Stopped", *getattr(error, "__notes__", ())]), error=True)
        return 130
    except BrokenPipeError:  # the reader of the output, e.g. `head`, has exited
        sys.stderr.close()
        return 0
    except Exception as error:
        if not own_code.place(error):
            raise
        text = f"own code raised {own_code.reason(error)}; correct the file"
        if getattr(args, "json", False):
            print(json.dumps({"error": text, "faults": []}))
        say(". ".join([f"{args.verb}: {text}", *getattr(error, "__notes__", ())]), error=True)
        return FerhpoError.exit_status


def _keep_proxies_off_this_machine() -> None:
    """Let requests to this machine, e.g. to an MLflow server on it, bypass the proxies of the environment."""
    if any(os.environ.get(name) for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY")):
        for name in ("no_proxy", "NO_PROXY"):
            hosts = [host for host in os.environ.get(name, "").split(",") if host]
            os.environ[name] = ",".join(dict.fromkeys([*hosts, "localhost", "127.0.0.1", "::1"]))


def _escape_output() -> None:
    """Escape what is not printable in logs, warnings and tracebacks of all packages: they quote names from files."""
    escape_logs()
    plain = warnings.formatwarning
    warnings.formatwarning = lambda *args, **kwargs: printable(plain(*args, **kwargs), LAYOUT)

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(printable("".join(traceback.format_exception(kind, error, trace)), LAYOUT))

    sys.excepthook = show


def command() -> NoReturn:
    """Run `main` as the `ferhpo` command, and exit without Python's teardown.

    The teardown of torch, Ray and MLflow objects takes seconds. Functions registered with atexit do run. A signal that
    arrives after `main` has returned does not change the exit status.
    """
    hide_command_line()
    _escape_output()
    _keep_proxies_off_this_machine()
    status = main()

    def end(*_: object) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # the reader has exited
                stream.flush()
        os._exit(status)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    atexit._run_exitfuncs()
    end()
