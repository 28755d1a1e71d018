"""Render results as tables for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderResult

from ferhpo.cli.screen.grid import Grid, KeyValues
from ferhpo.cli.screen.leaderboard import Board
from ferhpo.confirmation.text import VARIANT_NAMES, interval, sentences, spread, test_rows
from ferhpo.states import TrialState, shown_state
from ferhpo.text import duration, number, plural, short, size

if TYPE_CHECKING:
    import pandas as pd

    from ferhpo.confirmation.result import ConfirmationFound
    from ferhpo.evaluation.model_scores import ModelScores
    from ferhpo.evaluation.robustness import Corrupted
    from ferhpo.scoring.statistics.calibration import Calibration
    from ferhpo.tuning.plan import Plan, Spread


def predictions_table(found: "pd.DataFrame") -> Grid:
    """Return the table of `ferhpo predict`: for each image the likeliest class, and the next one.

    found: a row for each image, whose path is the index, and a column for each class, probabilities
    """
    rows = []
    for image, values in zip(found.index, found.to_numpy(), strict=True):
        first, *others = values.argsort()[::-1][:2]
        then = "".join(f"{found.columns[second]} {values[second]:.3f}" for second in others)
        rows.append([str(image), str(found.columns[first]), f"{values[first]:.3f}", then])
    return Grid(["image", "answer", "probability", "then"], rows, ["image", "answer", "then"])


def plan_table(plan: "Plan") -> KeyValues:
    """Return the table of `ferhpo plan`: of a sweep, or of a single training."""
    disk = f"{size(plan.disk_bytes)} at most for checkpoints, {size(plan.free_bytes)} free"
    basis = f"at {short(plan.macs_per_second)} MAC/s"
    if plan.epoch_seconds is not None:
        basis = f"{_seconds(plan.epoch_seconds.median)} an epoch, from short trainings"
    time = f"{duration(plan.seconds)} without early stopping, {basis} (estimate)"
    if plan.gpu_hours is not None:
        time += f", {plan.gpu_hours:.1f} GPU-hours"
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
            return KeyValues([*rows, ("disk", f"{size(plan.free_bytes)} free")])
        rows += [
            ("parameters", f"{plan.parameters.high:,.0f}"),
            ("MACs per image", short(plan.macs.high)),
            ("memory", f"{size(plan.memory_bytes.high)} (estimate)"),
            ("disk", disk),
            ("time", time),
        ]
        return KeyValues(rows)

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
    return KeyValues(rows)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


def _dropped(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each source with dropped images: how many, and why."""
    return [
        f"{part['name']}: " + ", ".join(f"{number:,} {reason}" for reason, number in part["dropped"].items())
        for part in parts
        if part["dropped"]
    ]


def data_tables(description: Mapping[str, Any]) -> list[KeyValues | Grid]:
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
    splits = [name for name, classes in description["counts"].items() if any(classes.values())]
    rows = [
        [label, *(f"{description['counts'][name][label]:,}" for name in splits)] for label in description["class_names"]
    ]
    rows.append(["all", *(f"{sum(description['counts'][name].values()):,}" for name in splits)])
    tables: list[KeyValues | Grid] = [KeyValues(facts), Grid(["class", *splits], rows, ["class"], bold=True)]
    if len(description["parts"]) > 1:
        rows = [[part["name"], *(f"{part['counts'][name]:,}" for name in splits)] for part in description["parts"]]
        tables.append(Grid(["source", *splits], rows, ["source"]))
    return tables


def evaluation_tables(scores: "ModelScores") -> Iterator["KeyValues | Grid | Confusion | str"]:
    """Yield facts, the score variants, the scores by class and the confusion matrix."""
    split = f"{scores.split} of the {scores.split_name} split"
    yield KeyValues([("model", scores.model), ("data", scores.source), ("split", split)])
    rows = []
    for variants, view in ((scores.scores, ""), (scores.ten_crop, ", ten-crop")):
        for variant, name in VARIANT_NAMES.items():
            row = None if variants is None else getattr(variants, variant)
            if row is not None:
                rows.append([f"{name}{view}", f"{row.n:,}", f"{row.acc:.4f}", f"{row.macro_f1:.4f}", f"{row.loss:.4f}"])
    yield Grid(["", "images", "acc", "macro F1", "loss"], rows, [""])
    yield _more_scores(scores)
    yield f"Scores by class, all images, {'ten-crop' if scores.ten_crop else 'one view of each'}"
    rows = [[c.name, f"{c.n:,}", f"{c.precision:.4f}", f"{c.recall:.4f}", f"{c.f1:.4f}"] for c in scores.classes]
    yield Grid(["class", "images", "precision", "recall", "F1"], rows, ["class"])
    yield Confusion(scores.class_names, scores.confusion)
    if scores.calibration is not None:
        yield _calibration_text(scores.calibration)
    if scores.robustness:
        yield "Accuracy on corrupted images, by severity"
        yield _robustness_table(scores.robustness)


def _calibration_text(found: "Calibration") -> str:
    lines = [
        f"Calibration: the expected calibration error is {found.ece:.4f}, and {found.ece_after:.4f} with the "
        f"temperature {found.temperature:.2f} (cross-entropy {found.nll:.4f}, then {found.nll_after:.4f})."
    ]
    lines += [
        f"Answering only with a confidence of {each.confidence:.2f} or more, {100 * each.coverage:.0f} % of the images "
        f"are answered, {100 * each.accuracy:.1f} % of them correctly."
        for each in found.abstention
        if each.coverage < 1
    ]
    return "\n".join(lines)


def _robustness_table(found: "Sequence[Corrupted]") -> Grid:
    severities = sorted({each.severity for each in found if each.severity})
    whole = next(each for each in found if each.severity == 0)
    values = {(each.corruption, each.severity): each.acc for each in found}
    rows = [[f"none ({whole.n:,} images)", f"{whole.acc:.4f}", *[""] * (len(severities) - 1)]]
    for name in dict.fromkeys(each.corruption for each in found if each.severity):
        rows.append([name.replace("_", " "), *(f"{values[name, severity]:.4f}" for severity in severities)])
    return Grid(["corruption", *map(str, severities)], rows, ["corruption"])


def _more_scores(scores: "ModelScores") -> Grid:
    """Return the metrics besides accuracy, macro F1 and loss, a row each."""
    views = ((scores.scores, ""), (scores.ten_crop, ", ten-crop"))
    columns = {
        f"{name}{view}": found.metrics
        for variants, view in views
        for variant, name in VARIANT_NAMES.items()
        if (found := None if variants is None else getattr(variants, variant)) is not None
    }
    rows = [[name, *(f"{values[name]:.4f}" for values in columns.values())] for name in scores.scores.all.metrics]
    return Grid(["", *columns], rows, [""])


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix; if it is too wide, its columns have the numbers of the classes instead of their names."""

    class_names: Sequence[str]
    counts: Sequence[Sequence[int]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        corner = "true \\ predicted"
        rows = [
            [name, *(f"{count:,}" for count in row)] for name, row in zip(self.class_names, self.counts, strict=True)
        ]
        grid = Grid([corner, *self.class_names], rows, [corner])
        if not grid.fits(options.max_width):
            numbered = [[f"{place} {row[0]}", *row[1:]] for place, row in enumerate(rows)]
            grid = Grid([corner, *map(str, range(len(rows)))], numbered, [corner], gap=1)
        yield grid


def confirmation_tables(found: "ConfirmationFound") -> Iterator[Board | Grid | str]:
    """Yield the candidates, the test scores and the result in sentences."""
    yield (
        f"{found.confirmation}: the best {len(found.candidates)} of sweep {found.sweep} on "
        f"{len(found.seeds)} fresh seed{'s' * (len(found.seeds) > 1)}, by {found.objective}"
    )
    level = f"{100 * found.level:.0f}\xa0% interval"
    facts = [
        [
            str(c.rank),
            str(c.trial),
            f"{c.sweep_value:.4f}",
            spread(c.score),
            interval(c.score),
            "" if c.dedup is None else f"{c.dedup.mean:.4f}",
            "" if c.luck is None else f"{c.luck.mean:+.4f}",
        ]
        for c in found.candidates
    ]
    headings = ["rank", "trial", "in the sweep", "mean ± std.\xa0dev.", level, "val_acc (dedup)", "luck"]
    yield Board(headings, facts, [candidate.sample for candidate in found.candidates])
    rows = list(test_rows(found))
    if rows and found.best.score:
        num_networks = found.best.score.n
        yield (
            f"Test images of the {found.split_name} split, evaluated once; mean ± standard deviation of "
            f"{num_networks} network{'s' * (num_networks > 1)}"
        )
        cells = [[name, f"{images:,}", *scores] for name, images, *scores in rows]
        yield Grid(["", "images", "acc", "macro F1", "loss"], cells, [""])
    yield "\n".join(sentences(found))


def sweeps_table(rows: Sequence[Mapping[str, Any]]) -> Grid:
    """Return a table of the sweeps in an output folder, as returned by `list_sweeps`."""
    headings = ["sweep", "created", "trials", "best", "to upload", "states"]
    lines = []
    for row in rows:
        if "error" in row:
            lines.append([row["name"], "", "", "", "", row["error"]])
            continue
        counts = {shown_state(TrialState(state), row["runs"]): n for state, n in row["counts"].items()}
        states = ", ".join(f"{count} {state}" for state, count in counts.items())
        value = "" if row["best"] is None else f"{row['best']:.4f}"
        unshipped = str(row["unshipped"] or "")
        lines.append([row["name"], row["created"], str(row["num_trials"]), value, unshipped, states])
    used = [place for place in range(len(headings)) if not lines or any(line[place] for line in lines)]
    shown = [[line[place] for place in used] for line in lines]
    return Grid([headings[place] for place in used], shown, ["sweep", "created", "states"])
