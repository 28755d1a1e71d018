"""Ten-crop testing: the prediction is the mean of the probabilities of ten views (Krizhevsky et al. 2012, §4.1).

The views are the four corners and the center of the image, and their mirror images, each in the input size of the
network.

Note: if the input of the network is the whole image, there are no corners. The image is then padded by `border` pixels
on each side with the values of its edge; the views are the image, the image shifted by the border into each corner, and
their mirror images.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.scoring.device_data import indices_of, to_device
from ferhpo.scoring.exact import exact_float32
from ferhpo.scoring.predict import Evaluation, confusion_of
from ferhpo.scoring.preprocess import Preprocess
from ferhpo.scoring.scores import score

BORDER_SHARE = 24  # a border is 1/24 of the side of the image, e.g. 2 of 48 pixels


def border(preprocess: Preprocess) -> int:
    """Return the width in pixels of the padding on each side; 0 if the input of the network is a crop of the image."""
    cut = preprocess.image_size - preprocess.input_size
    return 0 if cut else max(1, round(preprocess.image_size / BORDER_SHARE))


def views(images: Tensor, preprocess: Preprocess) -> Iterator[Tensor]:
    """Yield the ten views of images uint8 [N, C, H, H], each uint8 [N, C, input_size, input_size].

    The first is the view of an ordinary evaluation, the second its mirror image.
    """
    edge, size = border(preprocess), preprocess.input_size
    side = preprocess.image_size
    if edge:
        positions = torch.arange(-edge, side + edge, device=images.device).clamp_(0, side - 1)
        images = images[:, :, positions][:, :, :, positions]
    far = images.shape[-1] - size
    middle = far // 2
    for top, left in ((middle, middle), (0, 0), (0, far), (far, 0), (far, far)):
        window = images[:, :, top : top + size, left : left + size]
        yield window
        yield window.flip(-1)


def evaluate_ten_crop(
    network: nn.Module,
    data: FaceData,
    split: str,
    preprocess: Preprocess,
    *,
    batch_size: int = 256,
    device: torch.device | None = None,
) -> Evaluation:
    """Score a network on the split "train", "val" or "test" like `evaluate`, but with ten views of each image.

    The loss is that of the mean probabilities. Raises ValueError if the split has no images, or if the network takes
    features, which describe the whole image.
    """
    if data.features is not None:
        raise ValueError("ten-crop testing needs a network that takes images only; this one also takes features")
    indices = indices_of(data, SPLIT_NAMES.index(split))
    device = device or next(network.parameters()).device
    on_device = to_device(data, device)
    positions = torch.from_numpy(indices).to(device)
    was_training = network.training
    network.eval()
    means = []
    try:
        with torch.inference_mode(), exact_float32():
            for start in range(0, len(positions), batch_size):
                images = on_device.images[positions[start : start + batch_size]]
                predictions = [
                    network(preprocess.normalized(view.float().mul_(1 / 255))).float().softmax(1)
                    for view in views(images, preprocess)
                ]
                means.append(torch.stack(predictions).mean(0))
    finally:
        network.train(was_training)
    probabilities = torch.cat(means).cpu()
    labels = data.labels[indices]
    confusion = confusion_of(probabilities.argmax(1), torch.from_numpy(labels), data.num_classes)
    line = score(probabilities.numpy(), data, indices)
    return Evaluation(line.loss, line.acc, line.macro_f1, confusion, probabilities.numpy(), labels, indices)
