"""A sweep's results as text: the leaderboard as CSV, and what was found, in words."""

import csv
import io
from collections.abc import Mapping, Sequence

from ferhpo.record import Sweep
from ferhpo.study import TrialRecord


def leaderboard_csv(trials: Sequence[TrialRecord]) -> str:
    """The leaderboard as CSV, one column for each sampled hyperparameter."""
    names = list(dict.fromkeys(path for trial in trials for path in trial.sample))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    facts = ["trial", "state", "value", "val_acc_clean", "best_epoch", "epochs", "num_parameters", "seconds"]
    writer.writerow([*facts, *names, "reason"])
    for trial in trials:
        writer.writerow(
            [
                trial.number,
                trial.state,
                trial.value,
                trial.clean_acc,
                trial.best_epoch,
                len(trial.epochs),
                trial.extra.get("num_parameters"),
                None if trial.seconds is None else round(trial.seconds, 1),
                *(trial.sample.get(name) for name in names),
                trial.reason.splitlines()[0] if trial.reason else "",
            ]
        )
    return out.getvalue()


def sweep_note(record: Sweep, board: Sequence[TrialRecord], counts: Mapping[str, int]) -> str:
    """What the sweep found, in words (markdown)."""
    config, metric = record.config, record.objective.metric
    shares = ", ".join(f"{count} {state.lower()}" for state, count in sorted(counts.items()))
    sampler = config["sampler"]["_target_"].rpartition(".")[2]
    lines = [
        f"**{record.name}**: {sum(counts.values())} trials ({shares}), sampled by {sampler}, seed {config['seed']}."
    ]
    best = board[0] if board and board[0].state == "COMPLETE" else None
    if best is not None and best.value is not None:
        others = [t.value for t in board[1:] if t.state == "COMPLETE" and t.value is not None]
        lines.append(f"Best: trial {best.number} with {metric} {best.value:.4f} at epoch {best.best_epoch}.")
        if others:
            lines.append(
                f"The next complete trial has {others[0]:.4f}. The value was chosen on validation among "
                f"{len(others) + 1} complete trials, so expect a little less of it on new data."
            )
        lines += ["", "| hyperparameter | best |", "|---|---|"]
        lines += [f"| {path} | {value} |" for path, value in best.sample.items()]
    failed = [t for t in board if t.state in ("INFEASIBLE", "DIVERGED", "FAILED")]
    if failed:
        lines += ["", "Without a result:"]
        lines += [f"- trial {t.number} {t.state.lower()}: {(t.reason or '?').splitlines()[0]}" for t in failed[:10]]
    return "\n".join(lines)
