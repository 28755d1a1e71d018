"""Conclude a confirmation: rank the candidates, evaluate on test once, register one network, write confirm.json.

Note: the registered network is not the best of its candidate's seeds but the median one by validation, so that the mean
describes what is registered.
"""

import json
import logging
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

from ferhpo.confirmation.result import RESULT, Confirmation, ConfirmationFound, MeanTestScores, Registered
from ferhpo.confirmation.statistics import is_distinct, mean_curves, mean_variants, median_trial, rank_candidates
from ferhpo.confirmation.text import candidates_csv, confirmation_note
from ferhpo.data.dataset import TEST, FaceData
from ferhpo.disk import write_json
from ferhpo.errors import FerhpoError, StorageError, first_line
from ferhpo.optional import optional
from ferhpo.publish import sweep_run
from ferhpo.publish.models import export, exported_facts
from ferhpo.reports.sweep.leaderboard import leaderboard_csv
from ferhpo.states import RunState, TrialState
from ferhpo.storage import evaluation_log
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import markdown
from ferhpo.tracking import Tracker, TrackingSettings, add_to_run, registry, run_of
from ferhpo.tuning.finish import SHIP_SECONDS

log = logging.getLogger("ferhpo.sweep")


def conclude(
    sweep: Sweep,
    confirmation: Sweep,
    tracker: Tracker,
    tracking: TrackingSettings,
    data: FaceData,
    finished: bool,
    warnings: list[str],
) -> Confirmation:
    """Finish the run of a confirmation of `sweep`; a `tuning.result.Finisher` but for its first argument."""
    trials = confirmation.trials()
    warnings = list(warnings)
    with optional("the leaderboard is not in MLflow", warnings):
        table = leaderboard_csv(confirmation.leaderboard(), confirmation.objective.metric)
        tracker.log_text(None, table, "leaderboard.csv")
        tracker.log_artifact(None, confirmation.folder / "study.jsonl", "study")
    found, median = None, None
    if finished:
        try:
            found, median = _find(sweep, confirmation, tracker, tracking, data, trials)
        except KeyboardInterrupt:
            finished = False
    if found is None:
        tracker.close_sweep(
            RunState.STOPPED,
            f"**{confirmation.name}** was interrupted. Resume with: {confirmation.resume_command}",
        )
    else:
        note = f"**{markdown(confirmation.name)}** ended."
        with optional("the result is not complete in MLflow", warnings):
            tracker.log_text(None, json.dumps(found.to_json(), indent=1), RESULT)
            tracker.log_text(None, candidates_csv(found), "candidates.csv")
            tracker.log_metrics(None, _parent_metrics(found))
            tracker.log_curves(None, mean_curves(trials))
            tracker.set_tags(None, {"ferhpo.confirms_run": found.sweep_run})
            note = confirmation_note(found)
        tracker.close_sweep(RunState.COMPLETE, note)
    unshipped = tracker.flush(SHIP_SECONDS)
    if found is not None and median is not None and found.registered is None:  # the store was slow or unreachable
        with optional("the network is not registered", warnings):
            found = replace(found, registered=_make_version(found, confirmation, median, tracker, tracking, data))
        if found.registered is None and not tracking.off and tracking.models != "none":
            command = confirmation.resume_command
            warnings.append(f"the network is not registered yet; register it with: {command}")
    view = sweep_run.view_address(tracker, tracking)
    tracker.close(1.0)
    if found is not None:
        write_json(confirmation.folder / RESULT, found.to_json())
        log = evaluation_log.read_all(sweep.folder)
        warnings = [*warnings, *evaluation_log.repeat_warnings(sweep.name, log), *_tag_sweep(sweep, found)]
    registered = None if found is None else found.registered
    return Confirmation(
        confirmation,
        dict(Counter(trial.state for trial in trials)),
        finished,
        median,
        None if registered is None else (registered.name, registered.version),
        unshipped,
        view,
        warnings,
        confirmed=sweep,
        found=found,
    )


def _find(
    sweep: Sweep,
    confirmation: Sweep,
    tracker: Tracker,
    tracking: TrackingSettings,
    data: FaceData,
    trials: list[TrialRecord],
) -> tuple[ConfirmationFound, TrialRecord | None]:
    """Return the content of confirm.json, and the trial whose network is registered."""
    plan, objective = confirmation.config["confirm"], confirmation.objective
    of_sweep = {trial.number: trial for trial in sweep.trials()}
    changed = list(plan["changed"])
    if not changed and sweep.meta.get("data", {}).get("digest", data.digest) != data.digest:
        changed = [f"different data: {data.source}, digest {data.digest[:12]}"]
    candidates = rank_candidates([of_sweep[n] for n in plan["candidates"]], trials, objective, not changed)
    best = candidates[0]
    winner = next(candidate for candidate in candidates if candidate.trial == plan["candidates"][0])
    found = ConfirmationFound(
        sweep=sweep.name,
        sweep_id=sweep.id,
        sweep_run=run_of(sweep.folder, tracking, None) or "",
        experiment_id=tracker.experiment_id or "",
        confirmation=confirmation.name,
        objective=objective.metric,
        mode=objective.mode,
        level=plan["level"],
        seeds=tuple(plan["seeds"]),
        changed=tuple(changed),
        split_name=data.split_name,
        data=data.source,
        data_digest=data.digest,
        candidates=tuple(candidates),
        is_distinct=is_distinct(candidates),
        chosen=None if best.score is None else best.trial,
        winner=winner.trial,
        luck=winner.luck,
    )
    if best.score is None:
        return replace(found, no_test=f"no candidate finished a training with a {objective.metric}"), None
    retrained = [trial for trial in trials if trial.number in best.trials and trial.state == TrialState.COMPLETE]
    if (data.split == TEST).any():
        log = _evaluate_on_test(sweep, confirmation, retrained, data)
        found = replace(found, test=MeanTestScores.from_json(log[-1]["scores"]))
        _log_test(log, retrained, tracker)
    else:
        found = replace(found, no_test=f"data.split={data.split_name} leaves no test images")
    median = median_trial(retrained, objective)
    return replace(found, registered=_register(found, confirmation, median, tracker, tracking, data)), median


def _evaluate_on_test(
    sweep: Sweep, confirmation: Sweep, retrained: list[TrialRecord], data: FaceData
) -> list[evaluation_log.TestEvaluation]:
    """Evaluate the selected candidate's networks on test; return the test log up to this evaluation.

    It happens once: a resumed confirmation takes the scores from the log.
    """
    log = evaluation_log.read_all(sweep.folder)
    for count, entry in enumerate(log, start=1):
        if entry.get("confirmation_id") == confirmation.id:
            return log[:count]
    from ferhpo.evaluation.load import load_trial
    from ferhpo.scoring.device_data import device_for
    from ferhpo.scoring.predict import evaluate
    from ferhpo.scoring.scores import score_variants
    from ferhpo.scoring.ten_crop import evaluate_ten_crop

    one_view, ten_crop = [], []
    for trial in retrained:
        network, preprocess, _ = load_trial(confirmation, trial)
        network.to(device_for(confirmation.config))
        one_view.append(score_variants(evaluate(network, data, "test", preprocess), data))
        if data.features is None:  # features describe the whole image: a crop has none
            ten_crop.append(score_variants(evaluate_ten_crop(network, data, "test", preprocess), data))
    scores = MeanTestScores(mean_variants(one_view), mean_variants(ten_crop) if ten_crop else None)
    numbers = ", ".join(str(trial.number) for trial in retrained)
    model = f"{confirmation.name}, trials {numbers}"
    entry = evaluation_log.new_entry("confirm", model, data, scores.to_json(), confirmation_id=confirmation.id)
    return evaluation_log.append(sweep.folder, entry)


def _log_test(log: list[evaluation_log.TestEvaluation], retrained: list[TrialRecord], tracker: Tracker) -> None:
    """Log the test scores of each network to its trial's run."""
    for index, trial in enumerate(retrained):
        own = {
            view: {
                variant: {key: value if key == "n" else value["values"][index] for key, value in scores.items()}
                for variant, scores in variants.items()
                if scores
            }
            for view, variants in log[-1]["scores"].items()
            if variants
        }
        tracker.log_metrics(trial.number, evaluation_log.metrics(own))
        tracker.set_tags(trial.number, evaluation_log.tags(log[-1], len(log)))


def _register(
    found: ConfirmationFound,
    confirmation: Sweep,
    trial: TrialRecord,
    tracker: Tracker,
    tracking: TrackingSettings,
    data: FaceData,
) -> Registered | None:
    """Make the network of `trial` a new version of the sweep's registered model; None without a store."""
    if tracking.off or tracking.models == "none":
        return None
    try:
        export(confirmation, trial, tracker, data.digest)
        if tracker.flush(SHIP_SECONDS):
            return None
        return _make_version(found, confirmation, trial, tracker, tracking, data)
    except StorageError:
        raise
    except Exception as error:  # the result is complete without it, and a resume registers it
        log.warning("the network of trial %d is not registered: %s", trial.number, first_line(error))
        return None


def _make_version(
    found: ConfirmationFound,
    confirmation: Sweep,
    trial: TrialRecord,
    tracker: Tracker,
    tracking: TrackingSettings,
    data: FaceData,
) -> Registered | None:
    """Register an exported network; None if the store does not have it."""
    name, objective, best = tracking.registered_name(found.sweep), confirmation.objective, found.best
    assert best.score is not None
    model_id = tracker.model_id(trial.number)
    if model_id is None:
        return None
    tags = {
        "ferhpo.sweep": confirmation.name,
        "ferhpo.trial": str(trial.number),
        "ferhpo.split": data.split_name,
        "ferhpo.confirms": found.sweep,
        "ferhpo.candidate": str(best.trial),
        "ferhpo.seed": str(trial.seed),
        "ferhpo.num_seeds": str(best.score.n),
        f"ferhpo.mean_{objective.metric}": f"{best.score.mean:.4f}",
        "ferhpo.confirmation_id": confirmation.id,
    }
    description = (
        f"Trial {best.trial} of sweep {found.sweep}, selected by its mean {objective.metric} of {best.score.mean:.4f} "
        f"over {best.score.n} fresh seeds ({confirmation.name}); the network of the median seed, trial {trial.number}: "
        f"{trial.value:.4f}"
    )
    known = [v for v in registry.versions(tracking, name) if v.tags.get("ferhpo.confirmation_id") == confirmation.id]
    weights, about = exported_facts(confirmation, trial, found.sweep, name)
    tags |= weights
    version = known[0].number if known else registry.register(tracking, model_id, name, tags, description, about)
    return Registered(name, version, trial.number, trial.seed, trial.value)


def _parent_metrics(found: ConfirmationFound) -> dict[str, float]:
    """Return the metrics of the confirmation's parent run."""
    values = {"num_candidates": float(len(found.candidates)), "num_seeds": float(len(found.seeds))}
    if found.best.score:
        values |= {"chosen_candidate": float(found.best.trial), f"mean_{found.objective}": found.best.score.mean}
    if found.luck:
        values["luck"] = found.luck.mean
    views: dict[str, Any] = {} if found.test is None else asdict(found.test)
    for view, variants in views.items():
        for variant, scores in (variants or {}).items():
            end = evaluation_log.metric_suffix(view, variant)
            values |= {f"mean_test_{key}{end}": v["mean"] for key, v in (scores or {}).items() if key != "n"}
    return values


def _tag_sweep(sweep: Sweep, found: ConfirmationFound) -> list[str]:
    """Tag the MLflow run of the confirmed sweep with the confirmation's name and result; return warnings."""
    tracking, score = sweep.tracking, found.best.score
    tags = {"ferhpo.confirmed_by": found.confirmation, "ferhpo.confirmed_trial": str(found.chosen)}
    if score:
        tags[f"ferhpo.confirmed_mean_{found.objective}"] = f"{score.mean:.4f}"
    try:
        left = add_to_run(sweep.folder, tracking, None, tags, {}, SHIP_SECONDS)
    except (FerhpoError, OSError) as error:
        return [str(error)]
    return [f"{left} records are not in MLflow yet; upload them with: {sweep.command('sync')}"] if left else []
