"""The page of a comparison: scores, differences, curves on one axis, and the images on which the networks differ."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.ticker import MaxNLocator

from ferhpo.data.dataset import FaceData
from ferhpo.errors import StorageError
from ferhpo.evaluation.comparison import Comparison, Differing, setting_text, sweep_sentence, verdicts
from ferhpo.reports.network.sheet import LINE, WIDTH, Sheet, photograph, shortened
from ferhpo.reports.page import Page, Part, render
from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.style import COLORS, figure

MOST_IMAGES = 36
COLUMNS, GAP = 6, 12
SIDE = (WIDTH - (COLUMNS + 1) * GAP) // COLUMNS


def comparison_page(found: Comparison, out: Path) -> Path:
    """Write the page of a comparison to the file `out` and return it. Raises StorageError."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".compare-", dir=out.parent) as name:
            folder = Path(name)
            page = folder / "index.html"
            page.write_text(render(_page(found, folder)), encoding="utf-8")
            page.replace(out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written ({error.strerror}); choose another file with --out") from None
    return out


def _page(found: Comparison, folder: Path) -> Page:
    labels = [model.label for model in found.models]
    findings = [*filter(None, map(sweep_sentence, found.models)), *verdicts(found)]
    facts = [
        ("data", found.source),
        ("split", found.split_name),
        ("images", f"{found.n:,} validation images; {found.left_out:,} left out"),
        ("data digest", found.data_digest),
        *((model.label, model.description) for model in found.models),
    ]
    panels = [
        _scores(found, folder),
        _curves(found, folder),
        _classes(found, folder),
        _images(found, folder),
        _values(found.settings, labels, "Settings that differ", "settings", folder),
        _values(found.versions, labels, "Versions that differ", "versions", folder),
    ]
    part = Part("Comparison", [panel for panel in panels if panel is not None])
    return Page(f"Comparison of {' and '.join(labels)}", findings, facts, [part], found.warnings)


def _scores(found: Comparison, folder: Path) -> Panel:
    rows = [
        {
            "model": model.label,
            "accuracy": f"{model.acc:.4f}",
            "from": f"{model.low:.4f}",
            "to": f"{model.high:.4f}",
            "macro F1": f"{model.macro_f1:.4f}",
            "loss": f"{model.loss:.4f}",
            "parameters": model.num_parameters,
        }
        for model in found.models
    ]
    table = write_table(folder / "scores.csv", rows)
    image = folder / "scores.svg"
    with figure(image, 6.0, 0.9 + 0.4 * len(found.models)) as drawn:
        axes = drawn.add_subplot()
        for place, model in enumerate(found.models):
            error = [[100 * (model.acc - model.low)], [100 * (model.high - model.acc)]]
            axes.errorbar(100 * model.acc, place, xerr=error, fmt="o", color=COLORS[place % 7], capsize=4)
        axes.set_yticks(range(len(found.models)), [shortened(model.label, 240) for model in found.models])
        axes.set_ylim(len(found.models) - 0.5, -0.5)
        axes.set_xlabel("accuracy, % (95 % interval)")
    text = (
        f"On {found.n:,} validation images that all networks were scored on. Intervals are those of each accuracy by "
        "itself (Wilson); the tests above compare the networks image by image and see smaller differences."
    )
    return Panel("Scores", text, (image,), (table,))


def _curves(found: Comparison, folder: Path) -> Panel | None:
    drawn_models = [model for model in found.models if model.curve]
    if not drawn_models:
        return None
    image = folder / "curves.svg"
    with figure(image, 6.0, 3.6) as drawn:
        axes = drawn.add_subplot()
        for place, model in enumerate(found.models):
            if model.curve:
                epochs, values = zip(*model.curve, strict=True)
                label = f"{shortened(model.label, 200)} ({model.objective})"
                axes.plot(epochs, values, marker="o", markersize=3.5, color=COLORS[place % 7], label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel(" and ".join(dict.fromkeys(model.objective for model in drawn_models)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        drawn.legend(loc="outside lower center", fontsize=9)
    text = "The objective after each epoch of the training, on the validation images of its own sweep."
    return Panel("Curves", text, (image,))


def _classes(found: Comparison, folder: Path) -> Panel:
    rows = []
    tests = {each.name: each for each in found.pairs[0].classes} if len(found.pairs) == 1 else {}
    for place, each in enumerate(found.models[0].classes):
        row: dict[str, object] = {"class": each.name, "images": each.n}
        for model in found.models:
            of_class = model.classes[place]
            row |= {f"recall of {model.label}": f"{of_class.recall:.4f}", f"F1 of {model.label}": f"{of_class.f1:.4f}"}
        if each.name in tests:
            test = tests[each.name]
            row |= {"only first": test.only_first, "only second": test.only_second, "p": f"{test.p_value:.2g}"}
        rows.append(row)
    text = "Recall and F1 of each class."
    if tests:
        text += (
            " The columns only first and only second have the images of the class that one network alone gets right, "
            "and p is that of McNemar's exact test, not adjusted for the number of classes."
        )
    return Panel("Classes", text, tables=(write_table(folder / "classes.csv", rows),))


def _images(found: Comparison, folder: Path) -> Panel | None:
    if not found.images:
        return None
    labels = [model.label for model in found.models]
    rows = []
    for each in found.images:
        row: dict[str, object] = {"index": each.index, "label": each.label}
        for label, predicted, probability in zip(labels, each.predicted, each.probabilities, strict=True):
            row |= {label: predicted, f"probability of {label}": f"{probability:.4f}"}
        rows.append(row)
    table = write_table(folder / "images.csv", rows)
    shown = found.images[:MOST_IMAGES]
    images = () if found.data is None else (_sheet(shown, found.data, folder / "images.png"),)
    text = (
        f"The networks predict different classes for {len(found.images):,} of {found.n:,} images. The surest "
        f"{len(shown)} are shown, with the label and, below it, the prediction of each network, in the order of the "
        "scores."
    )
    return Panel("Images on which they differ", text, images, (table,))


def _sheet(shown: Sequence[Differing], data: FaceData, path: Path) -> Path:
    num_lines = 1 + len(shown[0].predicted)
    cell = SIDE + num_lines * LINE + GAP
    sheet = Sheet(GAP + -(-len(shown) // COLUMNS) * cell)
    for place, each in enumerate(shown):
        left, top = GAP + place % COLUMNS * (SIDE + GAP), GAP + place // COLUMNS * cell
        pixels = np.atleast_3d(data.images[each.index]).transpose(2, 0, 1).astype(np.float32)
        sheet.picture(photograph(pixels), left, top, SIDE)
        sheet.words(shortened(each.label, SIDE), left, top + SIDE + 2)
        for row, (name, probability) in enumerate(zip(each.predicted, each.probabilities, strict=True), 1):
            color = COLORS[2] if name == each.label else COLORS[5]
            text = shortened(name, SIDE, suffix=f" {probability:.0%}")
            sheet.words(text, left, top + SIDE + 2 + row * LINE, color=color)
    sheet.write(path)
    return path


def _values(
    rows: Sequence[tuple[str, Sequence[object]]], labels: Sequence[str], title: str, name: str, folder: Path
) -> Panel | None:
    if not rows:
        return None
    lines = [
        {"key": key, **dict(zip(labels, [setting_text(value) for value in values], strict=True))}
        for key, values in rows
    ]
    return Panel(title, "Keys whose values are not the same.", tables=(write_table(folder / f"{name}.csv", lines),))
