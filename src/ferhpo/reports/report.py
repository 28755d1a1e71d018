"""The verb `report`: collect the panels of a sweep or of a trial and write the page.

Note: a page is written whatever is missing. What needs data or checkpoints that cannot be loaded is left out, and the
page says so.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path

from ferhpo.data.dataset import FaceData
from ferhpo.errors import ConfigError, DataError, Infeasible, StorageError, SweepError, first_line
from ferhpo.evaluation.chosen import Corrected, corrected_best
from ferhpo.reports import own
from ferhpo.reports.own import OwnPanel
from ferhpo.reports.page import Page, Part, render
from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.sweep import choice
from ferhpo.reports.sweep.leaderboard import findings
from ferhpo.reports.trial import classes, collapse, confusion, curves
from ferhpo.states import TrialState, shown_state
from ferhpo.storage.checkpoints import best_checkpoint
from ferhpo.storage.listing import is_running
from ferhpo.storage.provenance import changes_text, overrides_of
from ferhpo.storage.sweep import Sweep, load_sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import duration, number, plural
from ferhpo.training.checkpoint import read
from ferhpo.trial.load_data import load_data

# Modules of reports/ with a function `panel`, in the order of the page
OF_A_SWEEP = (
    "sweep.leaderboard", "sweep.history", "search.over_time", "search.enough", "sweep.importance", "sweep.parallel",
    "sweep.slices", "search.isolation", "search.early", "sweep.pareto", "sweep.optimizers", "sweep.ranking",
    "sweep.outcomes",
)  # fmt: skip
NOT_QUICK = ("sweep.importance", "sweep.slices", "search.isolation", "sweep.optimizers")
OF_A_TRIAL = (
    "trial.collapse", "trial.curves", "trial.confusion", "trial.gallery", "network.saliency",
    "network.layers", "network.activations", "network.sparsity", "network.filters", "network.deepdream",
)  # fmt: skip
OF_DATA = ("trial.classes",)  # on the page of a sweep and of a trial
FOLDER, INDEX = "report", "index.html"


def report(
    name: str,
    trial: int | None = None,
    out: Path | None = None,
    output_dir: str = "mlruns",
    panels: Sequence[str] = (),
) -> Path:
    """Write the page of a sweep, or of one of its trials, and return its path.

    out: the file to write; by default report/index.html in the sweep's folder, or report/trial-<number>/index.html
    panels: modules of your own with a function panel(sweep, folder), or panel(subject, folder) for the page of a trial
    Raises SweepError if there is no such sweep or trial, ConfigError if a module of `panels` cannot be imported,
    StorageError if the disk refuses.
    """
    shown = [own.of_module(module) for module in panels]
    sweep = load_sweep(name, output_dir)
    return (
        sweep_report(sweep, out, own_panels=shown)
        if trial is None
        else trial_report(sweep, trial, out, own_panels=shown)
    )


class Snapshot(Sweep):
    """A sweep whose trials are read once, so that all panels of a page show the same state of it."""

    @cached_property
    def _trials(self) -> list[TrialRecord]:
        return super().trials()

    def trials(self) -> list[TrialRecord]:
        return list(self._trials)


def sweep_report(
    sweep: Sweep,
    out: Path | None = None,
    data: FaceData | None = None,
    is_quick: bool = False,
    own_panels: Sequence[OwnPanel] = (),
) -> Path:
    """Write the page of a sweep and return its path, <sweep>/report/index.html unless `out` is given.

    data: the sweep's data set, if it is already loaded
    is_quick: leave out slow panels and those that need predictions of a network, as at the end of a sweep
    """
    sweep = Snapshot(sweep.folder, sweep.id, sweep.composed, sweep.meta)

    def make(folder: Path) -> Page:
        trials, best, missing = sweep.trials(), sweep.best(), list[str]()
        corrected, why_not = _corrected(sweep, trials)
        panels = [collapse.of_sweep(sweep), choice.of_corrected(corrected, sweep.objective.metric, folder)]
        missing += [why_not] if why_not else []
        names = [name for name in OF_A_SWEEP if not (is_quick and name in NOT_QUICK)]
        panels += [import_module(f"ferhpo.reports.{name}").panel(sweep, folder) for name in names]
        loaded = data if data is not None else _data_of(sweep, missing)
        panels.append(classes.of_data(loaded, folder) if loaded is not None else None)
        panels += [show(sweep, folder, missing) for show in (*own_panels, *own.of_sweep(sweep, missing))]
        parts = [Part("Sweep", _present(panels))]
        if best is not None:
            place = folder / f"trial-{best.number}"
            trial_panels = _trial_panels(sweep, best, loaded, place, missing, is_quick)
            parts.append(Part(f"Best trial: {best.number}", [_sample(best, place), *trial_panels]))
        counts = Counter(trial.state for trial in trials)
        sentences = findings(sweep, sweep.leaderboard(), counts, corrected)
        if is_quick:
            missing.append(
                f"This page was made at the end of the sweep. Make the complete page with: {sweep.command('report')}"
            )
        if counts[TrialState.RUNNING]:
            sentences.append(
                f"{plural(counts[TrialState.RUNNING], 'trial')} had not ended when this page was made."
            )  # fmt: skip
        return Page(f"Sweep {sweep.name}", sentences, _facts(sweep), parts, missing)

    return _write(sweep, make, Path(FOLDER), out)


def trial_report(sweep: Sweep, number: int, out: Path | None = None, own_panels: Sequence[OwnPanel] = ()) -> Path:
    """Write the page of a trial and return its path, <sweep>/report/trial-<number>/index.html unless `out` is given.

    Raises SweepError if the sweep has no such trial.
    """
    sweep = Snapshot(sweep.folder, sweep.id, sweep.composed, sweep.meta)
    trials = {trial.number: trial for trial in sweep.trials()}
    if number not in trials:
        known = f"it has trials 0 to {max(trials)}" if trials else "it has no trials yet"
        raise SweepError(f"--trial is {number}; sweep {sweep.name} has no such trial; {known}")
    trial = trials[number]

    def make(folder: Path) -> Page:
        missing: list[str] = []
        data = _data_of(sweep, missing)
        of_data = None if data is None else classes.of_data(data, folder)
        trial_panels = _trial_panels(sweep, trial, data, folder, missing, own_panels=own_panels)
        part = Part("Trial", _present([_sample(trial, folder), *trial_panels, of_data]))
        return Page(f"Trial {number} of {sweep.name}", _outcome(sweep, trial), _facts(sweep, trial), [part], missing)

    return _write(sweep, make, Path(FOLDER) / f"trial-{number}", out)


def _trial_panels(
    sweep: Sweep,
    trial: TrialRecord,
    data: FaceData | None,
    folder: Path,
    missing: list[str],
    is_quick: bool = False,
    own_panels: Sequence[OwnPanel] = (),
) -> list[Panel]:
    """Return the panels of a trial; without data, those that the study and the checkpoint suffice for."""
    from ferhpo.evaluation.load import load_subject

    try:
        if is_quick:
            return _recorded_panels(sweep, trial, folder)
        if data is None:
            return [*_recorded_panels(sweep, trial, folder), *_layer_panels(sweep, trial, folder)]
        subject = load_subject(sweep, trial, data)
    except (SweepError, Infeasible) as error:
        missing.append(f"Predictions of trial {trial.number}: {error}")
        return _present([curves.of_trial(trial, sweep.objective, _created(folder))])
    panels = [import_module(f"ferhpo.reports.{name}").panel(subject, _created(folder)) for name in OF_A_TRIAL]
    return _present([*panels, *(show(subject, folder, missing) for show in own_panels)])


def _recorded_panels(sweep: Sweep, trial: TrialRecord, folder: Path) -> list[Panel]:
    """Return the panels that need no network. Raises SweepError without a checkpoint."""
    checkpoint = read(best_checkpoint(sweep, trial))
    matrix, names = checkpoint["confusion"].tolist(), checkpoint["class_names"]
    panels = [curves.of_trial(trial, sweep.objective, _created(folder)), confusion.of_matrix(matrix, names, folder)]
    return _present([collapse.of_confusion(matrix, names), *panels])


def _layer_panels(sweep: Sweep, trial: TrialRecord, folder: Path) -> list[Panel]:
    from ferhpo.evaluation.load import load_trial
    from ferhpo.reports.network import layers

    network, preprocess, _ = load_trial(sweep, trial)
    shape = (preprocess.channels, preprocess.input_size, preprocess.input_size)
    return _present([layers.of_network(network, shape, folder)])


def _present(panels: Sequence[Panel | None]) -> list[Panel]:
    return [panel for panel in panels if panel is not None]


def _created(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _corrected(sweep: Sweep, trials: Sequence[TrialRecord]) -> tuple[Corrected | None, str]:
    """Return the corrected best value, or None and why there is none, as a sentence; "" if there is nothing to say."""
    try:
        found, why = corrected_best(sweep, trials)
    except SweepError as error:
        found, why = None, str(error)
    return found, f"Correction of the best value for the choice among the trials: {why}" if why else ""


def _data_of(sweep: Sweep, missing: list[str]) -> FaceData | None:
    try:
        return load_data(sweep.composed)
    except (ConfigError, DataError) as error:
        missing.append(f"Panels that need images: {error}")
        return None


def _sample(trial: TrialRecord, folder: Path) -> Panel:
    rows = [{"hyperparameter": path, "value": number(value)} for path, value in trial.sample.items()]
    if not rows:
        return Panel("Hyperparameters", "Nothing was sampled; all values are those of the configuration.")
    table = write_table(_created(folder) / "sample.csv", rows)
    return Panel("Hyperparameters", "The sampled values of this trial.", tables=(table,))


def _outcome(sweep: Sweep, trial: TrialRecord) -> list[str]:
    """Return how a trial ended, in sentences."""
    changes = changes_text(sweep.meta)
    state = shown_state(trial.state, is_running(sweep))
    sentences = [f"{state.capitalize()} after {plural(len(trial.epochs), 'epoch')}.", *([changes] if changes else [])]
    if trial.reason:
        sentences.append(first_line(trial.reason))
    best = sweep.best()
    if trial.value is not None and best is not None and best.value is not None:
        sentences.append(f"Its best {sweep.objective.metric} is {trial.value:.4f} at epoch {trial.best_epoch}.")
        if best.number != trial.number:
            sentences.append(f"The sweep's best trial is {best.number} with {best.value:.4f}.")
    return sentences


def _facts(sweep: Sweep, trial: TrialRecord | None = None) -> list[tuple[str, str]]:
    config, git, versions = sweep.config, sweep.meta["git"], sweep.meta["versions"]
    groups = sweep.composed.groups
    facts = [
        ("sweep", f"{sweep.name}, created {sweep.meta['created']} on {sweep.meta['node']}"),
        ("recipe", sweep.composed.name),
        ("overrides", " ".join(overrides_of(sweep.meta)) or "none"),
        ("objective", f"{sweep.objective.metric}, {sweep.objective.mode}"),
        *(
            (group, str(groups[group]))
            for group in ("data", "model", "optim", "sampler", "scheduler")
            if group in groups
        ),
        ("split", str(config["data"].get("split", "published"))),
        ("max epochs", str(config["trainer"].get("max_epochs", "not recorded"))),
        ("seed", str(config["seed"] if trial is None else f"{config['seed']}; {trial.seed} of the trial")),
    ]
    if trial is not None:
        facts += [(key, number(trial.extra[key])) for key in ("device", "precision", "node") if trial.extra.get(key)]
        facts += [("duration", duration(trial.seconds))] if trial.seconds is not None else []
    if git:
        facts.append(("git", git["commit"][:12] + (" with local changes" if git.get("dirty") == "true" else "")))
    return [*facts, ("versions", ", ".join(f"{name} {version}" for name, version in versions.items()))]


def _write(sweep: Sweep, make: Callable[[Path], Page], place: Path, out: Path | None) -> Path:
    """Draw into a temporary folder, then move every file to its place, the page last; return the page's path."""
    target = sweep.folder / place if out is None else out.absolute().parent
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
        raise StorageError(f"{page} cannot be written ({error.strerror}); choose another file with --out") from None
    return page
