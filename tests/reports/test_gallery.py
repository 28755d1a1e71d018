"""The gallery of misclassified images against the predictions themselves."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ferhpo.evaluation.load import Subject
from ferhpo.reports.trial import gallery
from tests.reports.tiny_subject import NUM_CLASSES, build, make_subject


def with_predictions(subject: Subject, wrong: dict[int, tuple[int, float]]) -> Subject:
    """All predictions correct with 0.4, except for wrong: position in validation to (prediction, its probability)."""
    labels = subject.data.labels[subject.predictions.indices]
    probabilities = np.full((len(labels), NUM_CLASSES), 0.01, np.float32)
    probabilities[np.arange(len(labels)), labels] = 0.4
    for position, (prediction, probability) in wrong.items():
        probabilities[position, prediction] = probability
    return replace(subject, predictions=replace(subject.predictions, probabilities=probabilities))


def test_the_most_confident_wrong_predictions_come_first(tmp_path: Path) -> None:
    subject = make_subject(build("cnn"), tmp_path)  # validation is 40 to 71, the class of image i is i % 4
    subject = with_predictions(subject, {0: (1, 0.6), 5: (3, 0.95), 31: (0, 0.6), 9: (2, 0.91)})
    panel = gallery.panel(subject, tmp_path, num_images=3)
    assert panel is not None
    assert panel.text.startswith("4 of 32 validation images are misclassified (12.5%), 2 of them with a probability")
    assert "The 3 most confident ones are shown" in panel.text
    with panel.tables[0].open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["index", "label", "prediction", "probability", "probability_of_label"],
        ["45", "disgust", "sad", "0.9500", "0.4000"],
        ["49", "disgust", "happy", "0.9100", "0.4000"],
        ["40", "angry", "disgust", "0.6000", "0.4000"],
        ["71", "sad", "angry", "0.6000", "0.4000"],
    ]
    picture = np.asarray(Image.open(panel.images[0]).convert("RGB"))
    size = len(subject.data.images[45])
    centres = gallery.GAP + (np.arange(size) * gallery.SIDE + gallery.SIDE // 2) // size
    np.testing.assert_array_equal(picture[np.ix_(centres, centres)][..., 0], subject.data.images[45])


def test_rows_of_six(tmp_path: Path) -> None:
    subject = with_predictions(make_subject(build("cnn"), tmp_path), {4 * i: (1, 0.9) for i in range(7)})
    (one,) = gallery.panel(subject, tmp_path, num_images=6).images  # type: ignore[union-attr]
    height = Image.open(one).height
    (two,) = gallery.panel(subject, tmp_path).images  # type: ignore[union-attr]
    assert Image.open(two).size == (gallery.WIDTH, 2 * height - gallery.GAP)


def test_nothing_to_show_where_all_is_right(tmp_path: Path) -> None:
    assert gallery.panel(with_predictions(make_subject(build("cnn"), tmp_path), {}), tmp_path) is None
