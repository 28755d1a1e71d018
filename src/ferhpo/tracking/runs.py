"""Write the records of a spool to MLflow. Writing a record twice has the same result as writing it once.

- A run is searched by its tag `ferhpo.trial` before it is created.
- Every timestamp comes from the record, because MLflow ignores a repeated metric point only if its time is equal too.
- If the response to create_run is lost, the server may create the run later, when a second one exists already. Such a
  run is listed in `Shipped.in_doubt`, and its duplicates are deleted when it is closed.
- A value that MLflow calls invalid is written to rejected.jsonl, and the rest of its batch to MLflow. Every other error
  means that the store is unavailable, and is raised so that the shipper tries again.

Runs have keys: "" is the parent run, "7" the run of trial 7, "7/fold0" the run of its first fold, below that of the
trial. Metrics, parameters and tags have any names: nothing here depends on them, except for `epoch` and `epoch_seconds`
of a fold's epochs.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from requests import HTTPError

from ferhpo.errors import TrackingError
from ferhpo.states import RunState
from ferhpo.tracking.models import log_model
from ferhpo.tracking.secrets import redact
from ferhpo.tracking.spool import REJECTED, Record, Shipped
from ferhpo.tracking.store import outages, reason_of
from ferhpo.tracking.view import KIND_TAG, TAG_PREFIX

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("ferhpo.tracking")

MAX_METRICS, MAX_PARAMS, MAX_TAGS = 1000, 100, 100  # MLflow's limits of one log_batch; the limit of their sum is 1,000
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
_TOO_LARGE = 413  # the HTTP status for a file above the limit of the server or of a proxy: trying again cannot help
_MAX_REFUSED = 8  # values of a batch refused one by one while none was accepted: then the rest is rejected together
_PARENT = ""

Item = tuple[int, Metric | Param | RunTag]


class RunWriter:
    """Turn records into MLflow calls, and enter the ids that MLflow assigns into `shipped`."""

    def __init__(self, client: "MlflowClient", experiment_id: str, shipped: Shipped) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.shipped = shipped
        self.folder = shipped.path.parent
        self.pending: dict[str, list[Item]] = {}
        self.warned: set[tuple[str, str | None]] = set()

    def write(self, records: Sequence[Record], stopped: Callable[[], bool]) -> bool:
        """Upload `records`, in as few calls for each run as possible.

        Returns False if `stopped` became true: then the same records must be written again. Raises one of
        `store.outages()` if the store is unavailable.
        """
        self.pending = {}
        for record in records:
            if stopped():
                return False
            try:
                self._write(record)
            except MlflowException as error:
                if error.error_code not in _REFUSALS or record["op"] in ("open_sweep", "open_trial"):
                    raise
                self._reject(record["op"], reason_of(error), [{"seq": record["seq"], "kind": record["op"]}])
        for run in list(self.pending):
            self._flush(run)
        return True

    def _write(self, record: Record) -> None:
        op, time_ms = record["op"], record["time_ms"]
        if op == "open_sweep":
            self.shipped.sweep_id, self.shipped.sweep_name = record["sweep_id"], record["name"]
        run = _PARENT if record.get("number") is None else str(record["number"])
        if op in ("open_sweep", "open_trial"):
            self._open_run(run, record)
        if op in ("open_sweep", "open_trial", "tags", "close"):
            self._add(run, record, (RunTag(key, value) for key, value in record["tags"].items()))
        if op in ("open_sweep", "open_trial"):
            self._add(run, record, (Param(key, value) for key, value in record["params"].items()))
        elif op == "metrics":
            values = record["values"].items()
            self._add(run, record, (Metric(key, value, time_ms, record["step"]) for key, value in values))
        elif op == "close":
            self._flush(run)
            state = RunState(record["state"])
            self.client.set_terminated(self.shipped.runs[run], state.mlflow_status, time_ms)
            if run != _PARENT and state.is_over and state is not RunState.COMPLETE:
                self.client.update_run(self.shipped.runs[run], name=f"{self._name(run)} ({state.lower()})")
            for in_doubt in [name for name in self.shipped.in_doubt if name == run or name.startswith(f"{run}/fold")]:
                self._delete_duplicates(in_doubt)
        elif op == "fold":
            self._write_fold(f"{run}/fold{record['fold']}", record)
        elif op == "dataset":
            dataset = Dataset(**record["dataset"])
            tags = [InputTag("mlflow.data.context", record["context"])]
            self.client.log_inputs(self.shipped.runs[run], [DatasetInput(dataset, tags)])
        elif op in ("artifact", "model", "text"):
            self._send_file(run, record)
        elif op == "view":
            self.client.set_experiment_tag(self.experiment_id, *KIND_TAG)
            self.client.set_experiment_tag(self.experiment_id, TAG_PREFIX + record["sweep_id"], record["value"])

    def _open_run(self, run: str, record: Record) -> None:
        """Find and reopen the run of a record, or create it."""
        run_id = self.shipped.runs.get(run)
        mark = self._mark(run)
        if run_id is None:
            found = self.client.search_runs([self.experiment_id], f"tags.`ferhpo.trial` = '{mark}'", max_results=1)
            run_id = found[0].info.run_id if found else None
        if run_id is not None and not self._is_deleted(run_id):
            self.client.update_run(run_id, status=RunState.RUNNING.mlflow_status)
        else:
            tags = {"ferhpo.trial": mark, "mlflow.source.name": "ferhpo", "mlflow.source.type": "LOCAL"}
            if run != _PARENT:
                tags["mlflow.parentRunId"] = self.shipped.runs[run.rpartition("/")[0]]
            tags["mlflow.user"] = record["user"]
            try:
                created = self.client.create_run(self.experiment_id, record["time_ms"], tags, self._name(run))
            except outages():
                self.shipped.in_doubt = sorted({*self.shipped.in_doubt, run})
                raise
            run_id = created.info.run_id
        self.shipped.runs[run] = run_id

    def _name(self, run: str) -> str:
        """Return the run's name in MLflow, e.g. demo-007."""
        number, _, fold = run.partition("/")
        parts = [self.shipped.sweep_name, f"{int(number):03d}" if number else "", fold]
        return "-".join(part for part in parts if part)

    def _mark(self, run: str) -> str:
        """Return the value of the run's tag `ferhpo.trial`, which identifies it in the store."""
        return f"{self.shipped.sweep_id}/{run or 'parent'}"

    def _delete_duplicates(self, run: str) -> None:
        """Delete the runs that the store created late, from a call whose response was lost; they have no records."""
        for found in self.client.search_runs([self.experiment_id], f"tags.`ferhpo.trial` = '{self._mark(run)}'"):
            if found.info.run_id != self.shipped.runs[run]:
                self.client.delete_run(found.info.run_id)
        self.shipped.in_doubt.remove(run)

    def _write_fold(self, run: str, record: Record) -> None:
        """Write a completed fold, which is one record, as a run that is closed.

        The time of an epoch is that of the record less the `epoch_seconds` of the epochs that followed.
        """
        times_ms, time_ms = [], record["time_ms"]
        for row in reversed(record["epochs"]):
            times_ms.append(time_ms)
            time_ms -= round(1000 * row.get("epoch_seconds", 0.0))
        self._open_run(run, {**record, "time_ms": time_ms})
        # Without the tag ferhpo.sweep_id, by which the sweep's view selects its runs: it shows trials only.
        tags = {"ferhpo.fold": str(record["fold"]), "ferhpo.state": RunState.COMPLETE}
        self._add(run, record, (RunTag(key, value) for key, value in tags.items()))
        for row, ended_ms in zip(record["epochs"], reversed(times_ms), strict=True):
            values = ((key, value) for key, value in row.items() if key != "epoch")
            self._add(run, record, (Metric(key, value, ended_ms, int(row["epoch"])) for key, value in values))
        self._add(run, record, (Metric(key, value, record["time_ms"], 0) for key, value in record["once"].items()))
        self._flush(run)
        if record["path"] is not None:
            self._send_file(run, {**record, "op": "artifact", "folder": "checkpoint"})
        self.client.set_terminated(self.shipped.runs[run], "FINISHED", record["time_ms"])

    def _send_file(self, run: str, record: Record) -> None:
        name = record["file"] if record["op"] == "text" else record["path"]
        entry = {"seq": record["seq"], "kind": record["op"], "path": name}
        try:
            if record["op"] == "text":
                self.client.log_text(self.shipped.runs[run], record["text"], name)
            elif not (self.folder / name).exists():
                self._reject(name, "the file was removed before it was uploaded", [entry])
            else:
                self._send_path(run, record, self.folder / name)  # name may be absolute
        except HTTPError as error:
            if error.response is None or error.response.status_code != _TOO_LARGE:
                raise
            self._reject(name, "too large for the server", [entry])
        except ValueError as error:
            if record["op"] != "model" or isinstance(error, json.JSONDecodeError):  # an HTML page instead of JSON
                raise
            self._reject(name, str(error), [entry])

    def _send_path(self, run: str, record: Record, path: Path) -> None:
        run_id = self.shipped.runs[run]
        if record["op"] == "model":
            mark = f"{self.shipped.sweep_id}/{run}/{record['seq']}"
            self.shipped.models[run] = log_model(
                self.client, self.experiment_id, run_id, path, mark, self._name(run), record["time_ms"]
            )
        elif path.is_dir():
            self.client.log_artifacts(run_id, str(path), record["folder"] or None)
        else:
            self.client.log_artifact(run_id, str(path), record["folder"] or None)

    def _add(self, run: str, record: Record, entities: Iterable[Metric | Param | RunTag]) -> None:
        self.pending.setdefault(run, []).extend((record["seq"], entity) for entity in entities)

    def _flush(self, run: str) -> None:
        items = self.pending.pop(run, [])
        metrics = [item for item in items if isinstance(item[1], Metric)]
        first_params: dict[tuple[str, str], Item] = {}
        for seq, entity in items:
            if isinstance(entity, Param):  # MLflow refuses a repeated parameter in one call; a resumed trial has them
                first_params.setdefault((entity.key, entity.value), (seq, entity))
        params = list(first_params.values())
        latest_tags = {item[1].key: item for item in items if isinstance(item[1], RunTag)}
        tags = list(latest_tags.values())
        while metrics or params or tags:
            num_others = len(params[:MAX_PARAMS]) + len(tags[:MAX_TAGS])
            num_metrics = MAX_METRICS - num_others
            self._send(run, [*params[:MAX_PARAMS], *tags[:MAX_TAGS], *metrics[:num_metrics]])
            metrics, params, tags = metrics[num_metrics:], params[MAX_PARAMS:], tags[MAX_TAGS:]

    def _send(self, run: str, items: list[Item]) -> None:
        """Log `items` in one call; if MLflow refuses it, bisect until only the invalid values are rejected."""
        parts, num_refused, any_accepted = [items], 0, False
        is_deleted: bool | None = None
        while parts:
            part = parts.pop()
            refusal = self._log_batch(run, part)
            if refusal is None:
                any_accepted = True
                continue
            if is_deleted is None:
                is_deleted = self._is_deleted(self.shipped.runs[run])
            entries = [_as_json(seq, run, entity) for seq, entity in part]
            if is_deleted:
                self._reject(f"{len(part)} values of a deleted run", reason_of(refusal), entries)
            elif len(part) == 1 or (num_refused >= _MAX_REFUSED and not any_accepted):
                num_refused += 1
                what = part[0][1].key if len(part) == 1 else f"{len(part)} values"
                self._reject(f"{what} of {self._name(run)}", reason_of(refusal), entries)
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]  # the first half is next

    def _log_batch(self, run: str, items: list[Item]) -> MlflowException | None:
        """Log `items`; return MLflow's error if it refuses them, else None."""
        try:
            self.client.log_batch(
                self.shipped.runs[run],
                metrics=[entity for _, entity in items if isinstance(entity, Metric)],
                params=[entity for _, entity in items if isinstance(entity, Param)],
                tags=[entity for _, entity in items if isinstance(entity, RunTag)],
                synchronous=True,
            )
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            return error
        return None

    def _is_deleted(self, run_id: str) -> bool:
        """Return whether the user deleted the run. Raises TrackingError if the store does not have this sweep."""
        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage != "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            if run_id == self.shipped.runs[_PARENT]:
                raise TrackingError(
                    "the store does not have this sweep's parent run; start the server with its previous database, "
                    f"or delete {self.shipped.path} to upload all records to this one"
                ) from None
            self._is_deleted(self.shipped.runs[_PARENT])
            return True

    def _reject(self, what: str, reason: str, entries: Sequence[dict[str, Any]]) -> None:
        """Append refused values or files to rejected.jsonl, each once; warn once for each run and for each reason."""
        path = self.folder / REJECTED
        known = set(path.read_text().splitlines()) if path.exists() else set()
        lines = [redact(json.dumps({**entry, "reason": reason})) for entry in entries]
        new = [line for line in lines if line not in known]
        if not new:
            return
        with path.open("a") as file:
            file.writelines(f"{line}\n" for line in new)
        topics = {(entries[0]["kind"], entries[0].get("run")), (entries[0]["kind"], reason)}
        if topics.isdisjoint(self.warned):
            log.warning("tracking: cannot upload %s: %s; recorded in %s", redact(what), redact(reason), path)
        self.warned |= topics


def _as_json(seq: int, run: str, entity: Metric | Param | RunTag) -> dict[str, Any]:
    return {"seq": seq, "kind": type(entity).__name__.lower(), "run": run, "key": entity.key, "value": entity.value}
