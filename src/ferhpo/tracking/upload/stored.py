"""Which runs of a sweep are in its store, and which of them the user deleted."""

import logging
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from ferhpo.errors import TrackingError
from ferhpo.tracking.store import deleted_experiment
from ferhpo.tracking.upload.keys import PARENT
from ferhpo.tracking.upload.shipped import Shipped

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("ferhpo.tracking")


class StoredRuns:
    """Ask the store about the runs whose ids are in `shipped`, each as rarely as possible."""

    def __init__(self, client: "MlflowClient", experiment_id: str, shipped: Shipped) -> None:
        self.client, self.experiment_id, self.shipped = client, experiment_id, shipped
        self._own: set[str] = set()  # keys of runs that are known to be this sweep's
        self._live: set[str] = set()  # runs that were not deleted after the last `clear`

    def clear(self) -> None:
        """Forget which runs were not deleted."""
        self._live.clear()

    def enter(self, run: str, run_id: str) -> None:
        """Enter the id of a run that was created, or found by its tag."""
        self.shipped.runs[run] = run_id
        self._own.add(run)

    def has(self, run: str) -> bool:
        """Return whether the run of a key was created. A run of another sweep is not, whatever spool.shipped.json says.

        A run that the store lacks counts as created: what that means depends on what is done with it.
        """
        if run in self.shipped.runs and run not in self._own:
            try:
                tags = self.client.get_run(self.shipped.runs[run]).data.tags
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return True
            if tags.get("ferhpo.trial") == self.shipped.mark_of(run):
                self._own.add(run)
            else:
                del self.shipped.runs[run]
        return run in self.shipped.runs

    def live_parent(self, run: str) -> str:
        """Return the id of the run above `run`. A sweep's run that was deleted is restored first."""
        above = self.shipped.runs[run.rpartition("/")[0]]
        if above not in self._live and self.is_deleted(above):
            raise MlflowException("the run of its trial was deleted", error_code=RESOURCE_DOES_NOT_EXIST)
        self._live.add(above)
        return above

    def is_deleted(self, run: str) -> bool:
        """Return whether the user deleted a run, given by its key or id; a deleted parent run is restored.

        Raises TrackingError if the experiment was deleted, or if the store does not have this sweep.
        """
        parent = self.shipped.runs.get(PARENT)
        run_id = self.shipped.runs.get(run, run)
        try:
            is_deleted = bool(self.client.get_run(run_id).info.lifecycle_stage != "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            if run_id == parent:
                raise TrackingError(
                    "the store does not have this sweep's parent run; start the server with its previous database, "
                    f"or delete {self.shipped.path} to upload all records to this one"
                ) from None
            if parent is not None:
                self.is_deleted(parent)
            return True
        if is_deleted:
            self.check_experiment()  # deleting an experiment deletes its runs, and restoring it restores them
        if is_deleted and run_id == parent:
            self.client.restore_run(run_id)
            log.warning(
                "tracking: the sweep's run in MLflow was deleted; it is restored, because its trials belong to it"
            )
            return False
        return is_deleted

    def check_experiment(self) -> None:
        """Raise TrackingError if the experiment was deleted meanwhile."""
        experiment = self.client.get_experiment(self.experiment_id)
        if experiment.lifecycle_stage != "active":
            raise deleted_experiment(experiment.name)
