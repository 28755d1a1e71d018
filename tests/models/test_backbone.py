"""torchvision networks: what is adapted, what stays, weights that fit, and the messages for those that do not."""

import re

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from ferhpo.errors import Infeasible
from ferhpo.models.backbone import ARCHITECTURES, Backbone
from ferhpo.models.count import count_macs, count_parameters
from ferhpo.models.resnet import ResNet

DATA = {"in_channels": 1, "num_classes": 7, "image_size": 48}


def on_meta(**settings):
    with torch.device("meta"):
        return Backbone(**{**DATA, **settings})


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("stem", ["small", "original"])
def test_every_architecture_predicts_gray_and_color(arch, stem):
    for channels, size in ((1, 48), (3, 44)):
        network = on_meta(arch=arch, stem=stem, in_channels=channels, image_size=size)
        assert network(torch.empty(2, channels, size, size, device="meta")).shape == (2, 7)


def test_parameters_are_torchvisions_with_another_first_and_last_layer():
    with torch.device("meta"):
        oracle = get_model("resnet50", num_classes=7)
        oracle.conv1 = torch.nn.Conv2d(1, 64, 3, padding=1, bias=False)
    assert count_parameters(on_meta(arch="resnet50")) == count_parameters(oracle)


def test_a_small_stem_keeps_the_size_of_the_image():
    with torch.device("meta"):
        ours = ResNet(**DATA)
    assert count_macs(on_meta(stem="small"), (1, 48, 48)) == count_macs(ours, (1, 48, 48))
    assert count_macs(on_meta(stem="original"), (1, 48, 48)) < count_macs(ours, (1, 48, 48)) / 12


def test_resize_enlarges_before_the_first_layer():
    assert count_macs(on_meta(stem="original", resize=96), (1, 48, 48)) == count_macs(
        on_meta(stem="original", image_size=96), (1, 96, 96)
    )


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("arch", ["resnet18", "efficientnet_b0"])
def test_trained_weights_predict_gray_as_three_equal_channels(tmp_path, ending, arch):
    torch.manual_seed(0)
    trained = get_model(arch).eval()
    path = tmp_path / f"weights.{ending}"
    if ending == "pth":
        torch.save(trained.state_dict(), path)
    else:
        save_file(trained.state_dict(), path)
    network = Backbone(**DATA, arch=arch, weights=str(path), stem="original").eval()
    grey = torch.rand(2, 1, 48, 48)
    trained.fc = trained.classifier = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(network.features(grey), trained(grey.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


def test_a_small_stem_draws_its_own_first_layer(tmp_path):
    trained = get_model("resnet18")
    torch.save(trained.state_dict(), tmp_path / "weights.pth")
    network = Backbone(**DATA, weights=str(tmp_path / "weights.pth"))
    assert network.features.conv1.weight.shape == (64, 1, 3, 3)
    assert torch.equal(network.features.layer1[0].conv1.weight, trained.layer1[0].conv1.weight)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"arch": "alexnet"}, ValueError, "arch is 'alexnet'; it must be one of resnet18, "),
        ({"weights": "/none.pth"}, ValueError, "weights is /none.pth; it must be none, imagenet or an existing file"),
        ({"arch": "vgg13_bn", "image_size": 24}, Infeasible, "vgg13_bn halves the image five times; 24x24 pixels are too small for it"),
        ({"resize": 0}, ValueError, "resize is 0; it must be an integer of at least 1"),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_named(settings, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        on_meta(**settings)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(get_model("resnet34").state_dict(), path)
    with pytest.raises(ValueError, match=r"which belongs to another network: layer1.2.bn1.bias does not fit"):
        Backbone(**DATA, weights=str(path))
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"which belongs to another network: bn1.bias is missing"):
        Backbone(**DATA, weights=str(path))


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/ferhpo-evil", "w"))


def test_pickled_code_in_weights_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": Evil()}, path)
    with pytest.raises(
        ValueError, match=r"which has objects other than tensors, or is damaged; save only its state_dict"
    ):
        Backbone(**DATA, weights=str(path))
