"""torchvision's ResNets, VGGs and EfficientNets, adapted to small images with one or three channels.

The classifier is one new linear layer, `output`, on the averaged features: the three layers of VGG's own classifier
have 120 of its 140 million weights and expect 224 pixels.

Note: trained weights must match the whole network except for its classifier and first layer; a mismatch is an error.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch.nn.functional as F  # noqa: N812 - the usual name
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from ferhpo.disk import fault_of_file
from ferhpo.errors import Infeasible
from ferhpo.models.files.torch_file import TORCH_FILE_ERRORS, read_torch
from ferhpo.models.layers import check_choice, check_dropout, check_int

ARCHITECTURES = (
    "resnet18", "resnet34", "resnet50", "vgg13_bn", "vgg16_bn", "vgg19_bn",
    "efficientnet_b0", "efficientnet_b1", "efficientnet_b2",
)  # fmt: skip
STEMS = ("small", "original")
FIRST_CONV = {"resnet": "conv1", "vgg": "features.0", "efficientnet": "features.0.0"}
CLASSIFIERS = ("fc.", "classifier.")
SMALLEST_VGG = 32  # side in pixels; VGG halves it five times


class Backbone(nn.Module):
    """Classify images with a network of torchvision. Forward: float [N, C, H, W] to logits [N, num_classes].

    conf/model/torchvision.yaml explains the settings; in_channels, num_classes and image_size (side in pixels) come
    from the data. For gray images, trained weights of the first layer are summed over their three input channels, which
    is equivalent to an image with three equal channels. Raises ValueError for a setting out of range and for weights
    that do not fit, Infeasible if the image is too small for the network.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        arch: str = "resnet18",
        weights: str = "none",
        stem: str = "small",
        resize: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_int("in_channels", in_channels)
        check_int("num_classes", num_classes)
        check_int("image_size", image_size)
        check_choice("arch", arch, ARCHITECTURES)
        check_choice("stem", stem, STEMS)
        check_dropout("dropout", dropout)
        if resize is not None:
            check_int("resize", resize)
        family = next(name for name in FIRST_CONV if arch.startswith(name))
        size = resize or image_size
        if family == "vgg" and size < SMALLEST_VGG:
            raise Infeasible(f"{arch} halves the image five times; {size}x{size} pixels are too small for it")
        self.resize = resize
        self.features: nn.Module = get_model(arch)
        num_features = _remove_classifier(self.features, family)
        _adapt_stem(self.features, family, in_channels, stem)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(num_features, num_classes)
        nn.init.zeros_(self.output.bias)
        if not self.output.weight.is_meta:
            nn.init.normal_(self.output.weight, std=0.01)
        if weights not in ("none", "imagenet") and not Path(weights).is_file():
            raise ValueError(f"weights is {weights}; it must be none, imagenet or an existing file")
        if weights != "none" and not self.output.weight.is_meta:
            _load_weights(self.features, _read_weights(arch, weights), FIRST_CONV[family], weights)

    def forward(self, images: Tensor) -> Tensor:
        if self.resize is not None:
            images = F.interpolate(images, size=self.resize, mode="bilinear", antialias=True)
        logits: Tensor = self.output(self.dropout(self.features(images)))
        return logits


def _remove_classifier(network: nn.Module, family: str) -> int:
    """Remove the classifier, so that `network` returns its averaged features; return the number of features."""
    if family == "resnet":
        last = network.get_submodule("fc")
        assert isinstance(last, nn.Linear)
        network.fc = nn.Identity()
        return last.in_features
    if family == "vgg":
        network.avgpool, network.classifier = nn.AdaptiveAvgPool2d(1), nn.Identity()
        return 512
    last = network.get_submodule("classifier.1")
    assert isinstance(last, nn.Linear)
    network.classifier = nn.Identity()
    return last.in_features


def _adapt_stem(network: nn.Module, family: str, in_channels: int, stem: str) -> None:
    """Replace the first convolution by one for `in_channels`; with stem "small" it keeps the size of the image."""
    parent_name, _, name = FIRST_CONV[family].rpartition(".")
    parent = network.get_submodule(parent_name)
    old = parent.get_submodule(name)
    assert isinstance(old, nn.Conv2d)
    kernel_size, stride, padding = old.kernel_size[0], old.stride[0], int(old.padding[0])
    if stem == "small" and family == "resnet":
        kernel_size, stride, padding = 3, 1, 1
        network.maxpool = nn.Identity()
    elif stem == "small":
        stride = 1
    new = nn.Conv2d(in_channels, old.out_channels, kernel_size, stride, padding, bias=old.bias is not None)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    setattr(parent, name, new)


def _read_weights(arch: str, weights: str) -> Mapping[str, Tensor]:
    """Return torchvision's weights, downloaded into torch's cache, or those of a file. Raises ValueError on failure."""
    if weights == "imagenet":
        try:
            state: Mapping[str, Tensor] = get_model_weights(arch).DEFAULT.get_state_dict(check_hash=True)
        except OSError as error:
            raise ValueError(
                f"weights is imagenet; the weights of {arch} cannot be downloaded ({error}); set the path of their file"
            ) from None
        return state
    try:
        if fault := fault_of_file(Path(weights)):
            raise OSError(fault)
        if weights.endswith(".safetensors"):
            loaded = load_file(weights)
        else:
            loaded = read_torch(Path(weights).read_bytes())
            loaded = loaded.get("state_dict", loaded)
        damaged = not all(isinstance(tensor, Tensor) for tensor in loaded.values())
    except pickle.UnpicklingError:
        damaged = True
    except (SafetensorError, OSError, *TORCH_FILE_ERRORS) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"weights is {weights}, which is damaged ({reason}); download it again") from None
    if damaged:
        raise ValueError(
            f"weights is {weights}, which has objects other than tensors, or is damaged; save only its state_dict"
        )
    return loaded


def _load_weights(network: nn.Module, state: Mapping[str, Tensor], first_conv: str, source: str) -> None:
    """Load all weights except those of a classifier and, if its shape differs, of the first convolution."""
    own = network.state_dict()
    first = f"{first_conv}.weight"
    given = {key: value for key, value in state.items() if not key.startswith(CLASSIFIERS)}
    if first in given and given[first].shape[1] == 3 and own[first].shape[1] == 1:
        given[first] = given[first].sum(1, keepdim=True)
    if first in given and given[first].shape != own[first].shape:
        del given[first]  # a small stem is trained from scratch
    missing = sorted(key for key in own if key not in given and not key.startswith(first_conv))
    wrong = sorted(key for key, value in given.items() if key not in own or value.shape != own[key].shape)
    if missing or wrong:
        reason = f"{missing[0]} is missing" if missing else f"{wrong[0]} does not fit"
        raise ValueError(f"weights is {source}, which belongs to another network: {reason}")
    network.load_state_dict(given, strict=False)
