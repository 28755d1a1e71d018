"""Start Ray in a thread while the driver loads the data set. Importing this module does not import Ray."""

import os
import secrets
import tempfile
import threading
from pathlib import Path

from ferhpo.config import ComputeSettings
from ferhpo.driver.processes.mps import Mps
from ferhpo.driver.processes.reaper import Reaper, child_raylets
from ferhpo.errors import ClusterError, FerhpoError

MOST_SOCKET_BYTES = 107  # of the path of a socket on Linux
# Ray adds this to its temporary folder, with the id of this process.
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_{}/sockets/plasma_store"


class RayStart:
    """Start Ray in a thread; `result` waits for it and raises its error.

    The thread never ends, because Linux ends Ray's processes together with the thread that started them
    (PR_SET_PDEATHSIG). Leaving the `with` block stops Ray unless it was running before: the next sweep of this process
    may need other resources.
    """

    def __init__(self, compute: ComputeSettings) -> None:
        if compute.address is None:
            _check_temporary_folder()
        self.is_ours, self.is_joined = False, compute.address is not None
        self.error: Exception | None = None
        self.reaper: Reaper | None = None
        self.mps = Mps(compute)
        self.done = threading.Event()
        threading.Thread(target=self._work, args=(compute,), daemon=True, name="ray-start").start()

    def _work(self, compute: ComputeSettings) -> None:
        if compute.address is None:  # read by Ray at import; its local servers then listen on 127.0.0.1 only
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
            _give_token()
        try:
            from ferhpo.driver import ray_cluster

            self.is_ours = ray_cluster.start_ray(compute)
            if self.is_ours and not self.is_joined:
                self.reaper = Reaper(child_raylets())
        except Exception as error:  # `result` raises it
            self.error = error
        finally:
            self.done.set()
        threading.Event().wait()

    def __enter__(self) -> "RayStart":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.done.wait()
        if self.is_ours:
            from ferhpo.driver import ray_cluster

            if isinstance(error, ClusterError):
                ray_cluster.abandon_ray()
            else:
                ray_cluster.stop_ray()
        if self.reaper is not None:
            self.reaper.close()
        self.mps.close()

    def wait_if_joined(self) -> None:
        """Wait if Ray is an existing cluster: if it cannot be reached, no folder must be created."""
        if self.is_joined:
            self.result()

    def result(self) -> None:
        """Wait until Ray has started. Raises whatever its start raised."""
        self.done.wait()
        if self.error is not None:
            raise self.error


def _give_token() -> None:
    """Set a token for Ray's processes if Ray cannot write one to ~/.ray, e.g. in a container without a home folder."""
    if any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE")):
        return
    try:
        folder = Path.home() / ".ray"
        if not (folder / "auth_token").exists():
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # RuntimeError: this user has no home folder
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _check_temporary_folder() -> None:
    """Raise FerhpoError if the paths of Ray's sockets would be too long in the temporary folder."""
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "TMPDIR")
    folder = os.environ.get(name) or tempfile.gettempdir()
    most = MOST_SOCKET_BYTES - len(_SOCKET.format(os.getpid()))
    if len(os.fsencode(folder)) > most:
        raise FerhpoError(
            f"{name} is {folder}, with {len(os.fsencode(folder))} bytes; Ray's sockets are in it, so that it must have "
            f"at most {most}; set RAY_TMPDIR to a short folder, e.g. RAY_TMPDIR=/tmp"
        )
