"""Ten-crop testing: an image is answered by the mean of the probabilities of ten views (Krizhevsky et al. 2012, §4.1).

The views are the four corners and the middle, and their mirror images, each of the size that the network sees. What a
reader would get wrong: a network that sees the whole image has no corners to look at. There the image is first made
larger by `border` pixels on each side, which repeat its edge, so that the views are the image itself, the image moved
by that much into each corner, and their mirrors.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ferhpo.data.dataset import SPLIT_NAMES, FaceData
from ferhpo.scoring.device_data import indices_of, to_device
from ferhpo.scoring.predict import Evaluation, confusion_of
from ferhpo.scoring.preprocess import Preprocess
from ferhpo.scoring.scores import score

BORDER_SHARE = 24  # a border is 1/24 of the image's side: 2 pixels of 48


def border(preprocess: Preprocess) -> int:
    """Pixels by which an image is made larger on each side first; 0 where the network sees a crop of it."""
    cut = preprocess.image_size - preprocess.input_size
    return 0 if cut else max(1, round(preprocess.image_size / BORDER_SHARE))


def views(images: Tensor, preprocess: Preprocess) -> Iterator[Tensor]:
    """Yield the ten views of images uint8 [N, C, H, H], each uint8 [N, C, input_size, input_size].

    The first is the one that the network is otherwise evaluated on, the second its mirror image.
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
    """Score a network on "train", "val" or "test" by ten views of each image, as `evaluate` does by one.

    The loss is that of the mean probabilities. ValueError where the split has no images, or the network is also given
    features, which belong to the whole image.
    """
    if data.features is not None:
        raise ValueError("ten-crop needs a network that sees images alone; this one is also given features")
    indices = indices_of(data, SPLIT_NAMES.index(split))
    device = device or next(network.parameters()).device
    on_device = to_device(data, device)
    positions = torch.from_numpy(indices).to(device)
    was_training = network.training
    network.eval()
    means = []
    try:
        with torch.inference_mode():
            for start in range(0, len(positions), batch_size):
                images = on_device.images[positions[start : start + batch_size]]
                answers = [
                    network(preprocess.normalised(view.float().mul_(1 / 255))).float().softmax(1)
                    for view in views(images, preprocess)
                ]
                means.append(torch.stack(answers).mean(0))
    finally:
        network.train(was_training)
    probabilities = torch.cat(means).cpu()
    labels = data.labels[indices]
    confusion = confusion_of(probabilities.argmax(1), torch.from_numpy(labels), data.num_classes)
    line = score(probabilities.numpy(), data, indices)
    return Evaluation(line.loss, line.acc, line.macro_f1, confusion, probabilities.numpy(), labels, indices)
