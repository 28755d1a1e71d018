"""Render results as tables for the terminal."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ferhpo.cli.progress import STATE_STYLES
from ferhpo.states import TrialState
from ferhpo.text import duration, number, plural, sampled_columns, short, size

if TYPE_CHECKING:
    from ferhpo.storage.trial_record import TrialRecord
    from ferhpo.tuning.plan import Plan, Spread
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ferhpo.confirmation.text import VARIANT_NAMES, interval, sentences, spread, test_rows

if TYPE_CHECKING:
    from ferhpo.confirmation.result import ConfirmationFound
    from ferhpo.evaluation.evaluate import ModelScores


MOST_ROWS = 20
WIDE = 120  # columns, if the output is not a terminal


def make_console(stderr: bool = False) -> Console:
    """Return a console on standard output, or on standard error."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else WIDE, soft_wrap=False)


def leaderboard(trials: Sequence["TrialRecord"], metric: str, rows: int = MOST_ROWS) -> Table:
    """Return a table of a sweep's trials, which are given best first."""
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    columns = sampled_columns([trial.sample for trial in trials])
    last_parts = [heading.rpartition(".")[2] for heading, _ in columns]
    is_folded = any(trial.folds for trial in trials)
    # val_acc without images whose pixels are also in training; shown only if it differs from val_acc.
    has_duplicates = metric == "val_acc" and any(trial.dedup_acc not in (None, trial.value) for trial in trials)
    counted = "folds" if is_folded else "epoch"
    for heading in ("trial", "state", metric, *(["val_acc (dedup)"] if has_duplicates else []), counted, "params"):
        table.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
    for (heading, _), last in zip(columns, last_parts, strict=True):
        name = last if last_parts.count(last) == 1 else heading
        table.add_column(name.replace("_", "_\n").replace(".", ".\n"), justify="right", overflow="fold")
    for trial in trials[:rows]:
        std = trial.std(metric)
        cells: list[str | Text] = [
            str(trial.number),
            Text(trial.state.lower(), style=STATE_STYLES.get(trial.state, "")),
            "" if trial.value is None else f"{trial.value:.4f}" + (f" ±{std:.4f}" if std is not None else ""),
            *([] if not has_duplicates else ["" if trial.dedup_acc is None else f"{trial.dedup_acc:.4f}"]),
            _reports(trial, is_folded),
            short(trial.extra["num_parameters"]) if "num_parameters" in trial.extra else "",
        ]
        for _, paths in columns:
            cells.append(" ".join(number(trial.sample[path]) for path in paths if path in trial.sample))
        table.add_row(*cells)
    if len(trials) > rows:
        table.caption = f"{plural(len(trials) - rows, 'more trial')} (show with --rows)"
    return table


def _reports(trial: "TrialRecord", is_folded: bool) -> str:
    """Format the best epoch and the number of epochs, e.g. 7/20; or the number of folds."""
    if is_folded:
        return str(len(trial.folds))
    return f"{trial.best_epoch}/{len(trial.epochs)}" if trial.best_epoch else ""


def key_values(rows: Mapping[str, Any] | Sequence[tuple[str, Any]]) -> Table:
    """Return a table of two columns without a header."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows.items() if isinstance(rows, Mapping) else rows:
        table.add_row(str(key), value if isinstance(value, Text) else str(value))
    return table


def plan_table(plan: "Plan") -> Table:
    """Return the table of `ferhpo plan`: of a sweep, or of a single training."""
    disk = f"{size(plan.disk_bytes)} at most for checkpoints, {size(plan.free_bytes)} free"
    time = f"{duration(plan.seconds)} without early stopping, at {short(plan.macs_per_second)} MAC/s (estimate)"
    if plan.kind == "training":
        folds = f"{plan.num_folds} folds, each with " if plan.num_folds else ""
        rows = [
            (
                "training",
                f"{plan.model}: {folds}{plural(plan.max_epochs, 'epoch')} of {plural(plan.num_train, 'image')}",
            ),
            ("device", plan.where),
        ]
        if plan.parameters is None or plan.macs is None or plan.memory_bytes is None:  # the warnings say why
            return key_values([*rows, ("disk", f"{size(plan.free_bytes)} free")])
        rows += [
            ("parameters", f"{plan.parameters.high:,.0f}"),
            ("MACs per image", short(plan.macs.high)),
            ("memory", f"{size(plan.memory_bytes.high)} (estimate)"),
            ("disk", disk),
            ("time", time),
        ]
        return key_values(rows)

    def spread(values: "Spread | None", show: Any) -> str:
        if values is None:
            return "no sampled network can be built"
        return f"{show(values.low)} to {show(values.high)}, median {show(values.median)}"

    points = f"{plan.num_points:,} points" if plan.num_points > 1 or not plan.num_continuous else ""
    continuous = plural(plan.num_continuous, "continuous draw") if plan.num_continuous else ""
    trials = "every point of the grid" if plan.num_trials is None else plural(plan.num_trials, "trial")
    trials += f" of {plan.num_folds} folds" if plan.num_folds else ""
    largest = " ".join(f"{key}={number(value)}" for key, value in plan.largest.items())
    rows = [
        ("space", " and ".join(part for part in (points, continuous) if part)),
        ("trials", f"{trials}, {plan.num_slots} at a time"),
        ("device", plan.where),
        ("parameters", spread(plan.parameters, short)),
        ("MACs per image", f"{spread(plan.macs, short)}, mean {short(plan.mean_macs)}"),
        ("memory per trial", f"{spread(plan.memory_bytes, size)} (estimate)"),
        ("disk", disk),
        ("time", time),
        ("largest sample", largest),
        ("based on", f"{plan.num_samples} samples of the space"),
    ]
    return key_values(rows)


def _dropped(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each source with dropped images: how many, and why."""
    return [
        f"{part['name']}: " + ", ".join(f"{number:,} {reason}" for reason, number in part["dropped"].items())
        for part in parts
        if part["dropped"]
    ]


def data_tables(description: Mapping[str, Any]) -> list[Table]:
    """Return the tables of `ferhpo data`: facts, images per class and split, images per source and split."""
    pixels, duplicates = description["pixels"], description["duplicates"]
    conflicts, blanks, overlap = description["conflicting_labels"], description["blank_images"], description["overlap"]
    side, channels = description["image_size"], description["channels"]
    facts = [
        ("source", description["source"]),
        ("split", description["split_name"]),
        ("images", f"{description['num_images']:,} of {side}x{side}, {'grayscale' if channels == 1 else 'color'}"),
        ("pixels", f"{pixels['min']} to {pixels['max']}, mean {pixels['mean']:.1f}"),
        (
            "duplicates",
            f"{duplicates['redundant_images']:,} duplicates in {duplicates['groups']:,} groups of identical images",
        ),
        (
            "conflicts",
            f"{conflicts['images']:,} images in {conflicts['groups']:,} groups of identical images with two labels",
        ),
        ("blank", f"{blanks['one_value']:,} images with a single pixel value, {blanks['all_black']:,} of them black"),
        *(("dropped", text) for text in _dropped(description["parts"])),
        ("overlap", f"{overlap['val_in_train']:,} val and {overlap['test_in_train']:,} test images are also in train"),
        ("digest", description["digest"]),
    ]
    counts = Table(box=None, header_style="bold", pad_edge=False)
    counts.add_column("class")
    splits = [name for name, classes in description["counts"].items() if any(classes.values())]
    for name in splits:
        counts.add_column(name, justify="right")
    for label in description["class_names"]:
        counts.add_row(label, *(f"{description['counts'][name][label]:,}" for name in splits))
    counts.add_row("all", *(f"{sum(description['counts'][name].values()):,}" for name in splits), style="bold")
    tables = [key_values(facts), counts]
    if len(description["parts"]) > 1:
        tables.append(_sources_table(description["parts"], splits))
    return tables


def _sources_table(parts: Sequence[Mapping[str, Any]], splits: Sequence[str]) -> Table:
    """Return the number of images of each source by split."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("source")
    for name in splits:
        table.add_column(name, justify="right")
    for part in parts:
        table.add_row(part["name"], *(f"{part['counts'][name]:,}" for name in splits))
    return table


def _table(*headings: str, left: Sequence[str] = ()) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=True)
    return table


def evaluation_tables(scores: "ModelScores") -> Iterator[Table | str]:
    """Yield facts, the score variants, the scores by class and the confusion matrix."""
    split = f"{scores.split} of the {scores.split_name} split"
    yield key_values([("model", scores.model), ("data", scores.source), ("split", split)])
    table = _table("", "images", "acc", "macro F1", "loss", left=("",))
    for variants, view in ((scores.scores, ""), (scores.ten_crop, ", ten-crop")):
        for variant, name in VARIANT_NAMES.items():
            row = None if variants is None else getattr(variants, variant)
            if row is not None:
                table.add_row(f"{name}{view}", f"{row.n:,}", f"{row.acc:.4f}", f"{row.macro_f1:.4f}", f"{row.loss:.4f}")
    yield table
    yield _more_scores(scores)
    yield f"Scores by class, all images, {'ten-crop' if scores.ten_crop else 'one view of each'}"
    table = _table("class", "images", "precision", "recall", "F1", left=("class",))
    for c in scores.classes:
        table.add_row(c.name, f"{c.n:,}", f"{c.precision:.4f}", f"{c.recall:.4f}", f"{c.f1:.4f}")
    yield table
    table = _table("true \\ predicted", *scores.class_names, left=("true \\ predicted",))
    for class_name, counts in zip(scores.class_names, scores.confusion, strict=True):
        table.add_row(class_name, *(f"{count:,}" for count in counts))
    yield table


def _more_scores(scores: "ModelScores") -> Table:
    """Return the metrics besides accuracy, macro F1 and loss, a row each."""
    views = ((scores.scores, ""), (scores.ten_crop, ", ten-crop"))
    columns = {
        f"{name}{view}": found.metrics
        for variants, view in views
        for variant, name in VARIANT_NAMES.items()
        if (found := None if variants is None else getattr(variants, variant)) is not None
    }
    table = _table("", *columns, left=("",))
    for name in scores.scores.all.metrics:
        table.add_row(name, *(f"{values[name]:.4f}" for values in columns.values()))
    return table


def confirmation_tables(found: "ConfirmationFound") -> Iterator[Table | str]:
    """Yield the candidates, the test scores and the result in sentences."""
    columns = sampled_columns([candidate.sample for candidate in found.candidates])
    yield (
        f"{found.confirmation}: the best {len(found.candidates)} of sweep {found.sweep} on "
        f"{len(found.seeds)} fresh seed{'s' * (len(found.seeds) > 1)}, by {found.objective}"
    )
    level = f"{100 * found.level:.0f} %\ninterval"
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    for heading in ("rank", "trial", "in the\nsweep", "mean ±\nstd. dev.", level, "val_acc\n(dedup)", "luck"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading, _ in columns:
        table.add_column(heading.rpartition(".")[2].replace("_", "_\n"), justify="right", overflow="fold")
    for c in found.candidates:
        table.add_row(
            str(c.rank),
            str(c.trial),
            f"{c.sweep_value:.4f}",
            spread(c.score),
            interval(c.score),
            "" if c.dedup is None else f"{c.dedup.mean:.4f}",
            "" if c.luck is None else f"{c.luck.mean:+.4f}",
            *(" ".join(number(c.sample[path]) for path in paths if path in c.sample) for _, paths in columns),
        )
    yield table
    rows = list(test_rows(found))
    if rows and found.best.score:
        num_networks = found.best.score.n
        yield (
            f"Test images of the {found.split_name} split, evaluated once; mean ± standard deviation of "
            f"{num_networks} network{'s' * (num_networks > 1)}"
        )
        table = _table("", "images", "acc", "macro F1", "loss", left=("",))
        for name, images, *scores in rows:
            table.add_row(name, f"{images:,}", *scores)
        yield table
    yield "\n".join(sentences(found))


def sweeps_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of the sweeps in an output folder, as returned by `list_sweeps`."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("sweep", "created", "trials", "best", "to upload", "states"):
        table.add_column(heading)
    for row in rows:
        if "error" in row:
            table.add_row(row["name"], "", "", "", "", row["error"])
            continue
        running = "running" if row["runs"] else "interrupted"
        counts = {running if state == TrialState.RUNNING else state.lower(): n for state, n in row["counts"].items()}
        states = ", ".join(f"{count} {state}" for state, count in counts.items())
        value = "" if row["best"] is None else f"{row['best']:.4f}"
        unshipped = str(row["unshipped"] or "")
        table.add_row(row["name"], row["created"], str(row["num_trials"]), value, unshipped, states)
    return table
