"""The validation images that the network answers wrongly, those of which it is surest first."""

import csv
from pathlib import Path

import numpy as np

from ferhpo.evaluation.load import Subject
from ferhpo.reports.network.looking import pixels_of
from ferhpo.reports.network.sheet import LINE, WIDTH, Sheet, photograph, shortened
from ferhpo.reports.panel import Panel
from ferhpo.reports.style import COLOURS

COLUMNS = 6
GAP = 12
SIDE = (WIDTH - (COLUMNS + 1) * GAP) // COLUMNS
SURE = 0.9


def panel(subject: Subject, folder: Path, num_images: int = 36) -> Panel | None:
    """Show the num_images most confident wrong answers; the table has all of them. None where all answers are right."""
    answers, data = subject.answers, subject.data
    labels = data.labels[answers.indices]
    predicted, probability = answers.probabilities.argmax(1), answers.probabilities.max(1)
    wrong = np.flatnonzero(predicted != labels)
    if not len(wrong):
        return None
    wrong = wrong[np.argsort(-probability[wrong], kind="stable")]
    shown = wrong[:num_images]

    table = folder / "wrong.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "label", "prediction", "probability", "probability_of_label"])
        for i in wrong:
            names = data.class_names[labels[i]], data.class_names[predicted[i]]
            of_label = answers.probabilities[i, labels[i]]
            writer.writerow([answers.indices[i], *names, f"{probability[i]:.4f}", f"{of_label:.4f}"])

    cell = SIDE + 2 * LINE + GAP
    sheet = Sheet(GAP + -(-len(shown) // COLUMNS) * cell)
    pixels = pixels_of(subject, answers.indices[shown].tolist()).cpu().numpy()
    for place, i in enumerate(shown):
        left, top = GAP + place % COLUMNS * (SIDE + GAP), GAP + place // COLUMNS * cell
        sheet.picture(photograph(pixels[place]), left, top, SIDE)
        said = shortened(data.class_names[predicted[i]], SIDE, suffix=f" {probability[i]:.0%}")
        sheet.words(shortened(data.class_names[labels[i]], SIDE), left, top + SIDE + 2)
        sheet.words(said, left, top + SIDE + 2 + LINE, colour=COLOURS[5])
    path = folder / "wrong.png"
    sheet.write(path)
    return Panel(
        "Wrong answers",
        f"{len(wrong):,} of {len(labels):,} validation images are answered wrongly ({len(wrong) / len(labels):.1%}), "
        f"{int((probability[wrong] > SURE).sum()):,} of them with a probability above {SURE:.0%}. "
        f"The {len(shown)} of which the network is surest: label above, answer and its probability below.",
        (path,),
        (table,),
    )
