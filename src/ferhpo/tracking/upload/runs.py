"""Write the records of a spool to MLflow. Writing a record twice has the same result as writing it once.

- A run is searched by its tag `ferhpo.trial` before it is created.
- Every timestamp comes from the record, because MLflow ignores a repeated metric point only if its time is equal too.
- If the response to create_run is lost, the server may create the run later, when a second one exists already. Such a
  run is listed in `Shipped.in_doubt`, and its duplicates are deleted when it is closed.
- What MLflow calls invalid is entered in rejected.jsonl, and the rest of its batch is written. Every other error means
  that the store is unavailable, and is raised so that the shipper tries again; at the last try it is entered too.

Metrics, parameters and tags have any names: nothing here depends on them, except for `epoch` and `epoch_seconds` of a
fold's epochs.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Dataset, DatasetInput, InputTag, RunTag
from mlflow.exceptions import MlflowException
from requests import HTTPError

from ferhpo.errors import TrackingError
from ferhpo.states import RunState
from ferhpo.tracking.models import log_model
from ferhpo.tracking.spool import Record
from ferhpo.tracking.store import outages, reason_of
from ferhpo.tracking.upload.files import fault_of_name, fault_of_path
from ferhpo.tracking.upload.keys import PARENT, key_of
from ferhpo.tracking.upload.places import PlaceError, log_text, repository
from ferhpo.tracking.upload.rejected import Entry, Rejected
from ferhpo.tracking.upload.shipped import Shipped
from ferhpo.tracking.upload.stored import StoredRuns
from ferhpo.tracking.upload.values import REFUSALS, Values, fold_times, values_of
from ferhpo.tracking.view import KIND_TAG, TAG_PREFIX

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("ferhpo.tracking")

_TOO_LARGE = 413  # the HTTP status for a file above the limit of the server or of a proxy: trying again cannot help
_OPENING = ("open_sweep", "open_trial")
_HEARTBEAT = "ferhpo.uploaded"


class RunWriter:
    """Turn records into MLflow calls, and enter the ids that MLflow assigns into `shipped`."""

    def __init__(self, client: "MlflowClient", experiment_id: str, shipped: Shipped, rejected: Rejected) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.shipped, self.rejected = shipped, rejected
        self.folder = shipped.path.parent
        self.stored = StoredRuns(client, experiment_id, shipped)
        self.values = Values(client, shipped.runs, rejected, self.stored.is_deleted)
        self._artifact_uris: dict[str, str] = {}  # by the id of the run
        self._is_new_sweep = False  # then the store has no run of it that this writer did not create

    def write(self, records: Sequence[Record], stopped: Callable[[], bool], is_last_try: bool = False) -> bool:
        """Upload `records`, in as few calls for each run as possible.

        is_last_try: enter what fails for whatever reason in rejected.jsonl, instead of raising
        Returns False if `stopped` became true: then the same records must be written again. Raises one of
        `store.outages()` if the store is unavailable.
        """
        self.values.clear(is_last_try)
        self.stored.clear()
        for record in records:
            if stopped():
                return False
            try:
                self._write(record)
            except outages() as error:
                is_refusal = isinstance(error, MlflowException) and error.error_code in REFUSALS
                if record["op"] == "open_sweep" or isinstance(error, TrackingError):
                    raise
                if not is_last_try and (not is_refusal or record["op"] == "open_trial"):
                    raise
                if is_refusal:
                    self.stored.check_experiment()
                self._reject_record(record, reason_of(error), set_aside=not is_refusal or record["op"] == "open_trial")
        self.values.flush_all()
        return True

    def write_values(self, record: Record, keys: set[tuple[Any, Any]]) -> None:
        """Write single values of a record again; `keys` has the run's key and its own for each."""
        self.values.clear(is_last_try=True)
        if all(self.stored.has(run) for run, _ in keys):
            self.values.add(record["seq"], (item for item in values_of(record) if (item[0], item[1].key) in keys))
            self.values.flush_all()

    def accepts_others(self) -> bool:
        """Return whether the store accepts a harmless write, so that a record that fails is at fault itself."""
        if not self.stored.has(PARENT):
            return False
        try:
            self.stored.is_deleted(PARENT)
            self.client.set_tag(self.shipped.runs[PARENT], _HEARTBEAT, str(self.shipped.seq))
        except outages():
            return False
        return True

    def _write(self, record: Record) -> None:
        op, time_ms = record["op"], record["time_ms"]
        if op == "open_sweep":
            self.shipped.sweep_id, self.shipped.sweep_name = record["sweep_id"], record["name"]
        run = key_of(record.get("number"))
        if op in _OPENING:
            self._open_run(run, record)
        elif op == "view":
            self.client.set_experiment_tag(self.experiment_id, *KIND_TAG)
            self.client.set_experiment_tag(self.experiment_id, TAG_PREFIX + record["sweep_id"], record["value"])
            return
        elif not self.stored.has(run):
            self._reject_record(record, "its run was not created", set_aside=True)
            return
        if op == "fold":
            self._write_fold(f"{run}/fold{record['fold']}", record)
            return
        self.values.add(record["seq"], values_of(record))
        if op == "close":
            self.values.flush(run)
            state = RunState(record["state"])
            self._terminate(run, state.mlflow_status, time_ms)
            if run != PARENT and state.is_over and state is not RunState.COMPLETE:
                self.client.update_run(self.shipped.runs[run], name=f"{self.shipped.name_of(run)} ({state.lower()})")
            for in_doubt in [name for name in self.shipped.in_doubt if name == run or name.startswith(f"{run}/fold")]:
                self._delete_duplicates(in_doubt)
        elif op == "dataset":
            dataset = Dataset(
                **{key: record["dataset"].get(key) for key in ("name", "digest", "source_type", "source", "profile")}
            )
            tags = [InputTag("mlflow.data.context", record["context"])]
            self.client.log_inputs(self.shipped.runs[run], [DatasetInput(dataset, tags)])
        elif op in ("artifact", "model", "text"):
            self._send_file(run, record)

    def _open_run(self, run: str, record: Record) -> None:
        """Find and reopen the run of a record, or create it."""
        run_id = self.shipped.runs[run] if self.stored.has(run) else None
        mark = self.shipped.mark_of(run)
        if run_id is None and not (self._is_new_sweep and run not in self.shipped.in_doubt):
            found = self.client.search_runs([self.experiment_id], f"tags.`ferhpo.trial` = '{mark}'", max_results=1)
            run_id = found[0].info.run_id if found else None
        if run_id is not None and not self.stored.is_deleted(run_id):
            self.client.update_run(run_id, RunState.RUNNING.mlflow_status, self.shipped.name_of(run))
        else:
            tags = {"ferhpo.trial": mark, "mlflow.source.name": "ferhpo", "mlflow.source.type": "LOCAL"}
            if run != PARENT:
                tags["mlflow.parentRunId"] = self.stored.live_parent(run)
            tags["mlflow.user"] = record.get("user", "")
            try:
                created = self.client.create_run(self.experiment_id, record["time_ms"], tags, self.shipped.name_of(run))
            except outages():
                self.shipped.in_doubt = sorted({*self.shipped.in_doubt, run})
                self.stored.check_experiment()
                raise
            run_id = created.info.run_id
            self._artifact_uris[run_id] = created.info.artifact_uri
            self._is_new_sweep = self._is_new_sweep or (run == PARENT and run not in self.shipped.in_doubt)
        self.stored.enter(run, run_id)

    def _terminate(self, run: str, status: str, time_ms: int) -> None:
        if run == PARENT:
            self.stored.is_deleted(self.shipped.runs[run])  # restores it
        self.client.set_terminated(self.shipped.runs[run], status, time_ms)

    def _delete_duplicates(self, run: str) -> None:
        """Delete the runs that the store created late, from a call whose response was lost; they have no records."""
        marked = f"tags.`ferhpo.trial` = '{self.shipped.mark_of(run)}'"
        for found in self.client.search_runs([self.experiment_id], marked):
            if found.info.run_id != self.shipped.runs.get(run) and not found.data.metrics:
                self.client.delete_run(found.info.run_id)
        self.shipped.in_doubt.remove(run)

    def _write_fold(self, run: str, record: Record) -> None:
        """Write a completed fold, which is one record, as a run that is closed."""
        self._open_run(run, {**record, "time_ms": fold_times(record)[0]})
        # Without the tag ferhpo.sweep_id, by which the sweep's view selects its runs: it shows trials only.
        tags = {"ferhpo.fold": str(record["fold"]), "ferhpo.state": RunState.COMPLETE}
        self.values.add(record["seq"], ((run, RunTag(key, value)) for key, value in tags.items()))
        self.values.add(record["seq"], values_of(record))
        self.values.flush(run)
        if record["path"] is not None:
            self._send_file(run, {**record, "op": "artifact", "folder": "checkpoint"})
        self._terminate(run, "FINISHED", record["time_ms"])

    def _send_file(self, run: str, record: Record) -> None:
        name = record["file"] if record["op"] == "text" else record["path"]
        entry = {"seq": record["seq"], "kind": record["op"], "run": run, "path": name}
        fault = fault_of_name(name if record["op"] == "text" else record.get("folder", ""))
        if record["op"] != "text":
            fault = fault or fault_of_path(self.folder, name)
        if fault:
            self.rejected.add(name, fault, [entry])
            return
        try:
            self._send_path(run, record, self.folder / name)
        except PlaceError as error:
            self.rejected.add(name, str(error), [entry])
        except HTTPError as error:
            if error.response is None or error.response.status_code != _TOO_LARGE:
                raise
            self.rejected.add(name, "too large for the server", [entry])
        except ValueError as error:
            if record["op"] != "model" or isinstance(error, json.JSONDecodeError):  # an HTML page instead of JSON
                raise
            self.rejected.add(name, str(error), [entry])

    def _send_path(self, run: str, record: Record, path: Path) -> None:
        run_id = self.shipped.runs[run]
        if record["op"] == "model":
            mark = f"{self.shipped.sweep_id}/{run}/{record['seq']}"
            self.shipped.models[run] = log_model(
                self.client, self.experiment_id, run_id, path, mark, self.shipped.name_of(run), record["time_ms"]
            )
            return
        if run_id not in self._artifact_uris:
            self._artifact_uris[run_id] = self.client.get_run(run_id).info.artifact_uri
        place = repository(self.client, self._artifact_uris[run_id], run_id)
        if record["op"] == "text":
            log_text(place, record["file"], record["text"])
        elif path.is_dir():
            place.log_artifacts(str(path), record["folder"] or None)
        else:
            place.log_artifact(str(path), record["folder"] or None)

    def _reject_record(self, record: Record, reason: str, *, set_aside: bool) -> None:
        run = key_of(record.get("number"))
        entry: Entry = {"seq": record["seq"], "kind": record["op"], "run": run}
        path = record.get("path") or record.get("file")
        entry |= ({"path": path} if path else {}) | ({"set_aside": True} if set_aside else {})
        names = {"open_trial": f"trial {run}", "close": "the end of a run"}
        name = str(names.get(record["op"], path or record["op"]))
        self.rejected.add(name, reason, [entry])
