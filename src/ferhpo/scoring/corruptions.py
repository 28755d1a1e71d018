"""Images as a camera in use would take them: blurred, noisy, too dark, turned, covered, small.

Each corruption has five severities, as in Hendrycks and Dietterich 2019 (Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations), with strengths for faces of 48 pixels; sizes grow with the image. The same images
are corrupted in the same way at every call.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

SEVERITIES = (1, 2, 3, 4, 5)
_OF = 48  # pixels; the side of the images for which the strengths are
Pixels = NDArray[np.uint8]  # [H, W] or [H, W, 3]
Corruption = Callable[[Pixels, int, np.random.Generator], Pixels]


def blur(image: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """Blur by a Gaussian of 0.4 to 2 pixels (of 48)."""
    radius = (0.4, 0.7, 1.0, 1.4, 2.0)[severity - 1] * image.shape[0] / _OF
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def noise(image: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """Add normal noise with a deviation of 8 to 50 gray levels."""
    deviation = (8, 16, 24, 36, 50)[severity - 1]
    return _as_pixels(image + random.normal(0, deviation, image.shape))


def dark(image: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """Multiply by 0.8 to 0.25, as in less light."""
    return _as_pixels(image * (0.8, 0.65, 0.5, 0.35, 0.25)[severity - 1])


def bright(image: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """Add 25 to 125 gray levels; what would be above white is white."""
    return _as_pixels(image.astype(np.float64) + 25 * severity)


def contrast(image: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """Reduce the contrast to 0.75 to 0.15 of what it is."""
    mean = image.mean()
    return _as_pixels(mean + (image - mean) * (0.75, 0.6, 0.45, 0.3, 0.15)[severity - 1])


def jpeg(image: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """Compress as JPEG of quality 60 to 8."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=(60, 40, 25, 15, 8)[severity - 1])
    return np.asarray(Image.open(file))


def rotation(image: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """Turn by 6 to 45 degrees, to one side or the other; corners are filled with the mean."""
    angle = (6, 12, 20, 30, 45)[severity - 1] * random.choice([-1, 1])
    fill = tuple(int(value) for value in np.atleast_1d(image.mean((0, 1))))
    turned = Image.fromarray(image).rotate(
        angle, Image.Resampling.BILINEAR, fillcolor=fill if len(fill) > 1 else fill[0]
    )
    return np.asarray(turned)


def occlusion(image: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """Cover a square of 4 to 36 % of the image with its mean, as a hand or a mask would."""
    side = max(1, round(image.shape[0] * (0.2, 0.3, 0.4, 0.5, 0.6)[severity - 1]))
    top, left = random.integers(0, np.array(image.shape[:2]) - side + 1)
    covered = image.copy()
    covered[top : top + side, left : left + side] = image.mean((0, 1)).astype(np.uint8)
    return covered


def low_resolution(image: Pixels, severity: int, random: np.random.Generator) -> Pixels:
    """Reduce to 0.7 to 0.2 of the side and enlarge again, as a face far from the camera."""
    height, width = image.shape[:2]
    share = (0.7, 0.55, 0.4, 0.3, 0.2)[severity - 1]
    small = Image.fromarray(image).resize(
        (max(2, round(width * share)), max(2, round(height * share))), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))


CORRUPTIONS: dict[str, Corruption] = {
    each.__name__: each for each in (blur, noise, dark, bright, contrast, jpeg, rotation, occlusion, low_resolution)
}


def corrupted(images: Pixels, name: str, severity: int) -> Pixels:
    """Return images uint8 [N, H, W] or [N, H, W, 3] with a corruption, each drawn with its own number as the seed."""
    corrupt = CORRUPTIONS[name]
    return np.stack([corrupt(image, severity, np.random.default_rng([severity, n])) for n, image in enumerate(images)])


def _as_pixels(values: NDArray[np.floating[Any]]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)  # type: ignore[no-any-return]


def kinds(severities: Sequence[int] = SEVERITIES) -> Iterator[tuple[str, int]]:
    """Yield every corruption with every severity."""
    for name in CORRUPTIONS:
        for severity in severities:
            yield name, severity
