"""What `ferhpo evaluate` and `ferhpo confirm` print."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ferhpo.console import key_values, number, sampled_columns
from ferhpo.reports.confirmed import interval, sentences, spread, test_rows

if TYPE_CHECKING:
    from ferhpo.evaluating import ModelScores


def _table(*headings: str, left: Sequence[str] = ()) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=True)
    return table


def evaluation_tables(found: "ModelScores") -> Iterator[Table | str]:
    """Facts, the lines of scores, the classes, the confusion matrix."""
    yield key_values(
        [("model", found.model), ("data", found.source), ("split", f"{found.split} of the {found.split_name} split")]
    )
    table = _table("", "images", "acc", "macro F1", "loss", left=("",))
    for lines, words in ((found.scores, ""), (found.ten_crop, ", ten-crop")):
        if lines is None:
            continue
        for line, name in ((lines.published, "as published"), (lines.clean, "without overlap")):
            if line is not None:
                scores = (f"{value:.4f}" for value in (line.acc, line.macro_f1, line.loss))
                table.add_row(f"{name}{words}", f"{line.n:,}", *scores)
    yield table
    yield f"Classes, all images as published, {'by ten-crop' if found.ten_crop else 'by one view of each'}"
    table = _table("class", "images", "precision", "recall", "F1", left=("class",))
    for c in found.classes:
        table.add_row(c.name, f"{c.n:,}", f"{c.precision:.4f}", f"{c.recall:.4f}", f"{c.f1:.4f}")
    yield table
    table = _table("true \\ answered", *found.class_names, left=("true \\ answered",))
    for name, row in zip(found.class_names, found.confusion, strict=True):
        table.add_row(name, *(f"{count:,}" for count in row))
    yield table


def confirmation_tables(found: Mapping[str, Any]) -> Iterator[Table | str]:
    """The candidates, the test scores, and what they say."""
    columns = sampled_columns([candidate["sample"] for candidate in found["candidates"]])
    yield (
        f"{found['confirmation']}: the best {len(found['candidates'])} of sweep {found['sweep']} on "
        f"{len(found['seeds'])} fresh seed{'s' * (len(found['seeds']) > 1)}, by {found['objective']}"
    )
    level = f"{100 * found['level']:.0f} %\ninterval"
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    for heading in ("rank", "trial", "in the\nsweep", "mean ±\ndeviation", level, "without\noverlap", "luck"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading, _ in columns:
        table.add_column(heading.rpartition(".")[2].replace("_", "_\n"), justify="right", overflow="fold")
    for c in found["candidates"]:
        clean, luck = c["clean"], c["luck"]
        table.add_row(
            str(c["rank"]),
            str(c["trial"]),
            f"{c['sweep_value']:.4f}",
            spread(c["score"]),
            interval(c["score"]),
            "" if clean is None else f"{clean['mean']:.4f}",
            "" if luck is None else f"{luck['mean']:+.4f}",
            *(" ".join(number(c["sample"][path]) for path in paths if path in c["sample"]) for _, paths in columns),
        )
    yield table
    rows = list(test_rows(found))
    if rows:
        num_networks = found["candidates"][0]["score"]["n"]
        yield f"Test images of the {found['split_name']} split, read once; mean ± deviation of {num_networks} networks"
        table = _table("", "images", "acc", "macro F1", "loss", left=("",))
        for name, images, *scores in rows:
            table.add_row(name, f"{images:,}", *scores)
        yield table
    yield "\n".join(sentences(found))
