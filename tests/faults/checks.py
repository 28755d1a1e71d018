"""Check a finished sweep after faults: the study and the MLflow store agree, and have everything exactly once."""

import json
from collections import Counter

import ferhpo
from ferhpo.tracking import num_unshipped
from ferhpo.tracking.store import connect

COUNTED = ("lost", "doubled", "left_running", "points_missing", "points_doubled")
ONCE = ("num_parameters", "macs", "best_val_acc", "best_epoch", "num_folds")  # metrics with one point in a trial's run


def upload_the_rest(folder):
    """Run `ferhpo sync` if records are not in MLflow yet; return whether there were any."""
    sweep = ferhpo.load_sweep("round", folder)
    settings = sweep.tracking
    has_rest = num_unshipped(sweep.folder, settings) > 0
    if has_rest:
        ferhpo.sync("round", str(folder))
    assert num_unshipped(sweep.folder, settings) == 0
    return has_rest


def check(played, seen, folder):
    """Return counts for COUNTED, and a complaint in words about everything that is wrong.

    played: the round; seen: the trials of the study after each driver
    """
    counts, complaints = dict.fromkeys(COUNTED, 0), []
    sweep = ferhpo.load_sweep("round", folder)
    trials = sweep.trials()
    _check_study(played, sweep, trials, counts, complaints)
    _check_history(seen, trials, complaints)
    _check_store(sweep, trials, counts, complaints)
    complaints += [f"{key} is {value}" for key, value in counts.items() if value]
    return counts, complaints


def _check_study(played, sweep, trials, counts, complaints):
    """Check that every trial was asked once and has ended, and that its epochs (or folds) have no gap or duplicate."""
    numbers = [trial.number for trial in trials]
    counts["lost"] += len(set(range(played.num_trials)) - set(numbers))
    if numbers != list(range(played.num_trials)):
        complaints.append(f"the study has the trials {numbers}")
    written = Counter()
    for line in (sweep.folder / "study.jsonl").read_text().splitlines():
        operation = json.loads(line)
        for key in operation.get("user_attr", {}):
            if "trial_id" in operation and key.partition(":")[0] in ("epoch", "fold"):
                written[operation["trial_id"], key] += 1
    duplicates = [key for key, count in written.items() if count > 1]
    counts["doubled"] += len(duplicates)
    complaints += [
        f"the journal has {key} of trial {number} {written[number, key]} times" for number, key in duplicates
    ]
    num_all = played.folds or played.num_epochs
    for trial in trials:
        unit = "fold" if played.folds else "epoch"
        if [row[unit] for row in trial.reports] != list(range(1, len(trial.reports) + 1)):
            complaints.append(f"trial {trial.number} has {unit}s {[row[unit] for row in trial.reports]}")
        pruned = trial.state == "PRUNED" and played.scheduler != "none" and trial.decisions[-1] == "STOP"
        if not pruned and not (trial.state == "COMPLETE" and len(trial.reports) == num_all):
            counts["lost"] += 1
            complaints.append(
                f"trial {trial.number} is {trial.state} after {len(trial.reports)} reports: {trial.reason}"
            )
    sequences = sorted(sequence for trial in trials for sequence in trial.sequences)
    if sequences != list(range(1, len(sequences) + 1)):
        complaints.append(f"the reports are numbered {sequences}")
    if played.sampler == "grid" and len({json.dumps(trial.sample) for trial in trials}) < len(trials):
        complaints.append("the grid has a point twice")


def _check_history(seen, trials, complaints):
    """Check that what the study had after each driver has not changed since."""
    after = {trial.number: trial for trial in trials}
    for count, before in enumerate(seen, start=1):
        for trial in before:
            now = after.get(trial.number)
            if now is None or (now.sample, now.seed) != (trial.sample, trial.seed):
                complaints.append(f"trial {trial.number} has another sample than after driver {count}")
            elif trial.reports != now.reports[: len(trial.reports)]:
                complaints.append(f"trial {trial.number} has other epochs than after driver {count}")
            elif trial.state != "RUNNING" and trial != now:
                complaints.append(f"trial {trial.number} had ended after driver {count} and changed since")


def _check_store(sweep, trials, counts, complaints):
    """Check that MLflow has one ended run per sweep, trial and fold, and each point of the study once."""
    settings = sweep.tracking
    client = connect(settings)
    experiment = client.get_experiment_by_name(settings.experiment)
    runs = client.search_runs([experiment.experiment_id], max_results=5000)
    counts["left_running"] += sum(run.info.status == "RUNNING" for run in runs)
    by_name = {}
    for run in runs:
        by_name.setdefault(run.info.run_name.partition(" (")[0], []).append(run)  # without "(pruned)"
    wanted = {"round": None}
    for trial in trials:
        wanted[f"round-{trial.number:03d}"] = (trial, trial.reports)
        for fold, epochs in enumerate(trial.fold_epochs):
            wanted[f"round-{trial.number:03d}-fold{fold}"] = (trial, epochs)
    complaints += [f"MLflow has a run {name} that the study does not have" for name in set(by_name) - set(wanted)]
    for name, known in wanted.items():
        own = by_name.get(name, [])
        counts["lost"] += not own
        counts["doubled"] += max(len(own) - 1, 0)
        for run in own:
            is_trial = known is not None and "fold" not in name
            state = known[0].state if is_trial else "COMPLETE"
            if (run.info.status, run.data.tags.get("ferhpo.state")) != ("FINISHED", state):
                complaints.append(f"run {name} is {run.info.status}, {run.data.tags.get('ferhpo.state')}")
            if known is not None:
                _check_points(client, run, known[1], is_trial, counts, complaints)
    if (sweep.folder / "rejected.jsonl").exists():
        complaints.append(f"MLflow refused: {(sweep.folder / 'rejected.jsonl').read_text()}")
    if settings.models == "best":
        versions = client.search_model_versions(f"name = '{settings.registered_name(sweep.name)}'")
        if [version.tags["ferhpo.trial"] for version in versions] != [str(sweep.best().number)]:
            complaints.append(f"the best trial, {sweep.best().number}, has {len(versions)} registered versions")


def _check_points(client, run, rows, is_trial, counts, complaints):
    """Check that the points of each metric equal the rows of the study."""
    unit = "fold" if rows and "fold" in rows[0] else "epoch"
    keys = {key for row in rows for key in row if key != unit}
    for key in sorted(keys | (set(ONCE) & set(run.data.metrics) if is_trial else set())):
        points = Counter((point.step, point.value) for point in client.get_metric_history(run.info.run_id, key))
        if key in keys:
            wanted = Counter((int(row[unit]), row[key]) for row in rows if key in row)
        else:
            wanted = Counter([(0, run.data.metrics[key])])
        missing, doubled = (wanted - points).total(), (points - wanted).total()
        counts["points_missing"] += missing
        counts["points_doubled"] += doubled
        if missing or doubled:
            complaints.append(f"{run.info.run_name} {key}: MLflow has {sorted(points.items())}, not {sorted(wanted)}")
