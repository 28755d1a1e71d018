"""The result of `compare` on the terminal."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ferhpo.cli.screen.grid import Grid, KeyValues
from ferhpo.text import duration, short

if TYPE_CHECKING:
    from ferhpo.evaluation.comparison import Comparison

MOST_SETTINGS = 40


def comparison_parts(found: "Comparison", page: Path | None = None) -> Iterator[KeyValues | Grid | str]:
    """Yield the networks with their scores, what differs between them, the tests, and the scores by class.

    page: the page of the comparison, if it was written
    """
    from ferhpo.evaluation.comparison import setting_text, sweep_sentence, verdicts

    left_out = f"; {found.left_out:,} left out, not scored by all or in the training of one" if found.left_out else ""
    yield KeyValues([("data", found.source), ("images", f"{found.n:,} validation images{left_out}")])
    rows = [
        [
            model.label,
            f"{model.acc:.4f}",
            f"{model.low:.4f} to {model.high:.4f}",
            f"{model.macro_f1:.4f}",
            f"{model.loss:.4f}",
            "" if model.num_parameters is None else short(model.num_parameters),
            "" if model.seconds is None else duration(model.seconds),
        ]
        for model in found.models
    ]
    headings = ["model", "acc", "95\xa0% interval", "macro F1", "loss", "params", "time"]
    yield Grid(headings, rows, ["model"])
    yield "\n".join([*filter(None, map(sweep_sentence, found.models)), *verdicts(found)])
    labels = [model.label for model in found.models]
    if found.settings:
        shown = [[key, *map(setting_text, values)] for key, values in found.settings[:MOST_SETTINGS]]
        more = len(found.settings) - MOST_SETTINGS
        yield Grid(["setting", *labels], shown, ["setting", *labels], caption=f"and {more} more" if more > 0 else "")
    else:
        yield "All settings are the same."
    if found.versions:
        yield Grid(
            ["version", *labels],
            [[key, *map(setting_text, values)] for key, values in found.versions],
            ["version", *labels],
        )
    p_values = {each.name: f"{each.p_value:.2g}" for each in found.pairs[0].classes} if len(found.pairs) == 1 else {}
    by_class = [
        [each.name, f"{each.n:,}", *(f"{model.classes[place].f1:.4f}" for model in found.models)]
        + ([p_values.get(each.name, "")] if p_values else [])
        for place, each in enumerate(found.models[0].classes)
    ]
    heads = ["class", "images", *(f"F1 of {label}" for label in labels), *(["p (recall)"] if p_values else [])]
    yield Grid(heads, by_class, ["class"])
    if page is not None:
        yield str(page)
    elif found.images:
        yield f"They differ on {len(found.images):,} images. Write a page that shows them with --out FILE.html."
