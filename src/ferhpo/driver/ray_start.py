"""Start Ray in a thread while the driver loads the data set. Importing this module does not import Ray."""

import os
import threading

from ferhpo.config import ComputeSettings
from ferhpo.driver.processes.reaper import Reaper, child_raylets
from ferhpo.errors import ClusterError


class RayStart:
    """Start Ray in a thread; `result` waits for it and raises its error.

    The thread never ends, because Linux ends Ray's processes together with the thread that started them
    (PR_SET_PDEATHSIG). Leaving the `with` block stops Ray unless it was running before: the next sweep of this process
    may need other resources.
    """

    def __init__(self, compute: ComputeSettings) -> None:
        self.is_ours, self.is_joined = False, compute.address is not None
        self.error: Exception | None = None
        self.reaper: Reaper | None = None
        self.done = threading.Event()
        threading.Thread(target=self._work, args=(compute,), daemon=True, name="ray-start").start()

    def _work(self, compute: ComputeSettings) -> None:
        if compute.address is None:  # read by Ray at import; its local servers then listen on 127.0.0.1 only
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
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

    def wait_if_joined(self) -> None:
        """Wait if Ray is an existing cluster: if it cannot be reached, no folder must be created."""
        if self.is_joined:
            self.result()

    def result(self) -> None:
        """Wait until Ray has started. Raises whatever its start raised."""
        self.done.wait()
        if self.error is not None:
            raise self.error
