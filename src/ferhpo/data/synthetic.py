"""Generated gray faces for demonstrations and tests: no file, no download, no image of a real face.

The seven expressions differ only in brows, eyes, nose and mouth. Pose, build, light and sharpness vary, and many
expressions are weak.

Note: some labels are wrong on purpose, also in val and test, so that no network reaches 100 %.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ferhpo.data.dataset import TEST, TRAIN, VAL, FaceData, face_data
from ferhpo.data.io.faults import is_number, is_whole
from ferhpo.data.io.files import MAX_SIDE
from ferhpo.data.splits import with_fold
from ferhpo.data.splits.options import fold_faults
from ferhpo.errors import ConfigError

CLASS_NAMES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

# The displacement of each feature from a resting face, for each expression.
#   brow_raise  up is positive           brow_tilt   inner ends up is positive (sad), down negative (angry)
#   eye_open    wider is positive        nose_up     wrinkled nose and raised upper lip
#   mouth_curve corners up is positive   mouth_open  gap between the lips      mouth_wide  wider is positive
_FEATURES = ("brow_raise", "brow_tilt", "eye_open", "nose_up", "mouth_curve", "mouth_open", "mouth_wide")
_EXPRESSIONS = np.array(
    [
        (-0.8, -1.0, -0.1, 0.2, -0.5, 0.15, 0.0),  # angry
        (-0.5, -0.4, -0.6, 1.0, -0.6, 0.3, -0.2),  # disgust
        (0.7, 0.8, 0.8, 0.0, -0.4, 0.8, 0.4),  # fear
        (0.1, 0.0, -0.3, 0.1, 1.0, 0.4, 0.6),  # happy
        (0.0, 1.0, -0.5, 0.0, -0.9, 0.0, -0.2),  # sad
        (1.0, 0.0, 0.9, 0.0, 0.0, 1.2, -0.6),  # surprise
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),  # neutral
    ],
    np.float32,
)
MAX_IMAGES = 1_000_000
_BATCH = 32  # images generated at once; small enough for the cache of the CPU

_Float = NDArray[np.float32]


def load(
    num_train: int = 4000,
    num_val: int = 1000,
    num_test: int = 1000,
    image_size: int = 48,
    difficulty: float = 1.0,
    label_noise: float = 0.08,
    imbalance: float = 1.0,
    seed: int = 0,
    folds: int | None = None,
    fold: int | None = None,
    split_seed: int = 0,
) -> FaceData:
    """Generate faces uint8 [N, S, S], the same for the same arguments; a smaller split is a prefix of a larger one.

    difficulty: 0 for clear, frontal faces; 1 is the default; 2 varies pose, light, noise and strength twice as much
    label_noise: the fraction of labels, in every split, that are replaced by another class
    imbalance: the frequency of the most frequent class relative to the rarest; 1 for equal frequencies
    folds, fold, split_seed: see splits.SplitOptions
    Raises ConfigError with every invalid key.
    """
    shape = num_train, num_val, num_test, image_size
    _check_keys(*shape, difficulty, label_noise, imbalance, folds, fold, seed, split_seed)
    images, labels, split = [], [], []
    for code, number in ((TRAIN, num_train), (VAL, num_val), (TEST, num_test)):
        rng = np.random.default_rng([seed, code])
        for start in range(0, number, _BATCH):
            # A whole batch is generated in any case, so that the first images do not depend on how many follow.
            truth = _draw_labels(rng, imbalance)
            drawn = _draw_faces(rng, truth, image_size, difficulty)
            wrong = rng.random(_BATCH) < label_noise
            given = np.where(wrong, (truth + rng.integers(1, 7, _BATCH)) % 7, truth)
            keep = min(_BATCH, number - start)
            images.append(drawn[:keep])
            labels.append(given[:keep])
            split.append(np.full(keep, code, np.uint8))
    source = f"synthetic faces (seed {seed}, difficulty {difficulty:g}, label noise {label_noise:g})"
    data = face_data(
        np.concatenate(images), np.concatenate(labels), np.concatenate(split), CLASS_NAMES, source, "published"
    )
    return data if folds is None or fold is None else with_fold(data, folds, fold, split_seed)


def _check_keys(
    num_train: int,
    num_val: int,
    num_test: int,
    image_size: int,
    difficulty: float,
    label_noise: float,
    imbalance: float,
    folds: int | None,
    fold: int | None,
    seed: int,
    split_seed: int,
) -> None:
    faults = []
    for key, value, lowest in (("num_train", num_train, 1), ("num_val", num_val, 1), ("num_test", num_test, 0)):
        if not is_whole(value, lowest):
            faults.append(f"data.{key} is {value}; it must be at least {lowest}")
        elif value > MAX_IMAGES:
            faults.append(f"data.{key} is {value}; it must be at most {MAX_IMAGES:,}")
    if is_whole(image_size, MAX_SIDE + 1):
        faults.append(f"data.image_size is {image_size}; it must be at most {MAX_SIDE:,} pixels")
    elif not is_whole(image_size, 24):
        faults.append(f"data.image_size is {image_size}; it must be at least 24 pixels")
    if not is_number(difficulty) or difficulty < 0:
        faults.append(f"data.difficulty is {difficulty}; it must be at least 0, e.g. 1")
    if not is_number(label_noise) or not 0 <= label_noise < 1:
        faults.append(f"data.label_noise is {label_noise}; it must be at least 0 and below 1, e.g. 0.08")
    if not is_number(imbalance) or imbalance < 1:
        faults.append(f"data.imbalance is {imbalance}; it must be at least 1, which draws all classes equally often")
    for key, value in (("seed", seed), ("split_seed", split_seed)):
        if not is_whole(value):
            faults.append(f"data.{key} is {value}; it must be an integer of at least 0")
    faults += fold_faults(folds, fold)
    if faults:
        raise ConfigError("data=synthetic", faults)


def _draw_labels(rng: np.random.Generator, imbalance: float) -> NDArray[np.int64]:
    # disgust is the rarest and happy the most frequent, as in FER2013
    rarity = np.array([3, 6, 2, 0, 1, 4, 5]) / 6
    share = imbalance**-rarity
    return rng.choice(7, _BATCH, p=share / share.sum())


def _draw_faces(rng: np.random.Generator, labels: NDArray[np.int64], size: int, difficulty: float) -> NDArray[np.uint8]:
    """Draw one batch of faces, uint8 [N, size, size]. Coordinates run from -1 to 1: x to the right, y down."""
    num = len(labels)

    def vary(spread: float, middle: float = 0.0) -> _Float:
        """Return one normal random number per image, [N, 1, 1], clipped at two deviations to keep faces inside."""
        noise = np.clip(rng.standard_normal((num, 1, 1)), -2, 2)
        return (middle + spread * noise).astype(np.float32)

    # The strength of an expression; the weakest are close to neutral.
    strength = 1.0 - min(0.42 * difficulty, 0.95) * rng.random((num, 1)) ** 1.5
    jitter = 0.16 * difficulty * rng.standard_normal((num, len(_FEATURES)))
    moved = (_EXPRESSIONS[labels] * strength + jitter).astype(np.float32)
    brow_raise, brow_tilt, eye_open, nose_up, mouth_curve, mouth_open, mouth_wide = moved.T[:, :, None, None]

    # Pose: position, rotation and scale of the face.
    grid = np.linspace(-1, 1, size, dtype=np.float32)
    angle, scale = vary(0.10 * difficulty), np.exp(vary(0.06 * difficulty))
    x_image, y_image = grid[None, None, :], grid[None, :, None]
    x_moved, y_moved = x_image - vary(0.07 * difficulty), y_image - vary(0.07 * difficulty)
    x = (np.cos(angle) * x_moved + np.sin(angle) * y_moved) / scale
    y = (np.cos(angle) * y_moved - np.sin(angle) * x_moved) / scale
    picture: _Float = np.zeros((num, size, size), np.float32)
    side = np.abs(x)  # the features are symmetric: one eye is drawn for both
    edge = np.float32(2.5 / size)  # softness of all outlines: about a pixel

    def inside(distance: _Float, softness: float = 1.0) -> _Float:
        """Return the cover of a shape, 0 outside to 1 inside, for signed distances that are negative inside."""
        cover: _Float = np.clip(0.5 - distance / (edge * softness * 2), 0, 1)
        return cover

    def ellipse(px: _Float, py: _Float, width: _Float | float, height: _Float | float) -> _Float:
        distance: _Float = (np.sqrt((px / width) ** 2 + (py / height) ** 2) - 1) * np.minimum(width, height)
        return distance

    def paint(shade: _Float | float, cover: _Float) -> None:
        picture[...] += cover * (shade - picture)

    # Build of the face: each image has its own proportions.
    skin, hair = vary(0.11, 0.66), vary(0.12, 0.25)
    face_width, face_height = vary(0.04, 0.66), vary(0.04, 0.86)
    eye_x, eye_y, mouth_y = vary(0.02, 0.29), vary(0.025, -0.14), vary(0.03, 0.46)
    picture[...] = vary(0.15, 0.45)
    paint(hair, inside(ellipse(x, y + 0.12, face_width + 0.12, face_height + 0.08), 2))
    face_y = y - 0.06
    paint(skin * (1 - 0.25 * (side / face_width) ** 2), inside(ellipse(x, face_y, face_width, face_height)))
    paint(hair, inside(np.maximum(ellipse(x, face_y, face_width, face_height), y + vary(0.05, 0.68))))

    # Eyes: white, iris and upper lid. The height of all three decreases as an eye closes.
    eye_height = np.clip(0.085 + 0.055 * eye_open, 0.022, 0.16)
    eye_side, eye_up = side - eye_x, y - eye_y
    white = inside(ellipse(eye_side, eye_up, 0.15, eye_height))
    paint(0.92, white)
    gaze = vary(0.015 * difficulty)
    paint(0.12, white * inside(ellipse(np.abs(x - gaze) - eye_x, eye_up, 0.062, 0.085)))
    lid = np.abs(eye_up + eye_height * np.sqrt(np.clip(1 - (eye_side / 0.17) ** 2, 0, 1))) - 0.016
    paint(skin * 0.4, inside(np.maximum(lid, np.abs(eye_side) - 0.16)))

    # Brows: a bar that is raised and tilted, thinner toward the outside.
    brow_y = eye_y - 0.215 - 0.10 * brow_raise + 0.5 * (eye_side**2) + 0.42 * brow_tilt * eye_side
    paint(hair * 0.6, inside(np.maximum(np.abs(y - brow_y) - (0.042 - 0.06 * eye_side), np.abs(eye_side) - 0.18)))
    frown = np.maximum(np.abs(side - 0.05) - 0.012, np.abs(y - eye_y + 0.2) - 0.07)
    paint(skin * 0.6, inside(frown) * np.clip(-brow_tilt, 0, 1))

    # Nose, with wrinkles across its root and folds down to the mouth when it is wrinkled.
    nose_y = 0.20 - 0.05 * nose_up
    paint(skin * 0.6, inside(ellipse(side - 0.06, y - nose_y, 0.05, 0.03), 1.5))
    wrinkles = np.cos((y - eye_y) * 45) * inside(ellipse(x, y - eye_y - 0.08, 0.11, 0.13), 2)
    picture -= 0.22 * np.clip(nose_up, 0, 1.2) * np.clip(wrinkles, 0, 1)
    fold = np.abs(side - 0.17 - 0.35 * (y - nose_y)) - 0.014
    fold_cover = inside(np.maximum(fold, np.abs(y - nose_y - 0.10) - 0.13))
    paint(skin * 0.62, fold_cover * np.clip(0.9 * nose_up + 0.3 * mouth_curve, 0, 1))

    # Mouth: two lips along a parabola, dark between them, with teeth below the upper lip when it is wide and open.
    mouth_width = np.clip(0.27 + 0.08 * mouth_wide, 0.14, 0.42)
    along = np.clip(side / mouth_width, 0, 1.3)
    line = mouth_y + 0.13 * mouth_curve * (0.45 - along**2)
    gap = np.clip(mouth_open, 0, 1.4) * 0.15 * np.sqrt(np.clip(1 - along**2, 0, 1))
    upper, lower = line - gap * (0.4 + 0.3 * nose_up) - 0.06 * nose_up * (1 - along**2), line + gap
    ends = (along - 1) * mouth_width
    paint(skin * 0.55, inside(np.maximum(np.maximum(upper - 0.05 - y, y - lower - 0.06), ends)))
    opening = inside(np.maximum(np.maximum(upper - y, y - lower), ends)) * (gap > 0.01)
    paint(0.1, opening)
    teeth = inside(np.maximum(upper - y, y - upper - 0.06)) * opening
    paint(0.9, teeth * np.clip(mouth_wide + nose_up, 0, 1))
    paint(0.15, inside(np.maximum(np.abs(y - (upper + lower) / 2) - 0.014, ends)) * (gap <= 0.03))

    # Light from one side, contrast, an object in front of the face, blur, grain.
    direction = (2 * math.pi * rng.random((num, 1, 1))).astype(np.float32)
    slope = np.abs(vary(0.20 * difficulty))
    picture *= 1 + slope * (np.cos(direction) * x_image + np.sin(direction) * y_image)
    picture[...] = 0.5 + (picture - 0.5) * np.exp(vary(0.22 * difficulty)) + vary(0.06 * difficulty)
    hides = rng.random((num, 1, 1)) < 0.15 * min(difficulty, 3)
    object_x, object_y = vary(0.5), vary(0.5)
    paint(vary(0.3, 0.5), inside(np.maximum(np.abs(x_image - object_x), np.abs(y_image - object_y)) - 0.16) * hides)
    blurred = picture.copy()
    for axis in (1, 2):  # the mean of three neighbors, vertically and then horizontally
        blurred = (np.roll(blurred, 1, axis) + blurred + np.roll(blurred, -1, axis)) / np.float32(3)
    picture += np.clip(vary(0.4, 0.4), 0, 1) * min(difficulty, 1.0) * (blurred - picture)
    grain = np.abs(vary(0.03, 0.03)) * difficulty
    picture += grain * rng.standard_normal(picture.shape, np.float32)
    faces: NDArray[np.uint8] = np.clip(picture * 255, 0, 255).astype(np.uint8)
    return faces
