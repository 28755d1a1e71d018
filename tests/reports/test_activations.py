"""Activation maps are the outputs of the layers, in the order of the forward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ferhpo.reports.network import activations, looking
from ferhpo.training.checkpoint import FORMAT, epoch_file
from tests.reports.made_sweeps import BARE_CHECKPOINT
from tests.reports.tiny_subject import build, make_subject, train

IMAGES = [40, 45, 3]


def test_rows_hold_what_the_layers_give(tmp_path: Path) -> None:
    subject = make_subject(build("cnn", width_multiplier=0.15), tmp_path)
    rows, num_left_out = activations.choose_rows(subject, IMAGES)
    assert num_left_out == 0
    titles = [row.title for row in rows]
    assert titles[:3] == ["stem.conv", "stem.act", "block1.conv"]
    assert titles[-3:] == ["dense1.linear", "dense1.act", "output"]
    outputs = activations.outputs_of(subject, rows, IMAGES)
    stem = subject.network.get_submodule("features.stem")
    with torch.no_grad():
        expected = stem(subject.preprocess(looking.pixels_of(subject, IMAGES)))
    spread = expected.std((0, 2, 3))
    assert rows[1].channels == spread.argsort(descending=True)[: activations.NUM_CHANNELS].tolist()
    assert rows[1].shape == (10, 32, 32)
    for i in range(len(IMAGES)):
        np.testing.assert_allclose(outputs["features.stem.act"][i], expected[i, rows[1].channels], rtol=1e-5)
        logits = looking.logits_of(subject, looking.pixels_of(subject, IMAGES[i : i + 1])).detach()[0]
        np.testing.assert_allclose(outputs["classifier.output"][i], logits, rtol=1e-4, atol=1e-6)


def test_more_images_than_a_batch_come_in_their_order(tmp_path: Path) -> None:
    subject = make_subject(build("cnn"), tmp_path)
    images = list(range(20, 20 + looking.BATCH_SIZE + 5))
    rows, _ = activations.choose_rows(subject, images[:4])
    outputs = activations.outputs_of(subject, rows, images)
    assert {len(values) for values in outputs.values()} == {len(images)}
    last = activations.outputs_of(subject, rows, images[-1:])
    for name, values in last.items():
        np.testing.assert_allclose(outputs[name][-1], values[0], rtol=1e-4, atol=1e-6)


@pytest.mark.full
def test_large_maps_are_no_larger_than_their_tiles(tmp_path: Path) -> None:
    network = build("torchvision-resnet18", resize=2 * activations.SIDE + 40)
    subject = make_subject(network, tmp_path)
    rows, _ = activations.choose_rows(subject, IMAGES[:1])
    outputs = activations.outputs_of(subject, rows[:1], IMAGES[:1])
    assert rows[0].shape[1] > activations.SIDE
    assert outputs[rows[0].name][0].shape[1:] == (activations.SIDE, activations.SIDE)


def test_default_is_the_most_confident_correct_prediction_of_each_class(tmp_path: Path) -> None:
    subject = train(make_subject(build("cnn"), tmp_path), steps=30)
    panel = activations.panel(subject, tmp_path)
    assert panel is not None
    chosen = looking.most_confident(subject, correct=True)
    assert len(chosen) >= 2, "trained too little for this test"
    assert [path.name for path in panel.images] == [f"activations_{index}.png" for index in chosen]
    assert {Image.open(path).width for path in panel.images} == {activations.WIDTH}


def test_kept_epochs_are_side_by_side(tmp_path: Path) -> None:
    subject = make_subject(build("cnn"), tmp_path, best_epoch=2)
    trial = tmp_path / "trials" / "0000"
    trial.mkdir(parents=True)
    for epoch in (1, 2, 30):
        weights = build("cnn").state_dict()
        content = {**BARE_CHECKPOINT, "format": FORMAT, "epoch": epoch, "network": weights}
        torch.save(content, epoch_file(trial, epoch))
    panel = activations.panel(subject, tmp_path, IMAGES[:2], num_over_epochs=1)
    assert panel is not None
    assert [path.name for path in panel.images] == [
        "activations_40.png",
        "activations_45.png",
        "activations_40_epochs.png",
    ]
    assert "at the epochs 1, 2, 30" in panel.text


def test_of_very_deep_networks_some_layers_are_shown(tmp_path: Path) -> None:
    subject = make_subject(build("cnn", num_blocks=4, num_dense=9, dense_units=8, kernel_size=3), tmp_path)
    rows, num_left_out = activations.choose_rows(subject, IMAGES)
    assert [row.title for row in rows][:3] == ["stem.act", "block1.act", "block1.pool"]
    assert rows[-1].title == "output"
    assert len(rows) + num_left_out == 2 + 4 * 3 + 9 * 2 + 1
    assert len(rows) <= activations.MOST_ROWS
    panel = activations.panel(subject, tmp_path, IMAGES[:1])
    assert panel is not None
    assert f"{num_left_out} layers between these are not shown" in panel.text


@pytest.mark.parametrize("epochs", [3, 10])
def test_epochs_fit_on_the_sheet(tmp_path: Path, epochs: int) -> None:
    subject = make_subject(build("cnn"), tmp_path)
    rows, _ = activations.choose_rows(subject, IMAGES)
    layers = {name: values[0] for name, values in activations.outputs_of(subject, rows, IMAGES[:1]).items()}
    photo = np.zeros((32, 32, 3), np.uint8)
    activations._draw_epochs(tmp_path / "a.png", photo, "", rows, dict.fromkeys(range(epochs), layers))
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    top = activations.PHOTO + 2 * activations.GAP + activations.LINE
    tiles = (picture[top + 2] != 255).any(1)
    assert tiles[activations.MARGIN + 2]
    assert np.count_nonzero(np.diff(tiles[activations.MARGIN :].astype(int)) == -1) % epochs == 0  # whole groups
