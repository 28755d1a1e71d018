"""The verb `compare`: what differs between trained networks, and between the sweeps that they come from.

All networks are scored on the same images, so that differences have exact tests. The predictions that a trial keeps
are used if they are of these images; otherwise its network predicts them.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferhpo.config.folds import EPOCH, num_folds
from ferhpo.data.dataset import FaceData
from ferhpo.data.labels.class_names import with_classes
from ferhpo.errors import ConfigError, SweepError
from ferhpo.evaluation.chosen import as_dict, corrected_best, kept_predictions
from ferhpo.evaluation.comparison import ClassDifference, Compared, Comparison, Differing, Pair, SweepFacts
from ferhpo.evaluation.evaluate import check_fits, data_section, divided, load_for, training_data
from ferhpo.evaluation.load import TrainedModel, find_local, find_model
from ferhpo.keys import PLACES, Overrides, leaves
from ferhpo.scoring.device_data import device_for
from ferhpo.scoring.predict import evaluate as predict
from ferhpo.scoring.scores import class_scores, in_training_mask, score
from ferhpo.scoring.statistics.paired import difference, holm, wilson
from ferhpo.states import TrialState
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.trial.load_data import fold_data

MOST_MODELS = 8
_SECTIONS = (
    "data", "augment", "model", "loss", "optim", "lr_schedule", "trainer", "objective", "sampler", "scheduler", "seed",
    "num_trials",
)  # fmt: skip
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class _Named:
    """What a name means, before its network is loaded; a network is loaded only if its predictions are not kept."""

    name: str
    sweep: Sweep | None
    trial: TrialRecord | None
    is_whole: bool
    loaded: TrainedModel | None
    output_dir: str | Path

    @property
    def config(self) -> Mapping[str, Any]:
        if self.trial is not None:
            return self.trial.config
        assert self.loaded is not None
        return self.loaded.config

    @cached_property
    def trained(self) -> TrainedModel:
        return self.loaded or find_model(self.name, self.output_dir)

    @property
    def label(self) -> str:
        if self.loaded is not None:
            return self.loaded.label
        assert self.sweep is not None
        assert self.trial is not None
        return f"{self.sweep.name}/{self.trial.number}"


def compare(
    *models: str,
    overrides: Overrides = (),
    output_dir: str | Path = "mlruns",
    config_dir: Path | None = None,
) -> Comparison:
    """Compare trained networks on the validation images of the first one's data set.

    models: at least two of SWEEP (its best trial, and the sweep as a whole), SWEEP/7, models:/NAME@ALIAS,
        models:/NAME/VERSION; a confirmation is named like a sweep
    overrides: data=... and data.KEY=... select another data set; tracking.KEY=... the store of models:/
    Raises ConfigError, DataError, SweepError, TrackingError.
    """
    own, stores, faults = divided(overrides, "a comparison")
    if not 2 <= len(models) <= MOST_MODELS:
        faults.append(f"{len(models)} models were named; compare 2 to {MOST_MODELS}")
    if len(set(models)) < len(models):
        faults.append("a model was named twice; name different ones")
    if faults:
        raise ConfigError("compare", faults)
    named = [_named(name, output_dir, stores, config_dir) for name in models]
    section = data_section(named[0], own, config_dir)
    data = load_for(named[0], section)
    class_names = data.class_names
    warnings = [text for each in named if each.loaded is not None for text in each.loaded.warnings]
    found = [_predictions(each, data, section, bool(own), warnings) for each in named]
    shared = found[0].indices
    for other in found[1:]:
        shared = np.intersect1d(shared, other.indices)
    used = shared[~np.any([each.trained_on[shared] for each in found], axis=0)]
    num_all = len(found[0].indices)
    if not len(used):
        raise ConfigError(
            "compare",
            [
                f"{', '.join(each.label for each in named)} have no validation image in common that none of them was "
                "trained on; compare them on other data with data=..."
            ],
        )
    probabilities = [each.at(used) for each in found]
    labels = data.labels[used]
    right = [values.argmax(1) == labels for values in probabilities]
    compared = [_compared(each, values, data, used) for each, values in zip(named, probabilities, strict=True)]
    return Comparison(
        split_name=data.split_name,
        source=data.source,
        data_digest=data.digest,
        n=len(used),
        left_out=num_all - len(used),
        models=compared,
        pairs=_pairs([each.label for each in named], right, labels, class_names),
        settings=_differing([each.settings for each in compared]),
        versions=_differing([each.versions for each in compared]),
        images=_images(probabilities, labels, used, class_names),
        warnings=list(dict.fromkeys(warnings)),
        data=data,
    )


@dataclass(frozen=True)
class _Found:
    """The predictions of a network: probabilities [N, classes] of the images at `indices`, which are sorted.

    trained_on: bool, over all images of the data set: whether the network was trained on the pixels
    """

    indices: Indices
    probabilities: Floats
    trained_on: Bools

    def at(self, images: Indices) -> Floats:
        return self.probabilities[np.searchsorted(self.indices, images)]


def _named(name: str, output_dir: str | Path, stores: Sequence[str], config_dir: Path | None) -> _Named:
    if name.startswith("models:"):
        loaded = find_model(name, output_dir, stores, config_dir)
        trial = None if loaded.sweep is None or loaded.number is None else loaded.sweep.trials()[loaded.number]
        return _Named(name, loaded.sweep, trial, False, loaded, output_dir)
    sweep, trial, is_best = find_local(name, output_dir)
    return _Named(name, sweep, trial, is_best, None, output_dir)


def _predictions(
    named: _Named, data: FaceData, section: Mapping[str, Any], is_other: bool, warnings: list[str]
) -> _Found:
    """Return the predictions of a network for validation images of `data`: those that it keeps, or new ones."""
    nothing = np.zeros(len(data.labels), np.bool_)
    if named.sweep is not None and named.trial is not None and not is_other:
        kept = kept_predictions(named.sweep, named.trial)
        folds = num_folds(named.config)
        digest = data.digest if folds is None else fold_data(data, section, 0).digest
        if kept is not None and kept.digest == digest and kept.is_of(data):
            order = np.argsort(kept.indices)
            return _Found(kept.indices[order], kept.probabilities[order].astype(np.float32), nothing)
    trained = named.trained
    training, more = training_data(trained, section, data, is_other or dict(trained.config["data"]) != dict(section))
    warnings += more
    check_fits(trained, section, data, training, "val")
    ordered = with_classes(data, trained.class_names)
    predicted = predict(trained.network.to(device_for(trained.config)), ordered, "val", trained.preprocess)
    columns = [ordered.class_names.index(name) for name in data.class_names]
    if training is None:
        warnings.append(
            f"the training images of {named.label} are unknown; it may have been trained on compared images"
        )
    is_same = training is None or training.digest == data.digest
    trained_on = nothing if is_same or training is None else in_training_mask(data, training)
    return _Found(predicted.indices, predicted.probabilities[:, columns], trained_on)


def _compared(named: _Named, probabilities: Floats, data: FaceData, used: Indices) -> Compared:
    labels, predicted = data.labels[used], probabilities.argmax(1)
    confusion = np.zeros((data.num_classes, data.num_classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    scores = score(probabilities, data, used)
    low, high = wilson(int((predicted == labels).sum()), len(labels))
    trial, sweep = named.trial, named.sweep
    config = {key: value for key, value in named.config.items() if key in _SECTIONS}
    settings = {key: value for key, value in leaves(config) if key.rpartition(".")[2] not in PLACES}
    if named.loaded is not None and named.loaded.members:
        settings = {"ensemble of": named.loaded.members}  # each member has settings of its own
    return Compared(
        name=named.name,
        label=named.label,
        description=_description(named),
        acc=scores.acc,
        low=low,
        high=high,
        macro_f1=scores.macro_f1,
        loss=scores.loss,
        classes=class_scores(confusion, data.class_names),
        num_parameters=None if trial is None else trial.extra.get("num_parameters"),
        seconds=None if trial is None else trial.seconds,
        settings=settings,
        versions=_versions(named),
        objective="" if sweep is None else sweep.objective.metric,
        curve=[]
        if trial is None or sweep is None
        else [(int(row[EPOCH]), row[sweep.objective.metric]) for row in trial.epochs if sweep.objective.metric in row],
        sweep=_sweep_facts(sweep) if sweep is not None and named.is_whole else None,
    )


def _description(named: _Named) -> str:
    if named.loaded is not None:
        return named.loaded.description
    return f"{'best trial' if named.is_whole else 'trial'} of its sweep: {named.label}"


def _versions(named: _Named) -> dict[str, str]:
    """Return the versions and the commit that trained a network, as far as they are recorded here."""
    if named.sweep is None:
        return {}
    git = {f"git {key}": str(value) for key, value in named.sweep.meta["git"].items()}
    code = {f"code {key}": str(value) for key, value in named.sweep.meta.get("code", {}).items()}
    return {**{key: str(value) for key, value in named.sweep.meta["versions"].items()}, **git, **code}


def _sweep_facts(sweep: Sweep) -> SweepFacts:
    trials = sweep.trials()
    corrected = None
    try:
        found, _ = corrected_best(sweep, trials)
        corrected = None if found is None else as_dict(found)
    except SweepError:
        pass  # a damaged file of a trial that is not compared
    return SweepFacts(
        num_trials=len(trials),
        num_complete=sum(trial.state == TrialState.COMPLETE for trial in trials),
        seconds=sum(trial.seconds or 0.0 for trial in trials),
        corrected=corrected,
    )


def _pairs(
    names: Sequence[str], right: Sequence[Bools], labels: NDArray[np.int64], class_names: Sequence[str]
) -> list[Pair]:
    places = list(itertools.combinations(range(len(names)), 2))
    found = [difference(right[one], right[other]) for one, other in places]
    adjusted = holm([each.p_value for each in found])
    pairs = []
    for (one, other), each, p_value in zip(places, found, adjusted, strict=True):
        classes = []
        for label, name in enumerate(class_names):
            if (labels == label).any():
                of_class = difference(right[one][labels == label], right[other][labels == label])
                counts = of_class.n, of_class.only_first, of_class.only_second, of_class.p_value
                classes.append(ClassDifference(name, *counts))
        pairs.append(Pair(names[one], names[other], each, p_value, classes))
    return pairs


def _differing(of_models: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Return the keys whose values are not the same in all mappings, with these values."""
    keys = list(dict.fromkeys(key for values in of_models for key in values))
    rows = [(key, [values.get(key) for values in of_models]) for key in keys]
    return [(key, values) for key, values in rows if any(repr(value) != repr(values[0]) for value in values)]


def _images(
    probabilities: Sequence[Floats], labels: NDArray[np.int64], used: Indices, class_names: Sequence[str]
) -> list[Differing]:
    predicted = np.stack([values.argmax(1) for values in probabilities])
    confidence = np.stack([values.max(1) for values in probabilities])
    differs = np.flatnonzero((predicted != predicted[0]).any(0))
    # Surest first: the least sure network of each image counts.
    order = differs[np.argsort(-confidence[:, differs].min(0), kind="stable")]
    return [
        Differing(
            index=int(used[place]),
            label=class_names[labels[place]],
            predicted=[class_names[number] for number in predicted[:, place]],
            probabilities=[round(float(value), 4) for value in confidence[:, place]],
        )
        for place in order
    ]
