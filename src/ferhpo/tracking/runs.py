"""Writes the records of a spool into MLflow, so that writing them again changes nothing.

A run is looked for by its tag `ferhpo.trial` before it is made, and every timestamp comes from the record: MLflow drops
a metric point only if its time is the same too. A server that gave no answer to "make a run" may still make it, even
after we made another: such a run is looked for again when it ends. What MLflow calls invalid goes to rejected.jsonl,
alone; everything else that fails is an outage, and is raised for the shipper to try again.

Runs are called "" (the sweep's), "7" (a trial's) and "7/fold0" (a fold's) here: what stands before the last / is the
run above.
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
from ferhpo.tracking.view import TAG_PREFIX

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("ferhpo.tracking")

MAX_METRICS, MAX_PARAMS, MAX_TAGS = 1000, 100, 100  # MLflow's limits for one log_batch, and 1,000 of all together
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
_TOO_LARGE = 413  # HTTP's word for a file that a server, or a proxy before it, will never take
_NUM_REFUSED = 8  # values of a batch refused one by one, and none taken: then the rest of it is refused too
_PARENT = ""

Item = tuple[int, Metric | Param | RunTag]


class RunWriter:
    """Turns records into MLflow calls; `shipped` learns the ids on the way."""

    def __init__(self, client: "MlflowClient", experiment_id: str, shipped: Shipped) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.shipped = shipped
        self.folder = shipped.path.parent
        self.pending: dict[str, list[Item]] = {}
        self.warned: set[tuple[str, str | None]] = set()

    def write(self, records: Sequence[Record], stopped: Callable[[], bool]) -> bool:
        """Ship `records`, those of one run together; False if it was stopped meanwhile, and is to be done again.

        Raises MlflowException or OSError if the store is away.
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
                self._set_aside(record["op"], reason_of(error), [{"seq": record["seq"], "kind": record["op"]}])
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
            self.client.set_terminated(self.shipped.runs[run], RunState(record["state"]).mlflow_status, time_ms)
            for in_doubt in [name for name in self.shipped.in_doubt if name == run or name.startswith(f"{run}/fold")]:
                self._remove_twins(in_doubt)
        elif op == "fold":
            self._write_fold(f"{run}/fold{record['fold']}", record)
        elif op == "dataset":
            dataset = Dataset(**record["dataset"])
            tags = [InputTag("mlflow.data.context", record["context"])]
            self.client.log_inputs(self.shipped.runs[run], [DatasetInput(dataset, tags)])
        elif op in ("artifact", "model", "text"):
            self._send_file(run, record)
        elif op == "view":
            self.client.set_experiment_tag(self.experiment_id, TAG_PREFIX + record["sweep_id"], record["value"])

    def _open_run(self, run: str, record: Record) -> None:
        """Find, reopen or make the run of a record."""
        run_id = self.shipped.runs.get(run)
        mark = self._mark(run)
        if run_id is None:
            found = self.client.search_runs([self.experiment_id], f"tags.`ferhpo.trial` = '{mark}'", max_results=1)
            run_id = found[0].info.run_id if found else None
        if run_id is not None and not self._run_is_gone(run_id):
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
        """What MLflow shows the run as, like demo-007."""
        number, _, fold = run.partition("/")
        parts = [self.shipped.sweep_name, f"{int(number):03d}" if number else "", fold]
        return "-".join(part for part in parts if part)

    def _mark(self, run: str) -> str:
        """The run's tag `ferhpo.trial`."""
        return f"{self.shipped.sweep_id}/{run or 'parent'}"

    def _remove_twins(self, run: str) -> None:
        """Delete runs that the store made after all, long after it was asked to: ours has the records."""
        for twin in self.client.search_runs([self.experiment_id], f"tags.`ferhpo.trial` = '{self._mark(run)}'"):
            if twin.info.run_id != self.shipped.runs[run]:
                self.client.delete_run(twin.info.run_id)
        self.shipped.in_doubt.remove(run)

    def _write_fold(self, run: str, record: Record) -> None:
        """A fold that has ended, from its one record to a run that has ended.

        Its epochs get the times at which they ended, counted back by their seconds.
        """
        times_ms, time_ms = [], record["time_ms"]
        for row in reversed(record["epochs"]):
            times_ms.append(time_ms)
            time_ms -= round(1000 * row.get("epoch_seconds", 0.0))
        self._open_run(run, {**record, "time_ms": time_ms})
        # Without the tag ferhpo.sweep_id: the sweep's view shows trials.
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
                self._set_aside(name, "the file was gone before it was shipped", [entry])
            else:
                self._send_path(run, record, self.folder / name)  # an absolute path stays as it is
        except HTTPError as error:
            if error.response is None or error.response.status_code != _TOO_LARGE:
                raise
            self._set_aside(name, "too large for the server", [entry])
        except ValueError as error:
            if record["op"] != "model" or isinstance(error, json.JSONDecodeError):  # a page where JSON should be
                raise
            self._set_aside(name, str(error), [entry])

    def _send_path(self, run: str, record: Record, path: Path) -> None:
        run_id = self.shipped.runs[run]
        if record["op"] == "model":
            mark = f"{self.shipped.sweep_id}/{run}/{record['seq']}"
            self.shipped.models[run] = log_model(self.client, self.experiment_id, run_id, path, mark)
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
            if isinstance(entity, Param):  # twice in one call is refused even with one value; a resumed trial does that
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
        """One log_batch; where MLflow refuses it, halves of it, until what it refuses stands alone."""
        parts, num_refused, taken = [items], 0, False
        gone: bool | None = None
        while parts:
            part = parts.pop()
            refusal = self._log_batch(run, part)
            if refusal is None:
                taken = True
                continue
            if gone is None:
                gone = self._run_is_gone(self.shipped.runs[run])
            entries = [_as_json(seq, run, entity) for seq, entity in part]
            if gone:
                self._set_aside(f"{len(part)} values of a deleted run", reason_of(refusal), entries)
            elif len(part) == 1 or (num_refused >= _NUM_REFUSED and not taken):
                num_refused += 1
                what = part[0][1].key if len(part) == 1 else f"{len(part)} values"
                self._set_aside(f"{what} of {self._name(run)}", reason_of(refusal), entries)
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]  # the first half is taken up next

    def _log_batch(self, run: str, items: list[Item]) -> MlflowException | None:
        """Log `items` and return MLflow's refusal, where it refuses them."""
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

    def _run_is_gone(self, run_id: str) -> bool:
        """Whether a person deleted the run. Raises TrackingError where the store knows nothing of this sweep."""
        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage != "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            if run_id == self.shipped.runs[_PARENT]:
                raise TrackingError(
                    "the store does not have this sweep's parent run; start it with its old database, "
                    f"or delete {self.shipped.path} to ship everything to this one"
                ) from None
            self._run_is_gone(self.shipped.runs[_PARENT])
            return True

    def _set_aside(self, what: str, reason: str, entries: Sequence[dict[str, Any]]) -> None:
        """Keep in rejected.jsonl, once, what MLflow will not have; warn of the first of a run, or of a reason."""
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
            log.warning("tracking: MLflow does not have %s (%s); kept in %s", redact(what), redact(reason), path)
        self.warned |= topics


def _as_json(seq: int, run: str, entity: Metric | Param | RunTag) -> dict[str, Any]:
    return {"seq": seq, "kind": type(entity).__name__.lower(), "run": run, "key": entity.key, "value": entity.value}
