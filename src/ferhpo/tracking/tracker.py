"""Tracker, the driver's interface to tracking. Recording only appends to the spool and never uses the network."""

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from ferhpo.addresses.secrets import redact
from ferhpo.errors import TrackingError
from ferhpo.states import RunState, TrialState
from ferhpo.tracking.history import History
from ferhpo.tracking.settings import TrackingSettings
from ferhpo.tracking.spool import Spool
from ferhpo.tracking.store import user_name
from ferhpo.tracking.upload.files import copy_inside
from ferhpo.tracking.upload.keys import key_of
from ferhpo.tracking.upload.shipper import Shipper, upload_now
from ferhpo.tracking.view import encode, param_text, view_state

_DIGEST_CHARACTERS = 12  # as the UI shows; MLflow's limit is 36; the full digest is in the data set's profile


class Tracker:
    """Record one sweep: a parent run (`number` None) and a run for each trial (`number` of the trial).

    A new Tracker for the same folder continues the same runs. With `tracking.uri=none` it does nothing. Raises
    StillRunning if another process records in this folder; methods raise StorageError if the disk cannot be written.
    """

    def __init__(self, folder: Path, settings: TrackingSettings) -> None:
        self.settings = settings
        self._spool = None if settings.off else Spool(folder)
        self._shipper = None if self._spool is None else Shipper(self._spool, settings)
        self._history = History(self._spool)

    def open_sweep(self, name: str, params: Mapping[str, object], tags: Mapping[str, str], note: str) -> None:
        """Open the parent run, or reopen it in a resumed sweep. `note` is Markdown.

        MLflow does not allow a parameter to change: if a resume gives it another value, the tag
        `ferhpo.changed.<parameter>` has the new one.
        """
        sweep_id = self.sweep_id or uuid.uuid4().hex[:12]
        same, changed = self._split_params(None, params)
        tags = {**tags, **changed, "ferhpo.sweep": name, "ferhpo.sweep_id": sweep_id, "ferhpo.state": RunState.RUNNING}
        tags = _tags({**tags, "mlflow.note.content": note})
        self._append("open_sweep", sweep_id=sweep_id, name=name, params=same, tags=tags, user=user_name())

    def open_trial(self, number: int, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        """Open the run of a trial, or reopen it in a resumed sweep."""
        same, changed = self._split_params(number, params)
        tags = _tags({**tags, **changed, "ferhpo.sweep_id": str(self.sweep_id), "ferhpo.state": RunState.RUNNING})
        self._append("open_trial", number=number, params=same, tags=tags, user=user_name())

    def set_view(
        self,
        name: str,
        objective: str,
        mode: str,
        params: Sequence[str],
        metrics: Sequence[str] = (),
        second_column: str = "best_epoch",
        branches: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Create the sweep's view in MLflow's UI. See `view.view_state` for the arguments."""
        state = view_state(str(self.sweep_id), objective, mode, params, metrics, second_column, branches)
        self._append("view", sweep_id=self.sweep_id, value=encode(name, state))

    def log_dataset(
        self, number: int | None, name: str, digest: str, source: str, profile: Mapping[str, object], context: str
    ) -> None:
        """Record the data set of a run; `context` is MLflow's, e.g. "training"."""
        dataset = {
            "name": name,
            "digest": digest[:_DIGEST_CHARACTERS],
            "source_type": "local",
            "source": json.dumps({"source": redact(source)}),
            "profile": json.dumps({"digest": digest, **profile}),
        }
        self._append("dataset", number=number, dataset=dataset, context=context)

    def log_epoch(self, number: int | None, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of an epoch, unless the epoch is recorded already; of the parent run, those of a step."""
        if (number, epoch) not in self._history.epochs:
            self._append("metrics", number=number, step=epoch, epoch=epoch, values=_floats(metrics))

    def log_fold(
        self,
        number: int,
        fold: int,
        epochs: Sequence[Mapping[str, float]],
        summary: Mapping[str, float],
        checkpoint: Path | None,
    ) -> None:
        """Record a completed fold as a run below its trial's, unless the fold is recorded already.

        fold: from 0
        epochs: the metrics of each epoch, and its number under "epoch"
        summary: metrics of the fold as a whole
        """
        if (number, fold) not in self._history.folds:
            rows = [_floats(row) for row in epochs]
            path = None if checkpoint is None else self._stored_path(checkpoint)
            once = _floats(summary)
            self._append("fold", number=number, fold=fold, epochs=rows, once=once, path=path, user=user_name())

    def log_metrics(self, number: int | None, metrics: Mapping[str, float]) -> None:
        """Record metrics of a run as a whole (step 0), except those that are recorded with the same value already.

        A resume logs them again, and a second record would become a second point in MLflow, at another time.
        """
        new = {key: v for key, v in _floats(metrics).items() if self._history.values.get((number, key)) != v}
        if new:
            self._append("metrics", number=number, step=0, values=new)

    def log_curves(self, number: int | None, rows: Sequence[Mapping[str, float]]) -> None:
        """Record metrics at the steps 1, 2, ..., unless they are recorded already; rows: one for each step."""
        if rows and (number, next(iter(rows[-1]))) not in self._history.values:
            for step, row in enumerate(rows, 1):
                self._append("metrics", number=number, step=step, values=_floats(row))

    def set_tags(self, number: int | None, tags: Mapping[str, str]) -> None:
        """Set tags; a later value replaces an earlier one."""
        self._append("tags", number=number, tags=_tags(tags))

    def log_artifact(self, number: int | None, path: Path, folder: str = "") -> None:
        """Record a file or folder, to be uploaded into the artifact folder `folder`; its content is read then."""
        self._append("artifact", number=number, path=self._stored_path(path), folder=folder)

    def log_text(self, number: int | None, text: str, file: str) -> None:
        """Record a text as the artifact `file`."""
        self._append("text", number=number, text=redact(text), file=file)

    def log_model(self, number: int, model_dir: Path, *, again: bool = False) -> None:
        """Record an exported model (ferhpo.inference.export) as the model of a trial, unless the trial has one.

        again: even if it has one, because that was deleted in MLflow
        """
        if again or number not in self._history.models:
            self._append("model", number=number, path=self._stored_path(model_dir))

    def close_trial(self, number: int, state: RunState | TrialState, tags: Mapping[str, str] | None = None) -> None:
        """Close the run of a trial. ferhpo/states.py says which status each state has in MLflow."""
        self._append("close", number=number, state=state, tags=_tags({**(tags or {}), "ferhpo.state": state}))

    def close_sweep(self, state: RunState, note: str) -> None:
        """Close the parent run with a summary of the sweep, in Markdown."""
        self._append("close", state=state, tags=_tags({"ferhpo.state": state, "mlflow.note.content": note}))

    def start(self) -> None:
        """Start to upload."""
        if self._shipper is not None:
            self._shipper.start()

    def flush(self, timeout_seconds: float) -> int:
        """Wait at most `timeout_seconds` for the upload; return how many records are not in MLflow yet."""
        return 0 if self._shipper is None else self._shipper.flush(timeout_seconds)

    def close(self, timeout_seconds: float) -> int:
        """Wait at most `timeout_seconds` for the upload, release the folder, and return how many records are left."""
        if self._spool is None or self._shipper is None:
            return 0
        left = self._shipper.flush(timeout_seconds)
        self._spool.sync_to_disk()
        self._shipper.close(timeout_seconds=1)  # if the thread is in a call, it releases the folder afterwards
        self._spool = self._shipper = None
        return left

    def close_open_runs(self) -> None:
        """Close the runs that a killed driver left open, as STOPPED, at the time of their last records."""
        for number, state in sorted(self._history.states.items(), key=lambda item: item[0] is None):  # the parent last
            if state == RunState.RUNNING:
                tags = {"ferhpo.state": RunState.STOPPED, "ferhpo.reason": "its driver was killed; can be resumed"}
                self._append(
                    "close", number=number, state=RunState.STOPPED, tags=tags, time_ms=self._history.times_ms[number]
                )

    def upload_now(self) -> int:
        """Upload everything in the calling thread and return the number of records. Raises TrackingError."""
        if self._spool is None:
            raise TrackingError("tracking.uri is none; no records were written that could be uploaded")
        return upload_now(self._spool, self.settings)

    @property
    def unshipped(self) -> int:
        """The number of records that are not in MLflow yet."""
        return 0 if self._shipper is None else self._shipper.unshipped

    @property
    def last_error(self) -> str | None:
        """Why the last upload failed, in a few words; None if it did not."""
        return None if self._shipper is None else self._shipper.last_error

    @property
    def sweep_id(self) -> str | None:
        """The unique id of this sweep in the store, and the key of its view; None before `open_sweep`."""
        return self._history.sweep_id

    @property
    def experiment_id(self) -> str | None:
        """The id of the MLflow experiment, None until the store has responded."""
        return None if self._shipper is None else self._shipper.shipped.experiment_id

    def run_id(self, number: int | None) -> str | None:
        """Return MLflow's id of a run, None until it is uploaded."""
        return None if self._shipper is None else self._shipper.shipped.runs.get(key_of(number))

    @property
    def is_open(self) -> bool:
        """Whether the parent run is open."""
        return self._history.states.get(None) == RunState.RUNNING

    def was_opened(self, number: int) -> bool:
        """Return whether the run of a trial was ever opened, by this process or an earlier one."""
        return number in self._history.states

    def environment(self, number: int | None) -> dict[str, str]:
        """Return the tags of a run that say which versions and commit ran it, as they were recorded last."""
        return dict(self._history.environment.get(number, {}))

    def was_described(self, number: int) -> bool:
        """Return whether the data set of a trial's run is recorded, which is the last record that describes a run."""
        return number in self._history.datasets

    def was_closed(self, number: int, state: RunState | TrialState | None = None) -> bool:
        """Return whether the run of a trial is closed for good, or, if `state` is given, closed with this state."""
        last = self._history.states.get(number, RunState.RUNNING)
        return last not in (RunState.RUNNING, RunState.STOPPED) if state is None else last == state

    def is_shipped(self, number: int) -> bool:
        """Return whether all records of a trial, files included, are in MLflow; True if tracking is disabled."""
        if self._shipper is None:
            return self.settings.off
        is_uploaded = self._history.seqs.get(number, 0) <= self._shipper.shipped.seq
        return is_uploaded and str(number) not in self._shipper.rejected.set_aside_runs

    def model_id(self, number: int) -> str | None:
        """Return MLflow's id of a trial's model, None until it is uploaded."""
        return None if self._shipper is None else self._shipper.shipped.models.get(str(number))

    def _append(self, op: str, **fields: object) -> None:
        if self._spool is not None:
            number = fields.get("number")
            assert op == "open_sweep" or self.sweep_id, "open_sweep comes first"
            assert number is None or op == "open_trial" or number in self._history.states, (
                f"trial {number} was not opened"
            )
            self._history.add(self._spool.append(op, fields))

    def _split_params(self, number: int | None, params: Mapping[str, object]) -> tuple[dict[str, str], dict[str, str]]:
        """Return the parameters that MLflow accepts, and tags for those that a resume gave another value."""
        texts = {key: param_text(value) for key, value in params.items()}
        known = self._history.params.get(number, {})
        changed = {key: text for key, text in texts.items() if known.get(key, text) != text}
        tags = {f"ferhpo.changed.{key}": text for key, text in changed.items()}
        return {key: text for key, text in texts.items() if key not in changed}, tags

    def _stored_path(self, path: Path) -> str:
        """Return a path relative to the sweep's folder, so that it can be moved. What is outside is copied there.

        An upload reads files of the sweep's folder only, since a spool may come from someone else.
        """
        if self._spool is None:
            return str(path)
        path, folder = path.absolute(), self._spool.folder.absolute()
        if not path.is_relative_to(folder):
            path = copy_inside(path, folder)
        return str(path.relative_to(folder))


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: redact(str(value)) for key, value in tags.items()}


def _floats(metrics: Mapping[str, float]) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items()}
