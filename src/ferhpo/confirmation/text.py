"""The result of a confirmation as text: sentences, rows of test scores, a CSV file, a note for MLflow."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ferhpo.text import csv_text, markdown

if TYPE_CHECKING:
    from ferhpo.confirmation.result import ConfirmationFound
    from ferhpo.confirmation.statistics import Mean

VARIANT_NAMES = {"all": "all images", "dedup": "dedup"}


def spread(mean: "Mean | None") -> str:
    """Return a mean with its standard deviation, e.g. "0.8120 ± 0.0042"."""
    if mean is None:
        return "none"
    return f"{mean.mean:.4f}" + ("" if mean.deviation is None else f" ± {mean.deviation:.4f}")


def interval(mean: "Mean | None") -> str:
    """Return the interval of a mean, e.g. "0.8016 to 0.8224"; empty without one."""
    return "" if mean is None or mean.low is None else f"{mean.low:.4f} to {mean.high:.4f}"


def sentences(found: "ConfirmationFound") -> Iterator[str]:
    """Yield the result in sentences: selection, luck, test images, registered model."""
    best, metric = found.best, found.objective
    if found.chosen is None:
        yield f"No trial is selected: no candidate finished a training with a {metric}."
        return
    others = "" if found.chosen == found.winner else f"; the sweep itself ranked trial {found.winner} first"
    yield f"Trial {found.chosen} is selected by its mean {metric}, {spread(best.score)}{others}."
    if len(found.candidates) > 1 and not found.is_distinct:
        second = found.candidates[1]
        are_compared = all(c.score is not None and c.score.low is not None for c in (best, second))
        why = "their intervals overlap" if are_compared else "at least one of the two has no interval"
        yield f"The seeds do not separate it from trial {second.trial}: {why}."
    yield _luck(found)
    for candidate in found.candidates:
        if candidate.without:
            states = ", ".join(state.lower() for state in candidate.without)
            yield (
                f"Trial {candidate.trial} lost {len(candidate.without)} of its seeds ({states}); it ranks below "
                "candidates that lost fewer."
            )
    if found.test is None:
        yield f"Test images were not evaluated: {found.no_test}."
    if found.registered and best.score:
        registered = found.registered
        yield (
            f"{registered.name} version {registered.version} is the network of seed {registered.seed}, the median of "
            f"{best.score.n} by {metric} ({registered.value:.4f})."
        )


def _luck(found: "ConfirmationFound") -> str:
    luck, metric, winner = found.luck, found.objective, found.sweep_best
    if found.changed:
        return f"Luck is not computed: the retraining used {', '.join(found.changed)}."
    if luck is None or winner.score is None:
        return f"Luck is unknown: no retraining of the sweep's best trial, {found.winner}, has a value."
    seeds = f"{luck.n} seed{'s' * (luck.n > 1)}"
    if luck.low is None or luck.high is None:
        precision, zero = f"{seeds}, so no interval", ""
    else:
        precision = f"{100 * found.level:.0f} % interval {interval(luck)}, {seeds}"
        zero = "; the interval contains 0, so there may have been no luck" if luck.low <= 0 <= luck.high else ""
    return (
        f"Luck {luck.mean:+.4f} ({precision}): the sweep's best trial, {found.winner}, had {metric} "
        f"{winner.sweep_value:.4f} in the sweep and {winner.score.mean:.4f} on fresh seeds{zero}."
    )


def test_rows(found: "ConfirmationFound") -> Iterator[tuple[str, int, str, str, str]]:
    """Yield (variant, images, acc, macro F1, loss) of the test scores, means over the selected trial's networks."""
    if found.test is None:
        return
    for variants, view in ((found.test.one_view, ""), (found.test.ten_crop, ", ten-crop")):
        for variant, name in VARIANT_NAMES.items():
            scores = None if variants is None else getattr(variants, variant)
            if scores is not None:
                yield (f"{name}{view}", scores.n, spread(scores.acc), spread(scores.macro_f1), spread(scores.loss))


def candidates_csv(found: "ConfirmationFound") -> str:
    """Return the candidates as CSV, best first, one column for each sampled hyperparameter."""
    names = list(dict.fromkeys(path for candidate in found.candidates for path in candidate.sample))
    numbers = ["n", "mean", "deviation", "low", "high"]
    rows: list[list[object]] = [
        ["rank", "trial", "sweep_value", *numbers, "val_acc_dedup", "luck", "lost_seeds", *names]
    ]
    for c in found.candidates:
        row = [c.rank, c.trial, c.sweep_value, *(getattr(c.score, key, None) for key in numbers)]
        row += [getattr(c.dedup, "mean", None), getattr(c.luck, "mean", None), len(c.without)]
        rows.append([*row, *(c.sample.get(name) for name in names)])
    return csv_text(rows)


def confirmation_note(found: "ConfirmationFound") -> str:
    """Return the result in Markdown, the note of the MLflow run."""
    level = f"{100 * found.level:.0f} % interval"
    place = f"#/experiments/{found.experiment_id}/runs/{found.sweep_run}" if found.sweep_run else ""
    name = markdown(found.sweep)
    sweep = f"[{name}]({place})" if place else name
    lines = [
        f"**{markdown(found.confirmation)}** confirms sweep **{sweep}**: its best {len(found.candidates)} on "
        f"{len(found.seeds)} fresh seeds.",
        "",
        *(f"- {markdown(sentence)}" for sentence in sentences(found)),
        "",
        f"| rank | trial | in the sweep | {found.objective} | {level} | seeds | val_acc (dedup) |",
        "|---|---|---|---|---|---|---|",
    ]
    for c in found.candidates:
        n = c.score.n if c.score else 0
        cells = (c.rank, c.trial, f"{c.sweep_value:.4f}", spread(c.score), interval(c.score), n, spread(c.dedup))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    rows = list(test_rows(found))
    if rows:
        lines += ["", f"Test images ({markdown(found.split_name)}), evaluated once:", ""]
        lines += ["| images | n | acc | macro F1 | loss |", "|---|---|---|---|---|"]
        lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines)
