"""Conclude a confirmation: rank the candidates, evaluate on test once, register one network, write confirm.json.

Note: the registered network is not the best of its candidate's seeds but the median one by validation, so that the mean
describes what is registered.
"""

import json
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ferhpo.confirmation.result import RESULT, Confirmation
from ferhpo.confirmation.statistics import means_of_lines, median_trial, rank_candidates, told_apart
from ferhpo.confirmation.text import candidates_csv, confirmation_note
from ferhpo.data.dataset import TEST, FaceData
from ferhpo.disk import write_json
from ferhpo.errors import TrackingError
from ferhpo.publish import sweep_run
from ferhpo.publish.models import export
from ferhpo.reports.sweep.leaderboard import leaderboard_csv
from ferhpo.states import RunState, TrialState
from ferhpo.storage import test_log
from ferhpo.storage.sweep import Sweep, tracking_settings
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings, add_to_run, registry, run_of
from ferhpo.tuning.finish import SHIP_SECONDS


def conclude(
    sweep: Sweep,
    record: Sweep,
    tracker: Tracker,
    settings: TrackingSettings,
    data: FaceData,
    finished: bool,
    warnings: list[str],
) -> Confirmation:
    """Close the confirmation `record` of `sweep`: the finisher of its run."""
    trials = record.trials()
    tracker.log_text(None, leaderboard_csv(record.leaderboard(), record.objective.metric), "leaderboard.csv")
    tracker.log_artifact(None, record.folder / "study.jsonl", "study")
    found, registered_trial, unshipped = None, None, 0
    if finished:
        try:
            found, registered_trial = _find(sweep, record, tracker, settings, data, trials)
        except KeyboardInterrupt:
            finished = False
    if found is None:
        tracker.close_sweep(
            RunState.STOPPED, f"**{record.name}** was stopped; ferhpo confirm --resume {record.name} goes on."
        )
    else:
        tracker.log_text(None, json.dumps(found, indent=1), RESULT)
        tracker.log_text(None, candidates_csv(found), "candidates.csv")
        tracker.log_metrics(None, _parent_metrics(found))
        tracker.set_tags(None, {"ferhpo.confirms_run": found["sweep_run"]})
        tracker.close_sweep(RunState.COMPLETE, confirmation_note(found))
    unshipped = tracker.flush(SHIP_SECONDS)
    if (
        found is not None and registered_trial is not None and found["registered"] is None
    ):  # the store was slow, or away
        with suppress(TrackingError):
            found["registered"] = _make_version(sweep, record, registered_trial, tracker, settings, data, found)
        if found["registered"] is None and not settings.off and settings.models != "none":
            warnings = [*warnings, f"its network is not registered yet; {record.resume_command} registers it"]
    view = sweep_run.view_address(tracker, settings)
    tracker.close(1.0)
    if found is not None:
        write_json(record.folder / RESULT, found)
        warnings = [*warnings, *test_log.repeated(sweep.name, test_log.read_all(sweep.folder)), *_tell(sweep, found)]
    registered = None if found is None else found["registered"]
    return Confirmation(
        record,
        dict(Counter(trial.state for trial in trials)),
        finished,
        registered_trial,
        None if registered is None else (registered["name"], registered["version"]),
        unshipped,
        view,
        warnings,
        sweep,
        found,
    )


def _find(
    sweep: Sweep,
    record: Sweep,
    tracker: Tracker,
    settings: TrackingSettings,
    data: FaceData,
    trials: list[TrialRecord],
) -> tuple[dict[str, Any], TrialRecord | None]:
    """What confirm.json holds, and the trial whose network is registered."""
    begun, objective = record.config["confirm"], record.objective
    of_sweep = {trial.number: trial for trial in sweep.trials()}
    changed = list(begun["changed"])
    if not changed and sweep.meta.get("data", {}).get("digest", data.digest) != data.digest:
        changed = [f"other data: {data.source}, digest {data.digest[:12]}"]
    candidates = rank_candidates([of_sweep[n] for n in begun["candidates"]], trials, objective, not changed)
    first = candidates[0]
    winner = next(candidate for candidate in candidates if candidate.trial == begun["candidates"][0])
    found: dict[str, Any] = {
        "sweep": sweep.name,
        "sweep_id": sweep.id,
        "sweep_run": run_of(sweep.folder, settings, None) or "",
        "experiment_id": tracker.experiment_id or "",
        "confirmation": record.name,
        "objective": objective.metric,
        "mode": objective.mode,
        "level": begun["level"],
        "seeds": begun["seeds"],
        "changed": changed,
        "split_name": data.split_name,
        "data": data.source,
        "data_digest": data.digest,
        "candidates": [asdict(candidate) for candidate in candidates],
        "told_apart": told_apart(candidates),
        "chosen": None if first.score is None else first.trial,
        "winner": winner.trial,
        "luck": None if winner.luck is None else asdict(winner.luck),
        "test": None,
        "no_test": "",
        "registered": None,
    }
    if first.score is None:
        found["no_test"] = "no training of a candidate came to an end"
        return json.loads(json.dumps(found)), None
    mine = [trial for trial in trials if trial.number in first.trials and trial.state == TrialState.COMPLETE]
    if (data.split == TEST).any():
        noted = _read_test(sweep, record, mine, data)
        found["test"] = noted[-1]["scores"]
        _log_test(noted, mine, tracker)
    else:
        found["no_test"] = f"data.split={data.split_name} leaves no test images"
    middle = median_trial(mine, objective)
    found["registered"] = _register(sweep, record, middle, tracker, settings, data, found)
    return json.loads(json.dumps(found)), middle


def _read_test(sweep: Sweep, record: Sweep, mine: list[TrialRecord], data: FaceData) -> list[test_log.Reading]:
    """The readings up to that of the chosen candidate's networks on the test images. They are read once: a resumed
    confirmation takes what was noted before."""
    noted = test_log.read_all(sweep.folder)
    for count, reading in enumerate(noted, start=1):
        if reading.get("confirmation_id") == record.id:
            return noted[:count]
    from ferhpo.evaluation.load import load_trial
    from ferhpo.scoring.device_data import default_device
    from ferhpo.scoring.predict import evaluate
    from ferhpo.scoring.scores import score_lines
    from ferhpo.scoring.ten_crop import evaluate_ten_crop

    lines: dict[str, list[dict[str, Any]]] = {"one_view": [], "ten_crop": []}
    for trial in mine:
        network, preprocess, _ = load_trial(record, trial)
        network.to(default_device())
        lines["one_view"].append(asdict(score_lines(evaluate(network, data, "test", preprocess), data)))
        if data.features is None:  # features belong to the whole image: there are none of a crop
            answers = evaluate_ten_crop(network, data, "test", preprocess)
            lines["ten_crop"].append(asdict(score_lines(answers, data)))
    scores = {way: means_of_lines(each) if each else None for way, each in lines.items()}
    scores = json.loads(json.dumps(scores, default=asdict))
    numbers = ", ".join(str(trial.number) for trial in mine)
    model = f"{record.name}, trials {numbers}"
    reading = test_log.new_reading("confirm", model, data, scores, confirmation_id=record.id)
    return test_log.note(sweep.folder, reading)


def _log_test(noted: list[test_log.Reading], mine: list[TrialRecord], tracker: Tracker) -> None:
    """The test scores of each network in its trial's run."""
    for index, trial in enumerate(mine):
        own = {
            way: {
                line: {key: value if key == "n" else value["values"][index] for key, value in scores.items()}
                for line, scores in lines.items()
                if scores
            }
            for way, lines in noted[-1]["scores"].items()
            if lines
        }
        tracker.log_metrics(trial.number, test_log.metrics(own))
        tracker.set_tags(trial.number, test_log.tags(noted[-1], len(noted)))


def _register(
    sweep: Sweep,
    record: Sweep,
    trial: TrialRecord,
    tracker: Tracker,
    settings: TrackingSettings,
    data: FaceData,
    found: dict[str, Any],
) -> dict[str, Any] | None:
    """Make the network of `trial` a new version of the sweep's registered model; None where there is no store."""
    if settings.off or settings.models == "none":
        return None
    export(record, trial, tracker, data.digest)
    if tracker.flush(SHIP_SECONDS):
        return None
    return _make_version(sweep, record, trial, tracker, settings, data, found)


def _make_version(
    sweep: Sweep,
    record: Sweep,
    trial: TrialRecord,
    tracker: Tracker,
    settings: TrackingSettings,
    data: FaceData,
    found: dict[str, Any],
) -> dict[str, Any] | None:
    """The version of an exported network; None where the store does not have it."""
    name, objective = settings.registered_name(sweep.name), record.objective
    first = found["candidates"][0]
    score = first["score"]
    model_id = tracker.model_id(trial.number)
    if model_id is None:
        return None
    tags = {
        "ferhpo.sweep": record.name,
        "ferhpo.trial": str(trial.number),
        "ferhpo.split": data.split_name,
        "ferhpo.confirms": sweep.name,
        "ferhpo.candidate": str(first["trial"]),
        "ferhpo.seed": str(trial.seed),
        "ferhpo.num_seeds": str(score["n"]),
        f"ferhpo.mean_{objective.metric}": f"{score['mean']:.4f}",
        "ferhpo.confirmation_id": record.id,
    }
    description = (
        f"Trial {first['trial']} of sweep {sweep.name}, chosen by its mean {objective.metric} of {score['mean']:.4f} "
        f"over {score['n']} fresh seeds ({record.name}); the network of the middle seed, trial {trial.number}: "
        f"{trial.value:.4f}"
    )
    known = [v for v in registry.versions(settings, name) if v.tags.get("ferhpo.confirmation_id") == record.id]
    version = known[0].number if known else registry.register(settings, model_id, name, tags, description)
    return {"name": name, "version": version, "trial": trial.number, "seed": trial.seed, "value": trial.value}


def _parent_metrics(found: dict[str, Any]) -> dict[str, float]:
    """What the confirmation's parent run has once."""
    first, metric = found["candidates"][0], found["objective"]
    values = {"num_candidates": float(len(found["candidates"])), "num_seeds": float(len(found["seeds"]))}
    if first["score"]:
        values |= {"chosen_candidate": float(first["trial"]), f"mean_{metric}": first["score"]["mean"]}
    if found["luck"]:
        values["luck"] = found["luck"]["mean"]
    for way, lines in (found["test"] or {}).items():
        for line, scores in (lines or {}).items():
            end = ("_clean" if line == "clean" else "") + ("_ten_crop" if way == "ten_crop" else "")
            values |= {f"mean_test_{key}{end}": v["mean"] for key, v in (scores or {}).items() if key != "n"}
    return values


def _tell(sweep: Sweep, found: dict[str, Any]) -> list[str]:
    """Say in the confirmed sweep's MLflow run that it was confirmed, and to what."""
    settings, score = tracking_settings(sweep.config), found["candidates"][0]["score"]
    tags = {"ferhpo.confirmed_by": found["confirmation"], "ferhpo.confirmed_trial": str(found["chosen"])}
    if score:
        tags[f"ferhpo.confirmed_mean_{found['objective']}"] = f"{score['mean']:.4f}"
    try:
        left = add_to_run(sweep.folder, settings, None, tags, {}, SHIP_SECONDS)
    except TrackingError as error:
        return [str(error)]
    return [f"{left} records wait for MLflow; ferhpo sync {sweep.name} ships them"] if left else []
