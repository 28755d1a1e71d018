"""Looking into a network: the same predictions as in validation, and the network is left unchanged."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ferhpo.data.dataset import TRAIN, array_digest
from ferhpo.reports.network import activations, deepdream, filters, looking, saliency, sparsity
from ferhpo.reports.trial import gallery
from ferhpo.training.checkpoint import FORMAT, epoch_file
from tests.reports.made_sweeps import BARE_CHECKPOINT
from tests.reports.tiny_subject import FAMILIES, NUM_CLASSES, SIZE, build, make_data, make_subject

IMAGES = [41, 3]  # one of validation, one of training
FAST = [("feed_forward", 3), ("resnet-cbam", 1)]
CASES = [
    pytest.param(family, channels, marks=() if (family, channels) in FAST else pytest.mark.full)
    for family in FAMILIES
    for channels in (1, 3)
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("normalise", "input_size"), [("dataset", 32), ("image", 24), ("none", 28)])
def test_predictions_are_those_of_validation(tmp_path: Path, normalise: str, input_size: int, channels: int) -> None:
    network = build("resnet", channels=channels)
    subject = make_subject(network, tmp_path, make_data(channels), normalise, input_size)
    found = looking.probabilities_of(subject, subject.predictions.indices.tolist())
    np.testing.assert_allclose(found.numpy(), subject.predictions.probabilities, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalise", ["dataset", "image", "none"])
def test_gradients_pass_the_preprocessing(tmp_path: Path, normalise: str) -> None:
    network = build("cnn", norm="none", activation="gelu", pool="avg", image_size=24)  # smooth, for the difference
    subject = make_subject(network, tmp_path, None, normalise, input_size=24)
    pixels = looking.pixels_of(subject, [1]).requires_grad_()
    (gradient,) = torch.autograd.grad(looking.logits_of(subject, pixels)[0, 2], pixels)
    direction = gradient.sign() * 2
    with torch.no_grad():
        above, below = (looking.logits_of(subject, pixels + sign * direction)[0, 2] for sign in (1, -1))
    assert float((gradient * direction).sum()) == pytest.approx(float(above - below) / 2, rel=0.02)
    assert gradient.abs().max() > 0
    assert gradient[0, 0, :4].abs().max() == 0  # cropped by the preprocessing


@pytest.mark.parametrize(("family", "channels"), CASES)
def test_every_panel_of_every_family_leaves_the_network_as_it_was(tmp_path: Path, family: str, channels: int) -> None:
    data = make_data(channels)
    subject = make_subject(build(family, channels=channels), tmp_path, data)
    network = subject.network
    first, *others = network.parameters()
    first.requires_grad_(False)  # like trainer.frozen_epochs
    for parameter in others:
        parameter.grad = torch.ones_like(parameter)
    network.train()
    modes = {name: i % 2 == 0 for i, (name, _) in enumerate(network.named_modules())}
    for name, module in network.named_modules():
        module.training = modes[name]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    quick = deepdream.DreamSettings(iterations=2, octaves=2)
    random_state = torch.get_rng_state()
    panels = {
        "gallery": gallery.panel(subject, tmp_path),
        "activations": activations.panel(subject, tmp_path, IMAGES),
        "sparsity": sparsity.panel(subject, tmp_path, num_images=4),
        "filters": filters.panel(subject, tmp_path),
        "deepdream": deepdream.panel(subject, tmp_path, settings=quick),
        "saliency": saliency.panel(subject, tmp_path, IMAGES),
    }
    for name, panel in panels.items():
        assert panel is not None, name
        assert panel.images, name
        assert all(file.stat().st_size > 500 for file in panel.images), name
        assert all(len(file.read_text().splitlines()) > 1 for file in panel.tables), name

    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert first.grad is None
    assert not first.requires_grad
    assert all(torch.equal(p.grad, torch.ones_like(p)) and p.requires_grad for p in others if p.grad is not None)
    assert all(p.grad is not None for p in others)
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in network.modules())
    assert array_digest(data.images) == array_digest(make_data(channels).images)


def test_hooks_and_mode_come_back_after_an_error(tmp_path: Path) -> None:
    subject = make_subject(build("cnn"), tmp_path)
    subject.network.train()

    def fail(name: str, output: Tensor) -> None:
        raise KeyError(name)

    with pytest.raises(KeyError):
        looking.watch(subject, looking.stages(subject.network), IMAGES, fail)
    assert not any(module._forward_hooks for module in subject.network.modules())
    assert subject.network.training


def test_pixels_are_a_copy_as_floats(tmp_path: Path) -> None:
    subject = make_subject(build("cnn", channels=3), tmp_path, make_data(3))
    pixels = looking.pixels_of(subject, IMAGES)
    assert pixels.dtype == torch.float32
    np.testing.assert_array_equal(pixels.numpy(), subject.data.images[IMAGES].transpose(0, 3, 1, 2))
    looking.logits_of(subject, pixels)
    np.testing.assert_array_equal(pixels.numpy(), subject.data.images[IMAGES].transpose(0, 3, 1, 2))


def test_stages_are_layers_of_plain_networks_and_blocks_of_others() -> None:
    assert list(looking.stages(build("cnn", num_blocks=1))) == [
        "features.stem.conv",
        "features.stem.act",
        "features.block1.conv",
        "features.block1.act",
        "features.block1.pool",
        "classifier.dense1.linear",
        "classifier.dense1.act",
        "classifier.output",
    ]
    assert list(looking.stages(build("resnet-se"))) == [
        "stem.0.conv",
        "stem.1",
        "stages.stage1.0",
        "stages.stage2.0",
        "pool",
        "output",
    ]
    assert list(looking.stages(build("vit"))) == ["patches", "blocks.0", "blocks.1", "output"]
    with torch.device("meta"):
        resnet, vgg = (looking.stages(build(f"torchvision-{arch}")) for arch in ("resnet18", "vgg13_bn"))
    assert [looking.short_name(name, resnet[name]) for name in resnet] == [
        "conv1",
        "relu",
        "maxpool",
        *(f"layer{layer}.{block}" for layer in (1, 2, 3, 4) for block in (0, 1)),
        "avgpool",
        "output",
    ]
    assert [looking.short_name(name, vgg[name]) for name in vgg][:3] == ["Conv2d 0", "ReLU 2", "Conv2d 3"]


def test_tokens_form_rows_and_values_without_spatial_dimensions_are_flat() -> None:
    tokens = torch.arange(9.0).reshape(1, 9, 1).repeat(2, 1, 5)
    assert looking.as_maps(tokens)[1, 4].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert looking.as_maps(torch.rand(2, 10, 5)).shape == (2, 5)
    assert looking.as_maps(torch.rand(2, 5, 1, 1)).shape == (2, 5)
    assert looking.as_maps(torch.rand(2, 5, 1, 2)).shape == (2, 5, 1, 2)


def test_most_confident_predictions_of_each_class(tmp_path: Path) -> None:
    subject = make_subject(build("cnn"), tmp_path)
    indices, labels = subject.predictions.indices, subject.data.labels[subject.predictions.indices]
    probabilities = np.full((len(indices), NUM_CLASSES), 0.1, np.float32)
    probabilities[np.arange(len(indices)), labels] = 0.4  # all correct ...
    wrong_angry, sure_angry = np.flatnonzero(labels == 0)[[2, 5]]
    probabilities[wrong_angry] = [0, 0.9, 0.1, 0]  # ... but one
    probabilities[sure_angry, 0] = 0.7
    subject = replace(subject, predictions=replace(subject.predictions, probabilities=probabilities))
    first_of = [indices[np.flatnonzero(labels == label)[0]] for label in range(NUM_CLASSES)]
    assert looking.most_confident(subject, correct=True) == [indices[sure_angry], *first_of[1:]]
    assert looking.most_confident(subject, correct=False) == [indices[wrong_angry]]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([0, 80, -1], "images has 80, -1; the data set has 80 images, counted from 0"),
        ([0, 79], "images has 79 of the test split, which reports do not show; choose validation images"),
    ],
)
def test_images_that_cannot_be_shown_are_named(tmp_path: Path, images: list[int], message: str) -> None:
    subject = make_subject(build("cnn"), tmp_path)
    for module in (activations, saliency):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            module.panel(subject, tmp_path, images)


def test_kept_epochs_and_the_best_come_in_order(tmp_path: Path) -> None:
    subject = make_subject(build("cnn"), tmp_path, best_epoch=3)
    trial = tmp_path / "trials" / "0000"
    trial.mkdir(parents=True)
    assert [epoch for epoch, _ in looking.by_epoch(subject)] == [3]
    for epoch in (1, 3, 10):
        weights = {name: tensor * 0 + epoch for name, tensor in subject.network.state_dict().items()}
        content = {**BARE_CHECKPOINT, "format": FORMAT, "epoch": epoch, "network": weights}
        torch.save(content, epoch_file(trial, epoch))
    found = dict(looking.by_epoch(subject))
    assert list(found) == [1, 3, 10]
    assert found[3] is subject
    weights_of = {epoch: then.network.state_dict()["classifier.output.bias"] for epoch, then in found.items()}
    assert weights_of[1].unique().tolist() == [1]
    assert weights_of[10].unique().tolist() == [10]
    assert [epoch for epoch, _ in looking.by_epoch(subject, most=2)] == [1, 3]


def test_of_many_values_those_evenly_spread_stay() -> None:
    assert looking.evenly_spread(range(10), 4) == [0, 3, 6, 9]
    assert looking.evenly_spread([1, 2], 4) == [1, 2]


class Hybrid(nn.Module):
    """A network whose predictions depend on features of the images only, its second argument."""

    num_image_features = NUM_CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(SIZE * SIZE, NUM_CLASSES)

    def forward(self, images: Tensor, features: Tensor) -> Tensor:
        return features + 0 * self.output(images.flatten(1))


def test_features_of_the_images_go_in_too(tmp_path: Path) -> None:
    data = make_data()
    features = np.random.default_rng(0).normal(size=(len(data.labels), NUM_CLASSES)).astype(np.float32)
    subject = replace(make_subject(build("cnn"), tmp_path, data), network=Hybrid())
    subject = replace(subject, data=replace(data, features=features))
    pixels = looking.pixels_of(subject, IMAGES)
    np.testing.assert_allclose(looking.logits_of(subject, pixels, IMAGES).detach().numpy(), features[IMAGES])
    mean = features[data.split == TRAIN].mean(0)
    np.testing.assert_allclose(looking.logits_of(subject, pixels).detach().numpy(), np.stack([mean, mean]), rtol=1e-5)


class Tree(nn.Module):
    """An estimator: it predicts like a network, and has no parameters."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))[:, None] * torch.arange(NUM_CLASSES)


def test_an_estimator_has_a_gallery_and_nothing_else(tmp_path: Path) -> None:
    subject = replace(make_subject(build("cnn"), tmp_path), network=Tree())
    assert gallery.panel(subject, tmp_path) is not None
    for module in (activations, deepdream, filters, saliency, sparsity):
        assert module.panel(subject, tmp_path) is None
