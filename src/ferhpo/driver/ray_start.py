"""Start Ray in a thread while the driver reads the data. Importing this module does not import Ray."""

import os
import threading

from ferhpo.config import ComputeSettings


class RayStart:
    """Starts Ray in a thread while the driver reads data; `result` waits for it and raises what it raised.

    The thread stays: Linux ends Ray's processes with the thread that started them (PR_SET_PDEATHSIG). The end of the
    block stops Ray, unless it ran before: the next sweep of this process may want other resources.
    """

    def __init__(self, compute: ComputeSettings) -> None:
        self.is_ours, self.is_joined = False, compute.address is not None
        self.error: Exception | None = None
        self.done = threading.Event()
        threading.Thread(target=self._work, args=(compute,), daemon=True, name="ray-start").start()

    def _work(self, compute: ComputeSettings) -> None:
        if compute.address is None:  # read at Ray's import: its servers of this machine then listen on 127.0.0.1 only
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        try:
            from ferhpo.driver import ray_cluster

            self.is_ours = ray_cluster.start_ray(compute)
        except Exception as error:  # `result` raises it
            self.error = error
        finally:
            self.done.set()
        threading.Event().wait()

    def __enter__(self) -> "RayStart":
        return self

    def __exit__(self, *error: object) -> None:
        self.done.wait()
        if self.is_ours:
            from ferhpo.driver import ray_cluster

            ray_cluster.stop_ray()

    def wait_if_joined(self) -> None:
        """Wait where Ray is another's cluster: one that is away is said before anything is made on disk."""
        if self.is_joined:
            self.result()

    def result(self) -> None:
        self.done.wait()
        if self.error is not None:
            raise self.error
