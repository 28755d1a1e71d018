"""Load trained networks: by name (SWEEP, SWEEP/7, models:/NAME@ALIAS, models:/NAME/VERSION), or with data as a Subject.

Note: a registered model is loaded from the registry even if the trial's own checkpoint is in a sweep folder here; that
folder is used only if its MLflow run is the one that made the model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ferhpo.config.folds import KEPT_FOLD, num_folds
from ferhpo.data.dataset import FaceData
from ferhpo.data.features.hog import hog_of
from ferhpo.data.io.cache import drop_caches
from ferhpo.errors import SweepError, TrackingError, first_line, is_out_of_memory
from ferhpo.evaluation.versions import find_version, local_trial, signature_required
from ferhpo.inference.images import images_in
from ferhpo.inference.probabilities import probabilities_of
from ferhpo.models.files.fitting import build_fitting
from ferhpo.scoring.predict import Evaluation, evaluate
from ferhpo.scoring.preprocess import Preprocess
from ferhpo.states import shown_state
from ferhpo.storage.checkpoints import best_checkpoint
from ferhpo.storage.evaluation_log import selecting_sweep
from ferhpo.storage.listing import is_running
from ferhpo.storage.meta import META, has_meta
from ferhpo.storage.sweep import Sweep, load_sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import TrackingSettings
from ferhpo.training.checkpoint import load_weights, read
from ferhpo.trial.load_data import fold_data, load_data
from ferhpo.trial.run import build_network

if TYPE_CHECKING:
    import pandas as pd


TRIALS = "trials"  # the folder of a sweep's trials


@dataclass(frozen=True, repr=False)
class TrainedModel:
    """A network at its best epoch, in evaluation mode, and its origin.

    description: in words; label: the short name, e.g. "demo/7"
    config: of its trial, with the sample applied
    sweep, number: its sweep and trial, None if no folder here holds them
    selecting_sweep: the sweep whose validation scores selected it, and whose folder has the test log
    run_id: of its MLflow run, None if unknown; warnings: of its origin
    members: of an ensemble, its trials and their shares, e.g. "3:0.5000 7:0.5000"
    """

    description: str
    label: str
    network: nn.Module
    preprocess: Preprocess
    class_names: tuple[str, ...]
    config: Mapping[str, Any]
    tracking: TrackingSettings
    sweep: Sweep | None = None
    number: int | None = None
    selecting_sweep: Sweep | None = None
    run_id: str | None = None
    warnings: tuple[str, ...] = ()
    members: str = ""

    def predict(self, images: Any) -> "pd.DataFrame":
        """Return the class probabilities as a pandas frame: a row for each image, a column for each class.

        images: what a registered model takes: an array uint8 [N, H, W] (gray) or [N, H, W, 3] (color) of any size, or a
            list of images: arrays, bytes of PNG or JPEG files, or their base64 text
        Raises ValueError for anything else.
        """
        import pandas as pd

        hog = hog_of(self.config["model"])
        found = probabilities_of(self.network, self.preprocess, hog, images_in(images), len(self.class_names))
        return pd.DataFrame(found, columns=list(self.class_names))

    def __repr__(self) -> str:
        return f"TrainedModel({self.description})"


def load_model(model: Any, output_dir: str | Path = "mlruns") -> TrainedModel:
    """Load a trained network at its best epoch, with its preprocessing and class names.

    model: a trial, e.g. `sweep.best()`; a sweep or the result of `ferhpo.sweep`, for its best trial; a name as in
        `evaluate` (SWEEP, SWEEP/7, models:/NAME@ALIAS); or a path: of a sweep's folder, or of a trial's folder or
        checkpoint in it
    Raises SweepError, TrackingError, ConfigError.
    """
    if isinstance(model, TrialRecord):
        if model.sweep_folder is None:
            raise SweepError(f"trial {model.number} was not read from the folder of a sweep; load the sweep first")
        return _trained(load_sweep(model.sweep_folder), model)
    if isinstance(sweep := getattr(model, "sweep", model), Sweep):
        return find_model(str(sweep.folder), output_dir)
    if not isinstance(model, str | Path):
        raise SweepError(f"{model!r:.60} is not a trial, a sweep, a name or a path")
    for folder in (Path(model), *Path(model).parents):
        if folder.name.isdecimal() and folder.parent.name == TRIALS and (folder.parents[1] / META).exists():
            sweep = load_sweep(folder.parents[1])
            return _trained(sweep, _trial(sweep, int(folder.name)), path=Path(model) if Path(model).is_file() else None)
    return find_model(str(model), output_dir)


def find_model(
    name: str,
    output_dir: str | Path = "mlruns",
    stores: Sequence[str] = (),
    config_dir: Path | None = None,
    tracking: TrackingSettings | None = None,
) -> TrainedModel:
    """Load a model by name.

    stores: overrides tracking.KEY=... that select the store of models:/, and security.require_signature=true
    tracking: the store of models:/; an address in `stores`, which the user named, is trusted, this one is not
    Raises SweepError, TrackingError, ConfigError.
    """
    if name.startswith("models:"):
        return _registered(name, output_dir, stores, config_dir, tracking)
    sweep, trial, is_best = find_local(name, output_dir)
    return _trained(sweep, trial, is_best)


def find_local(name: str, output_dir: str | Path = "mlruns") -> tuple[Sweep, TrialRecord, bool]:
    """Return the sweep and trial that SWEEP or SWEEP/7 means, and whether it is the former. Raises SweepError."""
    sweep, number = _sweep_and_number(name, output_dir)
    trial = sweep.best() if number is None else _trial(sweep, number)
    if trial is None:
        raise SweepError(f"sweep {sweep.name} has no complete trial to evaluate; name one of its trials, e.g. {name}/0")
    return sweep, trial, number is None


def _trained(sweep: Sweep, trial: TrialRecord, is_best: bool = False, path: Path | None = None) -> TrainedModel:
    """Return the network of a trial; path: of its checkpoint, by default that of its best epoch"""
    network, preprocess, class_names = load_trial(sweep, trial, path)
    value = "" if trial.value is None else f", {sweep.objective.metric} {trial.value:.4f} at epoch {trial.best_epoch}"
    best = "the best of its sweep, " if is_best else ""
    state = shown_state(trial.state, is_running(sweep))
    return TrainedModel(
        description=f"trial {trial.number} of {sweep.name} ({best}{state}{value})",
        label=f"{sweep.name}/{trial.number}",
        network=network,
        preprocess=preprocess,
        class_names=class_names,
        config=trial.config,
        tracking=sweep.tracking,
        sweep=sweep,
        number=trial.number,
        selecting_sweep=selecting_sweep(sweep),
    )


def load_trial(
    sweep: Sweep, trial: TrialRecord, path: Path | None = None
) -> tuple[nn.Module, Preprocess, tuple[str, ...]]:
    """Return the network of a trial at its best epoch, its preprocessing and its class names.

    path: another checkpoint of the trial
    Raises SweepError if the trial has no checkpoint.
    """
    path = best_checkpoint(sweep, trial) if path is None else path
    checkpoint = read(path)
    preprocess = Preprocess.from_dict(checkpoint["preprocess"])
    class_names = tuple(checkpoint["class_names"])
    config = trial.config
    network = _with_weights(
        lambda: build_network(config, preprocess.channels, len(class_names), preprocess.image_size),
        config,
        checkpoint["network"],
        path,
    )
    return network.eval(), preprocess, class_names


def _with_weights(
    make: Callable[[], nn.Module], config: Mapping[str, Any], weights: dict[str, Any], path: Path
) -> nn.Module:
    """Return the network that `make` builds, with the weights of the checkpoint at `path`.

    Raises SweepError if they belong to another network; it is not built then.
    """
    shapes = {key: value.shape for key, value in weights.items() if isinstance(value, Tensor)}
    is_own = not str(config["model"].get("_target_")).startswith("ferhpo.")
    try:
        network = build_fitting(make, shapes, is_own)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise SweepError(f"{path} has the weights of another network: {first_line(error)}") from None
    load_weights(network, weights, path)
    return network


def _sweep_and_number(name: str, output_dir: str | Path) -> tuple[Sweep, int | None]:
    head, _, tail = name.rpartition("/")
    is_folder = has_meta(Path(output_dir) / name) or has_meta(Path(name))
    if head and tail.isdecimal() and not is_folder:
        return load_sweep(head, output_dir), int(tail)
    return load_sweep(name, output_dir), None


def _trial(sweep: Sweep, number: int) -> TrialRecord:
    trials = sweep.trials()
    if not 0 <= number < len(trials):
        have = f"it has trials 0 to {len(trials) - 1}" if trials else "it has none yet"
        raise SweepError(f"sweep {sweep.name} has no trial {number}; {have}")
    return trials[number]


def _registered(
    name: str,
    output_dir: str | Path,
    stores: Sequence[str],
    config_dir: Path | None,
    given: TrackingSettings | None,
) -> TrainedModel:
    from ferhpo.tracking import fetch

    is_required, stores = signature_required(stores)
    tracking, version = find_version(name, output_dir, stores, config_dir, given)
    warnings: list[str] = []
    network, described = fetch.load(tracking, version, Preprocess.from_dict, is_required, warnings)
    try:
        preprocess = Preprocess.from_dict(described["preprocess"])
    except ValueError as error:
        raise TrackingError(f"{name} cannot be loaded: {error}") from None
    sweep, number = local_trial(version, tracking, Path(output_dir))
    if sweep is not None and number is not None:
        config: Mapping[str, Any] = _trial(sweep, number).config
    elif version.run_id is not None:
        config = fetch.run_config(tracking, version.run_id)
        drop_caches(config.get("data") or {})
    else:
        raise SweepError(f"{name} has no MLflow run, so its training data are unknown")
    members = version.tags.get("ferhpo.ensemble", "")
    what = f"ensemble of trials {members}" if members else f"trial {version.tags.get('ferhpo.trial', '?')}"
    return TrainedModel(
        description=f"{version.name} version {version.number}, {what} of {version.tags.get('ferhpo.sweep', '?')}",
        label=f"models:/{version.name}/{version.number}",
        network=network.eval(),
        preprocess=preprocess,
        class_names=tuple(described["class_names"]),
        config=config,
        tracking=tracking,
        sweep=sweep,
        number=number,
        selecting_sweep=None if sweep is None else selecting_sweep(sweep),
        run_id=version.run_id,
        warnings=tuple(warnings),
        members=members,
    )


@dataclass(frozen=True)
class Subject:
    """The subject of a trial's report: its network at its best epoch, its data, its predictions for validation."""

    sweep: Sweep
    trial: TrialRecord
    network: nn.Module
    data: FaceData
    preprocess: Preprocess
    predictions: Evaluation


def load_subject(sweep: Sweep, trial: TrialRecord | int | None = None, data: FaceData | None = None) -> Subject:
    """Load a trial of a sweep with its data, and predict its validation images.

    trial: a trial or its number; by default the best one
    data: the sweep's data set without folds; loaded if not given. The subject of a cross-validated trial is the fold
        whose network is kept, on the images that this network was not trained on.
    Raises SweepError without such a trial or checkpoint, ConfigError or DataError if the data cannot be loaded.
    """
    if trial is None:
        trial = sweep.best()
        if trial is None:
            raise SweepError(f"sweep {sweep.name} has no complete trial; give the number of a trial")
    elif isinstance(trial, int):
        trial = _trial(sweep, trial)
    data = load_data(sweep.composed) if data is None else data
    if num_folds(sweep.config) is not None:
        data = fold_data(data, sweep.config["data"], KEPT_FOLD)
    checkpoint = read(path := best_checkpoint(sweep, trial))
    network = _with_weights(
        lambda: build_network(trial.config, data.channels, data.num_classes, data.image_size),
        trial.config,
        checkpoint["network"],
        path,
    )
    preprocess = Preprocess.from_dict(checkpoint["preprocess"])
    network.eval()
    return Subject(sweep, trial, network, data, preprocess, evaluate(network, data, "val", preprocess))
