"""What a sweep's spool has recorded already, so that a resume records nothing twice."""

from ferhpo.states import RunState
from ferhpo.tracking.spool import Record, Spool

ENVIRONMENT = ("ferhpo.version.", "ferhpo.git.")  # the first part of tags


class History:
    """The content of a spool, as far as recording depends on it. Runs are given by trial number, None for the parent.

    sweep_id: of the sweep in the store; None before its run was opened
    states: of each opened run: RUNNING, or the state it was closed with
    params: of each run, as MLflow has them
    environment: tags of each run that say which versions and commit ran it
    times_ms, seqs: of each run's last record
    epochs, folds, models, datasets: what was recorded, by number, or by number and count
    values: of metrics of a run as a whole, by number and name
    """

    def __init__(self, spool: Spool | None) -> None:
        self.sweep_id: str | None = None
        self.states: dict[int | None, str] = {}
        self.params: dict[int | None, dict[str, str]] = {}
        self.environment: dict[int | None, dict[str, str]] = {}
        self.times_ms: dict[int | None, int] = {}
        self.seqs: dict[int | None, int] = {}
        self.epochs: set[tuple[int | None, int]] = set()
        self.folds: set[tuple[int, int]] = set()
        self.models: set[int] = set()
        self.datasets: set[int | None] = set()
        self.values: dict[tuple[int | None, str], float] = {}
        offset = 0
        while spool is not None:
            records, offset = spool.read(offset, 10_000)
            if not records:
                break
            for record in records:
                self.add(record)

    def add(self, record: Record) -> None:
        """Add a record of the spool."""
        op, number = record["op"], record.get("number")
        self.seqs[number], self.times_ms[number] = record["seq"], record["time_ms"]
        if op in ("open_sweep", "open_trial"):
            self.states[number] = RunState.RUNNING
            self.params[number] = {**record["params"], **self.params.get(number, {})}
        if op in ("open_sweep", "tags"):
            tags = {key: text for key, text in record["tags"].items() if key.startswith(ENVIRONMENT)}
            self.environment.setdefault(number, {}).update(tags)
        if op == "open_sweep":
            self.sweep_id = record["sweep_id"]
        elif op == "close":
            self.states[number] = record["state"]
        elif op == "fold":
            self.folds.add((record["number"], record["fold"]))
        elif op == "dataset":
            self.datasets.add(number)
        elif op == "model":
            self.models.add(record["number"])
        elif "epoch" in record:
            self.epochs.add((number, record["epoch"]))
        elif op == "metrics":
            self.values.update({(number, key): value for key, value in record["values"].items()})
