"""The servers of the verbs ui, dashboard and serve; their imports would delay every other verb."""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

import psutil

from ferhpo.cli.screen.console import link, make_console, print_warnings, say
from ferhpo.cli.screen.grid import KeyValues
from ferhpo.errors import ConfigError, FerhpoError, SweepError, printable

MOST_LINKS = 20
# What MLflow and its server print while all is well
_CHATTER = re.compile(rb"Registry store URI not provided|\[MLflow\]|\b(INFO|DEBUG|WARNING)\b|Warning: |^\s*$")


def ui(args: argparse.Namespace) -> NoReturn:
    """Serve the MLflow UI of an output folder's store until interrupted, which raises KeyboardInterrupt.

    Raises SweepError if there is no store, if it names artifacts elsewhere, or if the server exits.
    """
    from ferhpo.tracking import TrackingSettings, trust_fault
    from ferhpo.tracking.moved import follow_move, named_places
    from ferhpo.tracking.upload.places import fault_of_owner

    settings = TrackingSettings(output_dir=Path(args.output_dir))
    if settings.sqlite_path is None or not settings.sqlite_path.exists() or not settings.sqlite_path.stat().st_size:
        raise SweepError(f"there is no MLflow store at {settings.shown_uri}; run a sweep first, or set --output-dir")
    if fault := trust_fault(settings):
        raise SweepError(fault)
    follow_move(settings)
    # The server would read what a run names, with the accounts of the environment, for whoever opens the page.
    if fault := next(filter(None, (fault_of_owner(p, settings.store_uri, "read") for p in named_places(settings))), ""):
        raise SweepError(fault)
    command = ["server", "--backend-store-uri", settings.store_uri]
    command += ["--host", args.host, "--port", str(args.port), "--workers", "1"]
    command += ["--artifacts-destination", str(settings.artifact_root)]  # by default in the current folder
    address = f"http://{args.host}:{args.port}"
    say(f"MLflow UI: {address}  (press Ctrl-C to stop)")
    _print_links(Path(args.output_dir), _local_address(args))
    _run_mlflow(command, args.port)


def serve(args: argparse.Namespace) -> NoReturn:
    """Serve a model's predictions over HTTP until interrupted, which raises KeyboardInterrupt.

    Raises SweepError, TrackingError, ConfigError if the model cannot be loaded, or if the server exits.
    """
    from ferhpo.evaluation.evaluate import divided
    from ferhpo.evaluation.servable import servable

    of_data, stores, faults = divided(args.overrides, "serve")
    if faults := [*faults, *(f"{text.partition('=')[0]} cannot be overridden in serve" for text in of_data)]:
        raise ConfigError("serve", faults)
    with tempfile.TemporaryDirectory(prefix="ferhpo-serve-") as folder:
        served, warnings = servable(args.model, Path(folder), stores, args.output_dir, args.config_dir)
        print_warnings(make_console(), warnings)
        say(f"{args.model}: {_local_address(args)}/invocations  (press Ctrl-C to stop). Ask with:")
        say(
            f"  curl {_local_address(args)}/invocations -H 'Content-Type: application/json' "
            """-d "{\\"inputs\\": [\\"$(base64 -w0 face.png)\\"]}\""""
        )
        command = ["models", "serve", "--model-uri", str(served), "--env-manager", "local", "--workers", "1"]
        _run_mlflow([*command, "--host", args.host, "--port", str(args.port)], args.port)


def _local_address(args: argparse.Namespace) -> str:
    return f"http://{'127.0.0.1' if args.host == '0.0.0.0' else args.host}:{args.port}"


def _run_mlflow(arguments: Sequence[str], port: int) -> NoReturn:
    """Run a server of MLflow until it exits, which raises SweepError, or until interrupted: KeyboardInterrupt."""
    # Without job runners and telemetry, the server has 2 processes instead of 15.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    quiet["PYTHONSAFEPATH"] = "1"
    # MLflow calls `uvicorn` by name, which is beside this Python, also if its environment is not activated.
    quiet["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    # MLflow's web server imports from the current folder, so it gets an empty one.
    empty = tempfile.TemporaryDirectory(prefix="ferhpo-ui-")
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *arguments],
        env={**os.environ, **quiet},
        cwd=empty.name,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    threading.Thread(target=_pass_on, args=(server.stdout,), daemon=True).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.wait()
        raise SweepError(f"the MLflow server exited; if port {port} is in use, choose another with --port")
    finally:  # MLflow's command starts the server as a child process, which would outlive it
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(server.pid).children(recursive=True):
                child.terminate()
        server.terminate()
        server.wait()
        empty.cleanup()


def dashboard(args: argparse.Namespace) -> None:
    from ferhpo.storage.study.journal import JOURNAL, read_only_storage
    from ferhpo.storage.sweep import load_sweep

    try:
        from bottle import run
        from optuna_dashboard import wsgi
    except ImportError:
        raise SweepError("optuna-dashboard is not installed; install ferhpo[dashboard]") from None
    storage = read_only_storage(load_sweep(args.name, args.output_dir).folder / JOURNAL)
    say(f"Optuna dashboard: http://{args.host}:{args.port}  (press Ctrl-C to stop)")
    try:
        run(_without_csv(wsgi(storage)), host=args.host, port=args.port)
    except OSError as error:
        raise SweepError(f"port {args.port} cannot be used ({error.strerror}); choose another with --port") from None


def _without_csv(app: Any) -> Any:
    """Return Optuna's dashboard without its CSV files: it writes the texts of a study into them as they are, and a
    spreadsheet takes those that begin with "=" as formulas.
    """

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        if environ.get("PATH_INFO", "").lstrip("/").startswith("csv"):
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"write a table with: ferhpo runs NAME --csv\n"]
        return app(environ, start_response)

    return answer


def _print_links(folder: Path, server: str) -> None:
    """Print the address of each sweep of the folder that is in its store, the newest first."""
    from ferhpo.publish.sweep_run import stored_addresses
    from ferhpo.storage.meta import META
    from ferhpo.storage.sweep import load_sweep

    found = []
    for meta in folder.glob(f"*/{META}"):
        with suppress(FerhpoError, OSError, KeyError, ValueError, TypeError):
            sweep = load_sweep(meta.parent)
            view, _ = stored_addresses(sweep)
            if "{server}" in view:
                found.append((str(sweep.meta["created"]), sweep.name, view.replace("{server}", server)))
    newest = sorted(found, reverse=True)[:MOST_LINKS]
    if newest:
        make_console().print(KeyValues([(f"  {name}", link(view)) for _, name, view in newest]))
        # MLflow 3.17 opens every other page under GenAI, whatever the kind of the experiment, until the user switches.
        say("On other pages, choose Model training at the top left.")


def _pass_on(output: IO[bytes]) -> None:
    """Print what the server says, except for what it says while all is well."""
    for line in output:
        if not _CHATTER.search(line):
            print(printable(line.decode(errors="replace").rstrip("\r\n"), keep="\t"), file=sys.stderr, flush=True)
