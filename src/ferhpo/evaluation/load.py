"""Load a trained network by name: SWEEP (its best trial), SWEEP/7, models:/NAME@ALIAS, models:/NAME/VERSION.

Note: a registered model is loaded from the registry even if the trial's own checkpoint is in a sweep's folder here;
that folder is used only if its MLflow run is the one that made the model.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferhpo.config.compose import compose
from ferhpo.errors import SweepError
from ferhpo.scoring.preprocess import Preprocess
from ferhpo.storage.checkpoints import best_checkpoint
from ferhpo.storage.sweep import META, Sweep, load_sweep, tracking_settings
from ferhpo.storage.test_log import sweep_that_chose
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import TrackingSettings, run_of
from ferhpo.training.checkpoint import load_weights, read
from ferhpo.trial.run import build_network

if TYPE_CHECKING:
    from torch import nn

    from ferhpo.tracking.registry import Version
from torch import nn

from ferhpo.config.folds import KEPT_FOLD, num_folds
from ferhpo.data.dataset import FaceData
from ferhpo.scoring.predict import Evaluation, evaluate
from ferhpo.training.checkpoint import load_network
from ferhpo.trial.load_data import fold_data

REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[^/@]+))")


@dataclass(frozen=True)
class TrainedModel:
    """A network at its best epoch, in evaluation mode, and where it came from.

    words: what it is, for people; label: as short as a person would type it
    config: of its trial, the sample applied
    record, number: its sweep and trial, None where no folder here holds them
    chooser: the sweep that chose it, which keeps the readings of test images
    run_id: of its MLflow run, None where it is not known
    """

    words: str
    label: str
    network: "nn.Module"
    preprocess: Preprocess
    class_names: tuple[str, ...]
    config: Mapping[str, Any]
    settings: TrackingSettings
    record: Sweep | None = None
    number: int | None = None
    chooser: Sweep | None = None
    run_id: str | None = None


def find_model(
    name: str, output_dir: str | Path = "mlruns", stores: Sequence[str] = (), config_dir: Path | None = None
) -> TrainedModel:
    """Load what `name` means. stores: overrides tracking.key=... that say where models:/ is.

    Raises SweepError, TrackingError, ConfigError.
    """
    if name.startswith("models:"):
        return _registered(name, output_dir, stores, config_dir)
    record, number = _sweep_and_number(name, output_dir)
    trial = record.best() if number is None else _trial(record, number)
    if trial is None:
        raise SweepError(f"sweep {record.name} has no complete trial to evaluate; name one of its trials, as {name}/0")
    network, preprocess, class_names = load_trial(record, trial)
    value = "" if trial.value is None else f", {record.objective.metric} {trial.value:.4f} at epoch {trial.best_epoch}"
    best = "the best of its sweep, " if number is None else ""
    return TrainedModel(
        words=f"trial {trial.number} of {record.name} ({best}{trial.state.lower()}{value})",
        label=f"{record.name}/{trial.number}",
        network=network,
        preprocess=preprocess,
        class_names=class_names,
        config=record.trial_config(trial),
        settings=tracking_settings(record.config),
        record=record,
        number=trial.number,
        chooser=sweep_that_chose(record),
    )


def load_trial(record: Sweep, trial: TrialRecord) -> tuple["nn.Module", Preprocess, tuple[str, ...]]:
    """The network of a trial at its best epoch, its preprocessing, its classes. SweepError where no epoch was kept."""
    path = best_checkpoint(record, trial)
    checkpoint = read(path)
    preprocess = Preprocess.from_dict(checkpoint["preprocess"])
    class_names = tuple(checkpoint["class_names"])
    config = record.trial_config(trial)
    network = build_network(config, preprocess.channels, len(class_names), preprocess.image_size)
    load_weights(network, checkpoint["network"], path)
    return network.eval(), preprocess, class_names


def _sweep_and_number(name: str, output_dir: str | Path) -> tuple[Sweep, int | None]:
    head, _, tail = name.rpartition("/")
    is_folder = (Path(output_dir) / name / META).exists() or (Path(name) / META).exists()
    if head and tail.isdigit() and not is_folder:
        return load_sweep(head, output_dir), int(tail)
    return load_sweep(name, output_dir), None


def _trial(record: Sweep, number: int) -> TrialRecord:
    trials = record.trials()
    if number >= len(trials):
        have = f"it has trials 0 to {len(trials) - 1}" if trials else "it has none yet"
        raise SweepError(f"sweep {record.name} has no trial {number}; {have}")
    return trials[number]


def _registered(name: str, output_dir: str | Path, stores: Sequence[str], config_dir: Path | None) -> TrainedModel:
    from ferhpo.tracking import registry

    match = REGISTERED.fullmatch(name)
    if match is None:
        raise SweepError(f"{name} names no model; write models:/NAME@ALIAS or models:/NAME/VERSION")
    section = compose(None, stores, config_dir).config["tracking"]
    settings = TrackingSettings.from_config(section, Path(output_dir))
    version = registry.find(settings, match["name"], match["alias"] or match["version"])
    network, described = registry.load(settings, version)
    record, number = _local_trial(version, settings, Path(output_dir))
    if record is not None and number is not None:
        config: Mapping[str, Any] = record.trial_config(_trial(record, number))
    elif version.run_id is not None:
        # What it was trained on may be read; what else it would allow to be called is not the store's to say.
        config = {**registry.run_config(settings, version.run_id), "allowed_targets": []}
    else:
        raise SweepError(f"{name} belongs to no run of MLflow, so nobody knows what it was trained on")
    return TrainedModel(
        words=f"{version.name} version {version.number}, trial {version.tags.get('ferhpo.trial', '?')} of "
        f"{version.tags.get('ferhpo.sweep', '?')}",
        label=f"models:/{version.name}/{version.number}",
        network=network.eval(),
        preprocess=Preprocess.from_dict(described["preprocess"]),
        class_names=tuple(described["class_names"]),
        config=config,
        settings=settings,
        record=record,
        number=number,
        chooser=None if record is None else sweep_that_chose(record),
        run_id=version.run_id,
    )


def _local_trial(
    version: "Version", settings: TrackingSettings, output_dir: Path
) -> tuple[Sweep, int] | tuple[None, None]:
    """The sweep and trial that a version was made of, if their folder is here."""
    sweep, number = version.tags.get("ferhpo.sweep"), version.tags.get("ferhpo.trial", "")
    if sweep is None or not number.isdigit() or not (output_dir / sweep / META).exists():
        return None, None
    record = load_sweep(sweep, output_dir)
    if run_of(record.folder, settings, int(number)) != version.run_id:
        return None, None  # another sweep of that name
    return record, int(number)


@dataclass(frozen=True)
class Subject:
    """A trial's network at its best epoch, in evaluation mode, and its answers on the validation images."""

    record: Sweep
    trial: TrialRecord
    network: nn.Module
    data: FaceData
    preprocess: Preprocess
    answers: Evaluation


def load_subject(record: Sweep, trial: TrialRecord, data: FaceData) -> Subject:
    """Load a trial's best checkpoint and let it answer. Raises SweepError where it has none.

    data: as the sweep read it; of a cross-validated trial the kept fold answers, on the images that it did not train on
    """
    if num_folds(record.config) is not None:
        data = fold_data(data, record.config["data"], KEPT_FOLD)
    network = build_network(record.trial_config(trial), data.channels, data.num_classes, data.image_size)
    checkpoint = load_network(best_checkpoint(record, trial), network)
    preprocess = Preprocess.from_dict(checkpoint["preprocess"])
    network.eval()
    return Subject(record, trial, network, data, preprocess, evaluate(network, data, "val", preprocess))
