"""The verb `ui`: serve the MLflow UI of an output folder's store."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

import psutil

from ferhpo.cli.screen.console import link, make_console, say
from ferhpo.cli.screen.grid import KeyValues
from ferhpo.errors import FerhpoError, SweepError, printable

MOST_LINKS = 20
# What MLflow and its server print while all is well
_CHATTER = re.compile(rb"Registry store URI not provided|\[MLflow\]|\b(INFO|DEBUG|WARNING)\b|Warning: |^\s*$")


def ui(output_dir: str = "mlruns", host: str = "127.0.0.1", port: int = 5000) -> NoReturn:
    """Serve the MLflow UI of an output folder's store until interrupted, which raises KeyboardInterrupt.

    Raises SweepError if there is no store, if it names artifacts elsewhere, or if the server exits.
    """
    from ferhpo.tracking import TrackingSettings, trust_fault
    from ferhpo.tracking.moved import follow_move, named_places
    from ferhpo.tracking.upload.places import fault_of_owner

    settings = TrackingSettings(output_dir=Path(output_dir))
    if settings.sqlite_path is None or not settings.sqlite_path.exists() or not settings.sqlite_path.stat().st_size:
        raise SweepError(f"there is no MLflow store at {settings.shown_uri}; run a sweep first, or set --output-dir")
    if fault := trust_fault(settings):
        raise SweepError(fault)
    follow_move(settings)
    # The server would read what a run names, with the accounts of the environment, for whoever opens the page.
    if fault := next(filter(None, (fault_of_owner(p, settings.store_uri, "read") for p in named_places(settings))), ""):
        raise SweepError(fault)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", settings.store_uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", str(settings.artifact_root)]  # by default in the current folder
    # Without job runners and telemetry, the server has 2 processes instead of 15.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    quiet["PYTHONSAFEPATH"] = "1"
    address = f"http://{host}:{port}"
    say(f"MLflow UI: {address}  (press Ctrl-C to stop)")
    _print_links(Path(output_dir), "http://127.0.0.1:" + str(port) if host == "0.0.0.0" else address)
    # MLflow's web server imports from the current folder, so it gets an empty one.
    empty = tempfile.TemporaryDirectory(prefix="ferhpo-ui-")
    server = subprocess.Popen(
        command, env={**os.environ, **quiet}, cwd=empty.name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
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
