"""Ten-crop testing against torchvision's ten_crop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from tiny_training import SIZE, make_data, make_network
from torchvision.transforms.functional import ten_crop

from ferhpo.scoring.predict import evaluate
from ferhpo.scoring.preprocess import Preprocess, preprocess_of
from ferhpo.scoring.ten_crop import border, evaluate_ten_crop, views


def in_any_order(crops: list[torch.Tensor]) -> set[bytes]:
    return {crop.numpy().tobytes() for crop in crops}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop", [40, 44])
def test_views_of_a_cropping_network_are_torchvisions(crop: int, channels: int) -> None:
    images = torch.randint(0, 256, (5, channels, 48, 48), dtype=torch.uint8)
    ours = list(views(images, Preprocess(channels, 48, crop, "none", (), ())))
    assert in_any_order(ours) == in_any_order(list(ten_crop(images, [crop, crop])))
    assert len(in_any_order(ours)) == 10
    edge = (48 - crop) // 2
    assert torch.equal(ours[0], images[:, :, edge:-edge, edge:-edge]), "the first is what one view sees"


def test_views_of_a_network_that_sees_all_are_those_of_an_image_with_a_repeated_edge() -> None:
    images = torch.randint(0, 256, (3, 1, 48, 48), dtype=torch.uint8)
    preprocess = Preprocess(1, 48, 48, "none", (), ())
    assert border(preprocess) == 2
    padded = F.pad(images.float(), [2] * 4, mode="replicate").to(torch.uint8)
    ours = list(views(images, preprocess))
    assert in_any_order(ours) == in_any_order(list(ten_crop(padded, [48, 48])))
    assert torch.equal(ours[0], images)
    assert torch.equal(ours[1], images.flip(-1))


@pytest.mark.parametrize("size", [20, SIZE])
@pytest.mark.parametrize("normalise", ["dataset", "image"])
def test_probabilities_are_the_mean_of_ten(size: int, normalise: str) -> None:
    data = make_data()
    network, preprocess = make_network(size=size), preprocess_of(data, size, normalise)
    found = evaluate_ten_crop(network.train(), data, "val", preprocess, batch_size=7)
    assert network.training
    images = torch.from_numpy(data.images[found.indices].copy())[:, None]
    if size == SIZE:
        images = F.pad(images.float(), [1] * 4, mode="replicate").to(torch.uint8)
    network.eval()
    with torch.inference_mode():
        crops = [network(preprocess.normalized(crop / 255)).softmax(1) for crop in ten_crop(images, [size, size])]
    mean = torch.stack(crops).mean(0).numpy()
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-6)
    labels = data.labels[found.indices]
    assert found.acc == (mean.argmax(1) == labels).mean()
    assert found.loss == pytest.approx(-np.log(mean[np.arange(len(labels)), labels]).mean(), rel=1e-5)
    assert int(found.confusion.sum()) == len(labels)


def test_a_network_invariant_to_mirrors_and_shifts_predicts_as_with_one_view() -> None:
    data, preprocess = make_data(), preprocess_of(make_data(), SIZE, "none")

    class Constant(torch.nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.new_zeros(len(inputs), 3) + self.bias

    network = Constant(1, 3)
    one, ten = evaluate(network, data, "val", preprocess), evaluate_ten_crop(network, data, "val", preprocess)
    np.testing.assert_allclose(one.probabilities, ten.probabilities, atol=1e-6)
    assert (one.acc, one.macro_f1) == (ten.acc, pytest.approx(ten.macro_f1))


def test_features_of_whole_images_have_no_crops() -> None:
    data = replace(make_data(), features=np.zeros((150, 2), np.float32))
    with pytest.raises(ValueError, match="ten-crop testing needs a network that takes images only"):
        evaluate_ten_crop(make_network(), data, "val", preprocess_of(data, SIZE, "none"))
