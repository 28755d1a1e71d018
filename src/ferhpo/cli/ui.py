"""The verb `ui`: serve the MLflow UI of an output folder's store."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

from ferhpo.errors import SweepError


def ui(output_dir: str = "mlruns", host: str = "127.0.0.1", port: int = 5000) -> NoReturn:
    """Serve the MLflow UI of an output folder's store until interrupted, which raises KeyboardInterrupt.

    Raises SweepError if there is no store, or if the server exits.
    """
    from ferhpo.tracking import TrackingSettings
    from ferhpo.tracking.moved import follow_move

    settings = TrackingSettings(output_dir=Path(output_dir))
    if settings.sqlite_path is None or not settings.sqlite_path.exists() or not settings.sqlite_path.stat().st_size:
        raise SweepError(f"there is no MLflow store at {settings.shown_uri}; run a sweep first, or set --output-dir")
    follow_move(settings)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", settings.store_uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    # Without job runners and telemetry, the server has 2 processes instead of 15.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    print(f"MLflow UI: http://{host}:{port}  (press Ctrl-C to stop)", flush=True)
    server = subprocess.Popen(command, env={**os.environ, **quiet})
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
