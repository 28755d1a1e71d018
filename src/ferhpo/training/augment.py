"""Augmentation of a whole batch of images at once, on the device, with separate noise for each image.

Random numbers and their use are separate: `noise` returns the random numbers of a whole epoch, on the CPU; the other
methods apply them to a batch and are deterministic.

Note: images may be a view of the array that all trials share, so nothing here writes into its argument.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from numpy.typing import NDArray
from torch import Tensor

COLUMNS = (
    "flip",  # 1 mirrors the image
    "shift_x",  # integer, in pixels to the right
    "shift_y",  # integer, in pixels down
    "angle",  # degrees clockwise
    "scale",  # factor
    "crop_x",  # left edge of the window, in pixels
    "crop_y",  # upper edge of the window, in pixels
    "brightness",  # factor
    "contrast",  # factor
    "erase_left",  # rectangle, in pixels of the window; empty if opposite edges are equal
    "erase_top",
    "erase_right",
    "erase_bottom",
    "mix",  # weight of the image itself; the one before it in the batch gets the rest
)
COLUMN = {name: i for i, name in enumerate(COLUMNS)}
ERASING_LEAST_AREA = 0.02  # Zhong et al. 2017, section 4.1
ERASING_LARGEST_RATIO = 3.3


@dataclass(frozen=True)
class Augment:
    """The settings of conf/augment, which explains them. Raises ValueError for a setting out of range."""

    flip: float = 0.0
    shift: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    crop: int | None = None
    brightness: float = 0.0
    contrast: float = 0.0
    erasing: float = 0.0
    erasing_area: float = 0.2
    mixup: float = 0.0

    def __post_init__(self) -> None:
        limits = {
            "flip": (1.0, "in [0, 1]"),
            "erasing": (1.0, "in [0, 1]"),
            "shift": (0.99, "in [0, 0.99]"),
            "scale": (0.99, "in [0, 0.99]"),
            "rotation": (180.0, "in [0, 180] degrees"),
            "brightness": (1.0, "in [0, 1]"),
            "contrast": (1.0, "in [0, 1]"),
            "mixup": (math.inf, "at least 0"),
        }
        for key, (largest, rule) in limits.items():
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= largest:
                raise ValueError(f"{key} is {value!r}; it must be {rule}")
        if not isinstance(self.erasing_area, int | float) or not ERASING_LEAST_AREA <= self.erasing_area < 1:
            raise ValueError(f"erasing_area is {self.erasing_area!r}; it must be in [{ERASING_LEAST_AREA}, 1)")
        if self.crop is not None and (isinstance(self.crop, bool) or not isinstance(self.crop, int) or self.crop < 1):
            raise ValueError(f"crop is {self.crop!r}; it must be an integer of at least 1, or null")

    def output_size(self, image_size: int) -> int:
        """Return the side in pixels of the network's input. Raises ValueError if the crop is larger than the image."""
        if self.crop is not None and self.crop > image_size:
            raise ValueError(f"crop is {self.crop}; it must be at most {image_size}, the side in pixels of the images")
        return self.crop or image_size

    def noise(self, num_images: int, image_size: int, rng: np.random.Generator) -> Tensor:
        """Return the noise for `num_images` images: float32 [num_images, len(COLUMNS)] on the CPU.

        Each setting has its own random numbers, so that switching one on does not change the others.
        """
        size = self.output_size(image_size)
        u = rng.random((len(COLUMNS) - 1, num_images))
        either = 2 * u - 1
        noise = np.zeros((len(COLUMNS), num_images))
        noise[0] = u[0] < self.flip
        noise[1:3] = np.round(either[1:3] * self.shift * image_size)
        noise[3] = either[3] * self.rotation
        noise[4] = 1 + either[4] * self.scale
        noise[5:7] = np.floor(u[5:7] * (image_size - size + 1))
        noise[7] = 1 + either[7] * self.brightness
        noise[8] = 1 + either[8] * self.contrast
        noise[9:13] = self._rectangles(u[9:13], size)
        noise[13] = 1.0
        if self.mixup > 0:
            weight = rng.beta(self.mixup, self.mixup, num_images)
            noise[13] = np.maximum(weight, 1 - weight)  # an image and its label have the larger weight in the mixture
        return torch.from_numpy(noise.T.astype(np.float32))

    def _rectangles(self, u: NDArray[np.float64], size: int) -> NDArray[np.float64]:
        """Return left, top, right, bottom of the rectangles to erase [4, N] from uniform numbers [4, N].

        The first number decides whether to erase and, rescaled, the area; so four are enough.
        """
        erased = u[0] < self.erasing
        place = u[0] / max(self.erasing, 1e-9)
        area = (ERASING_LEAST_AREA + place * (self.erasing_area - ERASING_LEAST_AREA)) * size * size
        ratio = np.exp((2 * u[1] - 1) * math.log(ERASING_LARGEST_RATIO))
        width = np.minimum(np.round(np.sqrt(area * ratio)), size)
        height = np.minimum(np.round(np.sqrt(area / ratio)), size)
        left = np.floor(u[2] * (size - width + 1))
        top = np.floor(u[3] * (size - height + 1))
        rectangles: NDArray[np.float64] = np.stack([left, top, left + width, top + height]) * erased
        return rectangles

    def __call__(self, images: Tensor, noise: Tensor) -> Tensor:
        """Return the augmented images, float32 [N, C, size, size] in 0..1; images are uint8 [N, C, H, H]."""
        size = self.output_size(images.shape[-1])
        if self.rotation or self.scale:
            changed = _warp(images.float(), noise, size)
        else:
            changed = self._move(images, noise, size).float()
        changed = changed.mul_(1 / 255)
        if self.brightness:
            changed = changed.mul_(_column(noise, "brightness")).clamp_(0, 1)
        if self.contrast:
            mean = changed.mean((1, 2, 3), keepdim=True)
            changed = changed.sub_(mean).mul_(_column(noise, "contrast")).add_(mean).clamp_(0, 1)
        if self.erasing:
            changed = _erase(changed, noise)
        return changed

    def mix(self, values: Tensor, noise: Tensor) -> Tensor:
        """Mix the values of each image, [N, ...], with those of the image before it in the batch (Zhang et al. 2018).

        Call it with the images and with their soft targets. The batch is in random order, so the image before is a
        random partner.
        """
        weight = noise[:, COLUMN["mix"]].reshape(-1, *[1] * (values.ndim - 1))
        return torch.lerp(values.roll(1, 0), values, weight)

    def _move(self, images: Tensor, noise: Tensor, size: int) -> Tensor:
        """Flip, shift and crop without arithmetic on pixels: a window into the padded image, uint8 in and out.

        It takes half the time of _warp on a CPU.
        """
        if not (self.flip or self.shift or self.crop):
            return images
        if self.flip:
            images = torch.where(_column(noise, "flip") > 0, images.flip(-1), images)
        if not (self.shift or self.crop):
            return images
        border = round(self.shift * images.shape[-1])
        windows = F.pad(images, [border] * 4).unfold(2, size, 1).unfold(3, size, 1)
        rows = (noise[:, COLUMN["crop_y"]] - noise[:, COLUMN["shift_y"]] + border).long()
        columns = (noise[:, COLUMN["crop_x"]] - noise[:, COLUMN["shift_x"]] + border).long()
        return windows[torch.arange(len(images), device=images.device), :, rows, columns]


def _column(noise: Tensor, name: str) -> Tensor:
    return noise[:, COLUMN[name], None, None, None]


def _warp(images: Tensor, noise: Tensor, size: int) -> Tensor:
    """Flip, rotate, scale, shift and crop in one bilinear interpolation; pixels outside the image are black.

    The order is that of torchvision: the image is mirrored, then rotated and scaled about its center, then shifted,
    then cropped. Pixel p of the window, relative to the center of the image, gets the value at
    R(-angle) / scale (p - shift).
    """
    num_images, channels, full, _ = images.shape
    _, shift_x, shift_y, angle, scale, crop_x, crop_y = noise[:, :7].unbind(1)
    mirrored = 1 - 2 * noise[:, COLUMN["flip"]]
    cosine, sine = torch.cos(angle.deg2rad()) / scale, torch.sin(angle.deg2rad()) / scale
    middle = (size - full) / 2
    x, y = crop_x + middle - shift_x, crop_y + middle - shift_y
    # The coordinates of affine_grid are -1 to 1 over the window, those of grid_sample over the image.
    ratio, per_pixel = size / full, 2 / full
    matrix = torch.stack(
        [
            torch.stack([cosine * ratio, sine * ratio, (cosine * x + sine * y) * per_pixel], 1) * mirrored[:, None],
            torch.stack([-sine * ratio, cosine * ratio, (cosine * y - sine * x) * per_pixel], 1),
        ],
        1,
    )
    grid = F.affine_grid(matrix, [num_images, channels, size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _erase(images: Tensor, noise: Tensor) -> Tensor:
    """Replace a rectangle of each image by the mean of the image (Zhong et al. 2017, who use random values)."""
    pixels = torch.arange(images.shape[-1], device=images.device)
    across = (pixels >= noise[:, COLUMN["erase_left"], None]) & (pixels < noise[:, COLUMN["erase_right"], None])
    down = (pixels >= noise[:, COLUMN["erase_top"], None]) & (pixels < noise[:, COLUMN["erase_bottom"], None])
    inside = (down[:, :, None] & across[:, None, :])[:, None]
    return torch.where(inside, images.mean((2, 3), keepdim=True), images)
