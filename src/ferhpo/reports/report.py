"""The verbs that answer and return, as Python functions; sweep and train are in running.py.

Heavy packages are imported inside the functions: `ferhpo --help` loads none of torch, ray and mlflow.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path

from ferhpo.data.dataset import FaceData
from ferhpo.errors import ConfigError, DataError, Infeasible, StorageError, SweepError, first_line
from ferhpo.reports.page import Page, Part, render
from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.sweep.leaderboard import findings
from ferhpo.reports.trial import classes, collapse, confusion, curves
from ferhpo.states import TrialState
from ferhpo.storage.checkpoints import best_checkpoint
from ferhpo.storage.sweep import Sweep, load_sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import duration, number, plural
from ferhpo.training.checkpoint import read
from ferhpo.trial.load_data import load_data


def report(name: str, trial: int | None = None, out: Path | None = None, output_dir: str = "mlruns") -> Path:
    """Write the page of a sweep, or of one of its trials, and return its path.

    out: the file to write; by default report/index.html in the sweep's folder, or report/trial-<number>/index.html
    Raises SweepError where there is no such sweep or trial, StorageError where the disk refuses.
    """
    record = load_sweep(name, output_dir)
    return sweep_report(record, out) if trial is None else trial_report(record, trial, out)


# Modules of reports/, in the order of the page
OF_A_SWEEP = (
    "sweep.leaderboard", "sweep.history", "sweep.importance", "sweep.parallel", "sweep.slices", "sweep.pareto",
    "sweep.optimisers", "sweep.ranking", "sweep.outcomes",
)  # fmt: skip
NOT_QUICK = ("sweep.importance", "sweep.slices", "sweep.optimisers")
OF_A_TRIAL = (
    "trial.collapse", "trial.curves", "trial.confusion", "trial.gallery", "network.saliency",
    "network.layers", "network.activations", "network.sparsity", "network.filters", "network.deepdream",
)  # fmt: skip
OF_DATA = ("trial.classes",)  # of a sweep and of a trial
FOLDER, INDEX = "report", "index.html"


class Snapshot(Sweep):
    """A sweep at one moment: its trials are read once, so that all of a page tells of the same ones."""

    @cached_property
    def _trials(self) -> list[TrialRecord]:
        return super().trials()

    def trials(self) -> list[TrialRecord]:
        return list(self._trials)


def sweep_report(record: Sweep, out: Path | None = None, data: FaceData | None = None, is_quick: bool = False) -> Path:
    """Write a sweep's page and return its path, <sweep>/report/index.html unless `out` names another.

    data: the sweep's, where it is at hand
    is_quick: leave out what takes more than a moment, and let no network answer; so the end of a sweep does
    """
    record = Snapshot(record.folder, record.id, record.composed, record.meta)

    def make(folder: Path) -> Page:
        trials, best, missing = record.trials(), record.best(), list[str]()
        panels = [collapse.of_sweep(record)]
        names = [name for name in OF_A_SWEEP if not (is_quick and name in NOT_QUICK)]
        panels += [import_module(f"ferhpo.reports.{name}").panel(record, folder) for name in names]
        known = data if data is not None else _data_of(record, missing)
        panels.append(classes.of_data(known, folder) if known is not None else None)
        parts = [Part("The sweep", _shown(panels))]
        if best is not None:
            own = folder / f"trial-{best.number}"
            drawn = _trial_panels(record, best, known, own, missing, is_quick)
            parts.append(Part(f"The best: trial {best.number}", [_sample(best, own), *drawn]))
        counts = Counter(trial.state for trial in trials)
        found = findings(record, record.leaderboard(), counts)
        if is_quick:
            missing.append(f"Made at the end of the sweep; ferhpo report {record.name} makes the whole page.")
        if counts[TrialState.RUNNING]:
            found.append(f"{plural(counts[TrialState.RUNNING], 'trial')} had not ended when this page was made.")
        return Page(f"Sweep {record.name}", found, _facts(record), parts, missing)

    return _write(record, make, Path(FOLDER), out)


def trial_report(record: Sweep, number: int, out: Path | None = None) -> Path:
    """Write a trial's page and return its path, <sweep>/report/trial-<number>/index.html unless `out` names another.

    Raises SweepError where the sweep has no such trial.
    """
    record = Snapshot(record.folder, record.id, record.composed, record.meta)
    trials = {trial.number: trial for trial in record.trials()}
    if number not in trials:
        known = f"it has 0 to {max(trials)}" if trials else "it has none yet"
        raise SweepError(f"--trial is {number}, which sweep {record.name} does not have; {known}")
    trial = trials[number]

    def make(folder: Path) -> Page:
        missing: list[str] = []
        data = _data_of(record, missing)
        panels = [_sample(trial, folder), *_trial_panels(record, trial, data, folder, missing)]
        panels += [
            panel for panel in [classes.of_data(data, folder) if data is not None else None] if panel is not None
        ]
        part = Part("The trial", panels)
        return Page(f"Trial {number} of {record.name}", _outcome(record, trial), _facts(record, trial), [part], missing)

    return _write(record, make, Path(FOLDER) / f"trial-{number}", out)


def _trial_panels(
    record: Sweep, trial: TrialRecord, data: FaceData | None, folder: Path, missing: list[str], is_quick: bool = False
) -> list[Panel]:
    """A trial's panels: all of them where the data are at hand, else what its record and checkpoint hold."""
    from ferhpo.evaluation.load import load_subject

    try:
        if is_quick:
            return _known_panels(record, trial, folder)
        if data is None:
            return [*_known_panels(record, trial, folder), *_layers_of(record, trial, folder)]
        subject = load_subject(record, trial, data)
    except (SweepError, Infeasible) as error:
        missing.append(f"What the network of trial {trial.number} answers: {error}")
        return _shown([curves.of_trial(trial, record.objective, _made(folder))])
    return _shown([import_module(f"ferhpo.reports.{name}").panel(subject, _made(folder)) for name in OF_A_TRIAL])


def _known_panels(record: Sweep, trial: TrialRecord, folder: Path) -> list[Panel]:
    """What the record and the checkpoint of a trial hold, without building its network. SweepError without one."""
    kept = read(best_checkpoint(record, trial))
    matrix, names = kept["confusion"].tolist(), kept["class_names"]
    drawn = [curves.of_trial(trial, record.objective, _made(folder)), confusion.of_matrix(matrix, names, folder)]
    return _shown([collapse.of_confusion(matrix, names), *drawn])


def _layers_of(record: Sweep, trial: TrialRecord, folder: Path) -> list[Panel]:
    from ferhpo.reports.network import layers
    from ferhpo.scoring.preprocess import Preprocess
    from ferhpo.trial.run import build_network

    kept = read(best_checkpoint(record, trial))
    preprocess = Preprocess.from_dict(kept["preprocess"])
    config = record.trial_config(trial)
    network = build_network(config, preprocess.channels, len(kept["class_names"]), preprocess.image_size)
    shape = (preprocess.channels, preprocess.input_size, preprocess.input_size)
    return _shown([layers.of_network(network, shape, folder)])


def _shown(panels: Sequence[Panel | None]) -> list[Panel]:
    return [panel for panel in panels if panel is not None]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _data_of(record: Sweep, missing: list[str]) -> FaceData | None:

    try:
        return load_data(record.composed)
    except (ConfigError, DataError) as error:
        missing.append(f"Whatever needs the images: {error}")
        return None


def _sample(trial: TrialRecord, folder: Path) -> Panel:
    rows = [{"hyperparameter": path, "value": number(value)} for path, value in trial.sample.items()]
    if not rows:
        return Panel("Hyperparameters", "Nothing was sampled: the configuration as it stands.")
    return Panel("Hyperparameters", "What was sampled.", tables=(write_table(_made(folder) / "sample.csv", rows),))


def _outcome(record: Sweep, trial: TrialRecord) -> list[str]:
    """How a trial ended, in sentences."""
    found = [f"{trial.state.capitalize()} after {plural(len(trial.epochs), 'epoch')}."]
    if trial.reason:
        found.append(first_line(trial.reason))
    best = record.best()
    if trial.value is not None and best is not None and best.value is not None:
        found.append(f"Its best {record.objective.metric} is {trial.value:.4f} at epoch {trial.best_epoch}.")
        if best.number != trial.number:
            found.append(f"The sweep's best is trial {best.number} with {best.value:.4f}.")
    return found


def _facts(record: Sweep, trial: TrialRecord | None = None) -> list[tuple[str, str]]:
    config, git, versions = record.config, record.meta["git"], record.meta["versions"]
    groups = record.composed.groups
    facts = [
        ("sweep", f"{record.name}, made {record.meta['created']} on {record.meta['node']}"),
        ("objective", f"{record.objective.metric}, {record.objective.mode}"),
        *(
            (group, str(groups[group]))
            for group in ("data", "model", "optim", "sampler", "scheduler")
            if group in groups
        ),
        ("split", str(config["data"].get("split", "published"))),
        ("epochs at most", str(config["trainer"].get("max_epochs", "not recorded"))),
        ("seed", str(config["seed"] if trial is None else f"{config['seed']}, the trial's {trial.seed}")),
    ]
    if trial is not None:
        facts += [(key, number(trial.extra[key])) for key in ("device", "node") if trial.extra.get(key)]
        facts += [("took", duration(trial.seconds))] if trial.seconds is not None else []
    if git:
        facts.append(("git", git["commit"][:12] + (" and changes" if git.get("dirty") == "true" else "")))
    return [*facts, ("versions", ", ".join(f"{name} {found}" for name, found in versions.items()))]


def _write(record: Sweep, make: Callable[[Path], Page], place: Path, out: Path | None) -> Path:
    """Draw into a temporary folder, then move every file to its place, the page last."""
    target = record.folder / place if out is None else out.absolute().parent
    page = target / (INDEX if out is None else out.name)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".report-", dir=target) as name:
            folder = Path(name)
            (folder / INDEX).write_text(render(make(folder)), encoding="utf-8")
            if out is None:
                for file in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / INDEX):
                    moved = target / file.relative_to(folder)
                    moved.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(moved)
            (folder / INDEX).replace(page)
    except OSError as error:
        raise StorageError(f"{page} cannot be written ({error.strerror}); name another place with --out") from None
    return page
