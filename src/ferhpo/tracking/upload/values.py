"""Upload the metrics, parameters and tags of records, in as few calls for each run as possible."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from ferhpo.tracking.spool import Record
from ferhpo.tracking.store import outages, reason_of
from ferhpo.tracking.upload.keys import key_of
from ferhpo.tracking.upload.rejected import Rejected

if TYPE_CHECKING:
    from mlflow import MlflowClient

REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
MAX_METRICS, MAX_PARAMS, MAX_TAGS = 1000, 100, 100  # MLflow's limits of one log_batch; the limit of their sum is 1,000
_MAX_REFUSED = 8  # values of a batch refused one by one while none was accepted: then the rest is rejected together

Value = Metric | Param | RunTag
Item = tuple[int, Value]  # with the seq of its record


def values_of(record: Record) -> Iterable[tuple[str, Value]]:
    """Return the values of a record, each with the key of its run. Nothing for records of files."""
    op, time_ms = record["op"], record["time_ms"]
    run = key_of(record.get("number"))
    if op in ("open_sweep", "open_trial", "tags", "close"):
        yield from ((run, RunTag(key, value)) for key, value in record["tags"].items())
    if op in ("open_sweep", "open_trial"):
        yield from ((run, Param(key, value)) for key, value in record["params"].items())
    elif op == "metrics":
        yield from ((run, Metric(key, value, time_ms, record["step"])) for key, value in record["values"].items())
    elif op == "fold":
        fold = f"{run}/fold{record['fold']}"
        for row, ended_ms in zip(record["epochs"], fold_times(record)[1:], strict=True):
            values = ((key, value) for key, value in row.items() if key != "epoch")
            yield from ((fold, Metric(key, value, ended_ms, int(row["epoch"]))) for key, value in values)
        yield from ((fold, Metric(key, value, time_ms, 0)) for key, value in record["once"].items())


def fold_times(record: Record) -> list[int]:
    """Return the times of the start of a fold and of the end of each of its epochs, in milliseconds.

    The time of an epoch is that of the record less the `epoch_seconds` of the epochs that followed.
    """
    times_ms = [record["time_ms"]]
    for row in reversed(record["epochs"]):
        times_ms.append(times_ms[-1] - round(1000 * row.get("epoch_seconds", 0.0)))
    return times_ms[::-1]


class Values:
    """Collect values, and log those of a run in `flush`.

    is_deleted: returns whether a run was deleted; raises if the store is not the sweep's, or its experiment was deleted
    """

    def __init__(
        self,
        client: "MlflowClient",
        run_ids: dict[str, str],
        rejected: Rejected,
        is_deleted: Callable[[str], bool],
    ) -> None:
        self.client, self.run_ids, self.rejected, self.is_deleted = client, run_ids, rejected, is_deleted
        self.is_last_try = False  # every error counts as a refusal of the values, not as an outage
        self._pending: dict[str, list[Item]] = {}

    def clear(self, is_last_try: bool) -> None:
        """Forget all values that were not logged."""
        self._pending, self.is_last_try = {}, is_last_try

    def add(self, seq: int, values: Iterable[tuple[str, Value]]) -> None:
        """Collect values, each with the key of its run."""
        for run, value in values:
            self._pending.setdefault(run, []).append((seq, value))

    def flush_all(self) -> None:
        """Log everything that was collected."""
        for run in list(self._pending):
            self.flush(run)

    def flush(self, run: str) -> None:
        """Log what was collected for a run."""
        items = self._pending.pop(run, [])
        metrics = [item for item in items if isinstance(item[1], Metric)]
        first_params: dict[tuple[str, str], Item] = {}
        for seq, value in items:
            if isinstance(value, Param):  # MLflow refuses a repeated parameter in one call; a resumed trial has them
                first_params.setdefault((value.key, value.value), (seq, value))
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
                is_deleted = self.is_deleted(run)
                if run == "":  # it may have been deleted, and is restored by now
                    parts.append(part)
                    continue
            entries = [_as_json(seq, run, value) for seq, value in part]
            if not _is_refusal(refusal):
                entries = [{**entry, "set_aside": True} for entry in entries]
            if is_deleted:
                self.rejected.add(f"{len(part)} values of a deleted run", reason_of(refusal), entries)
            elif len(part) == 1 or (num_refused >= _MAX_REFUSED and not any_accepted):
                num_refused += 1
                what = part[0][1].key if len(part) == 1 else f"{len(part)} values"
                owner = f"trial {run}" if run else "the sweep"
                self.rejected.add(f"{what} of {owner}", reason_of(refusal), entries)
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]  # the first half is next

    def _log_batch(self, run: str, items: list[Item]) -> Exception | None:
        """Log `items`; return the error if MLflow refuses them, else None."""
        try:
            self.client.log_batch(
                self.run_ids[run],
                metrics=[value for _, value in items if isinstance(value, Metric)],
                params=[value for _, value in items if isinstance(value, Param)],
                tags=[value for _, value in items if isinstance(value, RunTag)],
                synchronous=True,
            )
        except outages() as error:
            if not _is_refusal(error) and not self.is_last_try:
                raise
            return error
        return None


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, MlflowException) and error.error_code in REFUSALS


def _as_json(seq: int, run: str, value: Value) -> dict[str, Any]:
    return {"seq": seq, "kind": type(value).__name__.lower(), "run": run, "key": value.key, "value": value.value}
