"""The verb `ensemble`: choose networks of a sweep whose mean probabilities are better than the best one's.

The members are chosen by the predictions that the trials keep (scoring/statistics/greedy.py); no network is trained or
run. Of a confirmation, the networks of its best candidate are averaged: its seeds, each with the same share.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ferhpo.config.folds import num_folds
from ferhpo.disk import disk_refused, write_json
from ferhpo.errors import ConfigError, SweepError, TrackingError
from ferhpo.evaluation.chosen import kept_predictions, same_images
from ferhpo.scoring.kept import ValPredictions
from ferhpo.scoring.objective import Objective
from ferhpo.scoring.statistics.choice import OF_CONFUSION
from ferhpo.scoring.statistics.greedy import Score, accuracy_score, confusion_score, loss_score, mean_of, select
from ferhpo.scoring.statistics.paired import Difference, difference
from ferhpo.storage.checkpoints import best_checkpoint, has_checkpoint
from ferhpo.storage.sweep import KIND, Sweep, load_sweep
from ferhpo.storage.trial_record import TrialRecord, completed, ranked
from ferhpo.text import markdown
from ferhpo.tracking import run_of

FOLDER = "ensemble"  # in the sweep's folder
FEWEST, DEFAULT_TOP, MOST = 2, 8, 50


@dataclass(frozen=True)
class EnsembleMember:
    """A network of an ensemble: its trial and its share of the mean."""

    trial: int
    share: float


@dataclass(frozen=True)
class EnsembleResult:
    """The result of `ensemble`.

    metric: what the members were chosen by; value: of the ensemble on the validation images; single: of the best trial
    corrected: the value to expect on other images, and `gain` over the best trial with its interval; None for a
        confirmation, whose members are not chosen by their scores
    paired: how often the ensemble and the best trial alone are right on the validation images, not corrected
    folder: of the exported model; registered: name and version, or None
    """

    sweep: str
    members: list[EnsembleMember]
    candidates: list[int]
    num_images: int
    metric: str
    value: float
    best_trial: int
    single: float
    corrected: float | None
    gain: float | None
    low: float | None
    high: float | None
    paired: Difference
    folder: Path
    registered: tuple[str, int] | None = None
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return what --json prints."""
        return {**asdict(self), "folder": str(self.folder)}


def ensemble(
    name: str, top: int | None = None, *, register: bool = True, output_dir: str | Path = "mlruns"
) -> EnsembleResult:
    """Make one model of several networks of a sweep, or of the seeds of a confirmation, and register it.

    top: how many of the best complete trials are considered (default: 8); not for a confirmation
    register: whether to register it in the sweep's MLflow store; it is exported in any case
    Raises ConfigError, SweepError, StorageError, TrackingError.
    """
    from ferhpo.inference.export import export_ensemble

    if top is not None and not FEWEST <= top <= MOST:
        raise ConfigError("ensemble", [f"--top is {top}; it must be from {FEWEST} to {MOST}"])
    sweep = load_sweep(name, output_dir)
    is_confirmation = sweep.meta["kind"] == KIND
    if num_folds(sweep.config) is not None:
        raise SweepError(f"{sweep.name} is cross-validated; an ensemble needs trials that predict the same images")
    if is_confirmation and top is not None:
        raise ConfigError(
            "ensemble", ["--top does not apply to a confirmation; all seeds of its best candidate are used"]
        )
    candidates = _best_candidate(sweep) if is_confirmation else _candidates(sweep, top or DEFAULT_TOP)
    kept = [found for trial in candidates if (found := kept_predictions(sweep, trial)) is not None]
    probabilities = np.stack([found.probabilities.astype(np.float32) for found in kept])
    labels = kept[0].labels
    metric, score = _score(sweep.objective, kept[0])
    ones = np.ones(len(labels), np.float32)
    singles = score(probabilities, ones)
    best = int(singles.argmax())
    chosen = None if is_confirmation else select(probabilities, score)
    counts = dict.fromkeys(range(len(candidates)), 1) if chosen is None else chosen.counts
    places = [place for place, count in counts.items() for _ in range(count)]
    mean = mean_of(probabilities, places)
    sign = Objective(metric).score(1.0)
    value = sign * float(score(mean[None], ones)[0])
    members = [
        EnsembleMember(candidates[place].number, counts[place] / len(places))
        for place in sorted(counts, key=lambda place: (-counts[place], place))
    ]
    by_number = {trial.number: trial for trial in candidates}
    sources = [
        (best_checkpoint(sweep, by_number[member.trial]), by_number[member.trial].config["model"], member.share)
        for member in members
    ]
    folder = sweep.folder / FOLDER / _label(members)
    digest = sweep.meta.get("data", {}).get("digest", kept[0].digest)
    scores = {metric: value, "val_acc": float((mean.argmax(1) == labels).mean())}
    try:
        export_ensemble(sources, folder / "model", digest, scores)
    except ValueError as error:
        raise SweepError(f"{sweep.name}: the ensemble cannot be exported: {error}") from None
    except OSError as error:
        raise disk_refused(folder, error) from None
    result = EnsembleResult(
        sweep=sweep.name,
        members=members,
        candidates=[trial.number for trial in candidates],
        num_images=len(labels),
        metric=metric,
        value=value,
        best_trial=candidates[best].number,
        single=sign * float(singles[best]),
        corrected=None if chosen is None else sign * chosen.corrected,
        gain=None if chosen is None else sign * chosen.gain,
        low=None if chosen is None else min(sign * chosen.low, sign * chosen.high),
        high=None if chosen is None else max(sign * chosen.low, sign * chosen.high),
        paired=difference(mean.argmax(1) == labels, probabilities[best].argmax(1) == labels),
        folder=folder / "model",
    )
    try:
        write_json(folder / "ensemble.json", result.to_json())
    except OSError as error:
        raise disk_refused(folder, error) from None
    return result if not register or sweep.tracking.off else _registered(result, sweep)


def _candidates(sweep: Sweep, top: int) -> list[TrialRecord]:
    """Return the best complete trials that have a checkpoint and predictions for the same images as the best one."""
    found: list[TrialRecord] = []
    first: ValPredictions | None = None
    for trial in completed(ranked(sweep.trials(), sweep.objective)):
        kept = kept_predictions(sweep, trial) if has_checkpoint(sweep, trial) else None
        if kept is not None and (first is None or same_images(kept, first)):
            first = first or kept
            found.append(trial)
        if len(found) == top:
            break
    if len(found) < FEWEST:
        raise SweepError(
            f"{sweep.name} has {len(found)} complete trials with a checkpoint and stored predictions; an ensemble "
            f"needs at least {FEWEST}; keep more checkpoints with keep_checkpoints=..."
        )
    return found


def _best_candidate(sweep: Sweep) -> list[TrialRecord]:
    """Return the complete trials of the sample with the best mean value."""
    groups: dict[str, list[TrialRecord]] = {}
    for trial in completed(sweep.trials()):
        if has_checkpoint(sweep, trial) and kept_predictions(sweep, trial) is not None:
            groups.setdefault(json.dumps(trial.sample, sort_keys=True), []).append(trial)
    groups = {sample: trials for sample, trials in groups.items() if len(trials) >= FEWEST}
    if not groups:
        raise SweepError(
            f"{sweep.name} has no candidate with {FEWEST} complete seeds whose checkpoints are kept; confirm with "
            "--seeds 3 and keep_checkpoints=all"
        )

    def mean(trials: Sequence[TrialRecord]) -> float:
        return float(np.mean([sweep.objective.score(trial.value) for trial in trials if trial.value is not None]))

    return max(groups.values(), key=mean)


def _score(objective: Objective, kept: ValPredictions) -> tuple[str, Score]:
    """Return the metric that members are chosen by, the objective if it can be averaged so, and its score."""
    metric, num_classes = objective.metric, kept.probabilities.shape[1]
    if metric == "val_loss":
        return metric, loss_score(kept.labels)
    if metric in OF_CONFUSION:
        return metric, confusion_score(kept.labels, num_classes, OF_CONFUSION[metric])
    return "val_acc", accuracy_score(kept.labels)


def _label(members: Sequence[EnsembleMember]) -> str:
    """Return a name of the ensemble's folder: the trials, each with its share in percent."""
    label = "-".join(f"{member.trial}x{round(100 * member.share)}" for member in members)
    return label if len(label) <= 100 else f"{label[:80]}-and-more-{len(members)}"


def _registered(result: EnsembleResult, sweep: Sweep) -> EnsembleResult:
    """Register the exported ensemble beside the sweep's own models."""
    from ferhpo.tracking import registry

    run_id = run_of(sweep.folder, sweep.tracking, None)
    if run_id is None:
        raise TrackingError(f"the run of {sweep.name} is not in MLflow yet; upload it with: {sweep.command('sync')}")
    name = sweep.tracking.registered_name(sweep.name)
    shares = ", ".join(f"trial {member.trial} ({member.share:.0%})" for member in result.members)
    note = f"Ensemble of sweep {markdown(sweep.name)}: {markdown(shares)}; {result.metric} {result.value:.4f}"
    description: Mapping[str, Any] = json.loads((result.folder / "model.json").read_text())
    tags = {
        "ferhpo.sweep": sweep.name,
        "ferhpo.ensemble": " ".join(f"{member.trial}:{member.share:.4f}" for member in result.members),
        "ferhpo.split": sweep.meta.get("data", {}).get("split_name", ""),
        registry.WEIGHTS_TAG: description["weights_sha256"],
    }
    mark = f"{sweep.id[:12]}/{FOLDER}/{description['weights_sha256'][:16]}"
    title = f"{sweep.name}-ensemble"
    version = registry.add_model(sweep.tracking, run_id, result.folder, mark, title, name, tags, note, "")
    return replace(result, registered=(name, version))


def sentences(result: EnsembleResult) -> list[str]:
    """Return what was found, in sentences."""
    shares = ", ".join(f"{member.trial} ({member.share:.0%})" for member in result.members)
    of = result.paired
    found = [
        f"Ensemble of {len(result.members)} of {len(result.candidates)} networks of {result.sweep}: {shares}.",
        f"{result.metric} {result.value:.4f} on {result.num_images:,} validation images; the best of them alone, trial "
        f"{result.best_trial}, has {result.single:.4f}.",
    ]
    if result.corrected is not None and result.gain is not None and result.low is not None and result.high is not None:
        is_better = result.low > 0 if Objective(result.metric).mode == "max" else result.high < 0
        verdict = "The ensemble is better" if is_better else "The ensemble may be no better than the best trial"
        found.append(
            f"Corrected for the choice of its members: {result.corrected:.4f}. {verdict}: the difference to expect on "
            f"other images is {result.gain:+.4f}, 95 % interval {result.low:+.4f} to {result.high:+.4f}."
        )
    else:
        found.append(
            f"The members were not chosen by their scores. {of.only_first:,} images only the ensemble gets right, "
            f"{of.only_second:,} only trial {result.best_trial} (McNemar's exact test: p = {of.p_value:.2g})."
        )
    return found
