"""Misclassified validation images, the most confident predictions first."""

from pathlib import Path

import numpy as np

from ferhpo.evaluation.load import Subject
from ferhpo.reports.network.looking import pixels_of
from ferhpo.reports.network.sheet import LINE, WIDTH, Sheet, photograph, shortened
from ferhpo.reports.panel import Panel, write_table
from ferhpo.reports.style import COLORS

COLUMNS = 6
GAP = 12
SIDE = (WIDTH - (COLUMNS + 1) * GAP) // COLUMNS
CONFIDENT = 0.9


def panel(subject: Subject, folder: Path, num_images: int = 36) -> Panel | None:
    """Show the num_images most confident wrong predictions; the table has all of them. None if there are none."""
    predictions, data = subject.predictions, subject.data
    labels = data.labels[predictions.indices]
    predicted, probability = predictions.probabilities.argmax(1), predictions.probabilities.max(1)
    wrong = np.flatnonzero(predicted != labels)
    if not len(wrong):
        return None
    wrong = wrong[np.argsort(-probability[wrong], kind="stable")]
    shown = wrong[:num_images]

    rows = [
        {
            "index": predictions.indices[i],
            "label": data.class_names[labels[i]],
            "prediction": data.class_names[predicted[i]],
            "probability": f"{probability[i]:.4f}",
            "probability_of_label": f"{predictions.probabilities[i, labels[i]]:.4f}",
        }
        for i in wrong
    ]
    table = write_table(folder / "wrong.csv", rows)

    cell = SIDE + 2 * LINE + GAP
    sheet = Sheet(GAP + -(-len(shown) // COLUMNS) * cell)
    pixels = pixels_of(subject, predictions.indices[shown].tolist()).cpu().numpy()
    for place, i in enumerate(shown):
        left, top = GAP + place % COLUMNS * (SIDE + GAP), GAP + place // COLUMNS * cell
        sheet.picture(photograph(pixels[place]), left, top, SIDE)
        prediction = shortened(data.class_names[predicted[i]], SIDE, suffix=f" {probability[i]:.0%}")
        sheet.words(shortened(data.class_names[labels[i]], SIDE), left, top + SIDE + 2)
        sheet.words(prediction, left, top + SIDE + 2 + LINE, color=COLORS[5])
    path = folder / "wrong.png"
    sheet.write(path)
    return Panel(
        "Misclassified images",
        f"{len(wrong):,} of {len(labels):,} validation images are misclassified ({len(wrong) / len(labels):.1%}), "
        f"{int((probability[wrong] > CONFIDENT).sum()):,} of them with a probability above {CONFIDENT:.0%}. "
        f"The {len(shown)} most confident ones are shown, with the label and, below it, the prediction.",
        (path,),
        (table,),
    )
