"""Saliency and Grad-CAM on networks for which the result is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ferhpo.evaluation.load import Subject
from ferhpo.reports.network import looking, saliency
from tests.reports.tiny_subject import NUM_CLASSES, SIZE, build, linear_subject, make_subject, train


@pytest.mark.parametrize("channels", [1, 3])
def test_saliency_of_a_linear_network_is_its_absolute_weight(tmp_path: Path, channels: int) -> None:
    subject = linear_subject(tmp_path, channels)
    weights = subject.network.get_parameter("1.weight").detach().reshape(NUM_CLASSES, channels, SIZE, SIZE)
    targets = torch.tensor([2, 0])
    found = saliency.saliency(subject, [40, 41], targets)
    expected = weights[targets].abs().amax(1) / 255  # pixels are 0..255, inputs 0..1
    torch.testing.assert_close(found, expected)


class Averaged(nn.Module):
    """A convolution, ReLU, the mean over the image, a dense layer: y_c = sum_k w_ck mean(A_k)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.act = nn.ReLU(inplace)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.output = nn.Linear(3, NUM_CLASSES)
        nn.init.constant_(self.conv.bias, 0.2)
        self.output.weight.data = torch.linspace(-1, 1, 3 * NUM_CLASSES).reshape(NUM_CLASSES, 3)  # against, for

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.flatten(self.pool(self.act(self.conv(images)))))
        return logits


def text_of(subject: Subject, folder: Path, against: int | None) -> str:
    """The text of the panel for one image; `against`: a class that wins although no map supports it."""
    subject.network.get_parameter("output.bias").data = torch.full((NUM_CLASSES,), 0.0)
    if against is not None:
        subject.network.get_parameter("output.bias").data[against] = 100
    panel = saliency.panel(subject, folder, [40])
    assert panel is not None
    return panel.text


def test_grad_cam_after_an_average_is_the_class_activation_map(tmp_path: Path) -> None:
    """There the gradient is w_ck / (H W) everywhere, and eq. 2 the rectified map of Zhou et al. 2016."""
    network = Averaged()
    subject = make_subject(network, tmp_path, normalise="none")
    indices, targets = [40, 45, 50], torch.tensor([0, 3, 2])
    with torch.no_grad():
        inputs = torch.from_numpy(subject.data.images[indices])[:, None].float() / 255
        maps = network.act(network.conv(inputs))
        weights = network.output.weight[targets]
        expected = ((weights / SIZE**2)[:, :, None, None] * maps).sum(1).clamp(min=0)
    assert saliency.last_maps(subject) == "act"
    found = saliency.grad_cam(subject, indices, targets, "act")
    torch.testing.assert_close(found, expected)
    assert found[0].max() == 0  # no map supports the first class
    assert "In 1 of 1 images Grad-CAM finds no region" in text_of(subject, tmp_path, against=0)
    assert "finds no region" not in text_of(subject, tmp_path, against=None)
    assert (found[1:].amax((1, 2)) > 0).all()


def test_grad_cam_is_not_misled_by_a_layer_that_writes_into_its_input(tmp_path: Path) -> None:
    targets = torch.tensor([0, 3])
    cams = []
    for inplace in (False, True):
        subject = make_subject(Averaged(inplace), tmp_path)
        cams.append(saliency.grad_cam(subject, [40, 45], targets, "conv"))
    assert torch.equal(*cams)


def test_grad_cam_does_not_mind_frozen_weights_or_batches(tmp_path: Path) -> None:
    subject = make_subject(build("cnn"), tmp_path)
    indices = list(range(40))
    targets = torch.arange(40) % NUM_CLASSES
    stage = saliency.last_maps(subject)
    assert stage == "features.block3.act"
    found = saliency.grad_cam(subject, indices, targets, stage)
    subject.network.requires_grad_(False)
    torch.testing.assert_close(saliency.grad_cam(subject, [37], targets[37:38], stage)[0], found[37])


@pytest.mark.parametrize(
    ("family", "stage"),
    [
        ("resnet-cbam", "stages.stage2.0"),  # neither the shortcut's convolution nor the attention's
        ("vit", "blocks.1"),
        ("feed_forward", None),
        pytest.param("torchvision-resnet18", "features.layer3.1", marks=pytest.mark.full),  # layer4 is one pixel
        pytest.param("torchvision-vgg13_bn", "features.features.33", marks=pytest.mark.full),
        pytest.param("torchvision-efficientnet_b0", "features.features.8", marks=pytest.mark.full),
    ],
)
def test_maps_are_those_of_the_last_spatial_stage(tmp_path: Path, family: str, stage: str | None) -> None:
    assert saliency.last_maps(make_subject(build(family), tmp_path)) == stage


def test_panel_shows_correct_and_wrong_predictions(tmp_path: Path) -> None:
    subject = train(make_subject(build("cnn"), tmp_path, input_size=SIZE), steps=10)
    correct, wrong = looking.most_confident(subject, correct=True), looking.most_confident(subject, correct=False)
    assert correct, "trained too little for this test"
    assert wrong, "trained too well for this test"
    panel = saliency.panel(subject, tmp_path)
    assert panel is not None
    assert [path.name for path in panel.images] == ["saliency_correct.png", "saliency_wrong.png"]
    assert "Grad-CAM at features.block3.act" in panel.text
    (chosen,) = saliency.panel(subject, tmp_path, [*correct, *wrong]).images  # type: ignore[union-attr]
    heights = [Image.open(path).height for path in (*panel.images, chosen)]
    cell = heights[0] / -(-len(correct) // 2)
    assert heights[2] == pytest.approx(cell * -(-(len(correct) + len(wrong)) // 2), abs=saliency.GAP * 3)


def test_network_without_maps_has_saliency_alone(tmp_path: Path) -> None:
    panel = saliency.panel(linear_subject(tmp_path), tmp_path, [40])
    assert panel is not None
    assert "no Grad-CAM" in panel.text
    picture = np.asarray(Image.open(panel.images[0]).convert("RGB"))
    third = picture[saliency.LINE + 40, saliency.GAP + 2 * (saliency.SIDE + saliency.GAP) + 40]
    assert third.tolist() == [255, 255, 255]
