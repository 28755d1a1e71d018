"""Batches: the content and order of an epoch, and that the shared array never changes."""

import re
import warnings
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from tiny_training import SIZE, make_data, make_network

from ferhpo.data.dataset import TRAIN, UNUSED, VAL, FaceData, array_digest, face_data
from ferhpo.scoring.device_data import eval_batches, indices_of, to_device
from ferhpo.scoring.preprocess import Preprocess, pixel_statistics, preprocess_of
from ferhpo.training.augment import Augment
from ferhpo.training.batches import TrainBatches, class_weights

CPU = torch.device("cpu")


def batches_of(
    data: FaceData, augment: Augment | None = None, normalise: str = "none", **settings: Any
) -> TrainBatches:
    augment = augment or Augment()
    preprocess = preprocess_of(data, augment.output_size(data.image_size), normalise)
    arguments: dict[str, Any] = {"batch_size": 20, "sampling": "shuffle", "seed": 0, **settings}
    return TrainBatches(data, to_device(data, CPU), preprocess, augment, **arguments)


def positions(data: FaceData, inputs: torch.Tensor) -> list[int]:
    """Return the indices in the data set of the images of a batch without augmentation."""
    known = {data.images[i].tobytes(): i for i in range(len(data.images))}
    pixels = (inputs[:, 0] * 255).round().to(torch.uint8).numpy()
    return [known[image.tobytes()] for image in pixels]


def test_epoch_shows_every_training_image_once_with_its_label(data: FaceData) -> None:
    batches = batches_of(data)
    seen = []
    for (inputs,), targets in batches:
        assert inputs.shape == (20, 1, SIZE, SIZE)
        chosen = positions(data, inputs)
        assert targets.tolist() == data.labels[chosen].tolist()
        seen += chosen
    assert sorted(seen) == np.flatnonzero(data.split == TRAIN).tolist()
    assert (len(batches), batches.num_images) == (5, 100)


def test_order_is_a_function_of_seed_and_epoch(data: FaceData) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = batches_of(data, seed=seed)
        batches.epoch = epoch
        return [position for (inputs,), _ in batches for position in positions(data, inputs)]

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (1, 2)}) == 4


def test_last_incomplete_batch_is_left_out_unless_it_is_the_only_one(data: FaceData) -> None:
    assert [len(targets) for _, targets in batches_of(data, batch_size=30)] == [30, 30, 30]
    assert [len(targets) for _, targets in batches_of(data, batch_size=1000)] == [100]


def test_balanced_sampling_draws_classes_equally_often() -> None:
    data = make_data(num_images=3000)
    shares = np.bincount(data.labels[data.split == TRAIN]) / 2000
    assert shares.max() > 2.5 * shares.min()
    drawn = Counter(int(t) for _, targets in batches_of(data, sampling="balanced", batch_size=500) for t in targets)
    assert all(abs(count / 2000 - 1 / 3) < 0.05 for count in drawn.values())


def test_class_weights_are_those_of_scikit_learn(data: FaceData) -> None:
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    labels = data.labels[data.split == TRAIN]
    expected = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights(data), expected, rtol=1e-6)
    assert class_weights(data)[labels].mean() == pytest.approx(1)


def test_class_without_training_images_weighs_nothing(data: FaceData) -> None:
    split = np.where((data.labels == 1) & (data.split == TRAIN), UNUSED, data.split).astype(np.uint8)
    without = face_data(data.images, data.labels, split, data.class_names, "made", "published")
    assert class_weights(without)[1] == 0
    assert batches_of(without, sampling="balanced").num_images > 0


def test_mixup_makes_soft_targets(data: FaceData) -> None:
    for _, targets in batches_of(data, Augment(mixup=0.5)):
        assert targets.shape == (20, 3)
        torch.testing.assert_close(targets.sum(1), torch.ones(20))
        assert (targets.max(1).values >= 0.5).all()


def test_soft_targets_of_the_data_are_used() -> None:
    data = make_data(soft=True)
    assert data.targets is not None
    for (inputs,), targets in batches_of(data):
        torch.testing.assert_close(targets.numpy(), data.targets[positions(data, inputs)])


@pytest.mark.parametrize("augment", [Augment(), Augment(flip=0.5, shift=0.2, crop=20), Augment(rotation=9, erasing=1)])
@pytest.mark.parametrize("normalise", ["dataset", "image", "none"])
def test_shared_array_is_never_written_and_no_warning_is_shown(augment: Augment, normalise: str) -> None:
    data = make_data(channels=3)
    assert not data.images.flags.writeable
    before = array_digest(data.images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = batches_of(data, augment, normalise)
        assert sum(1 for _ in batches) == 5
        preprocess = preprocess_of(data, augment.output_size(SIZE), normalise)
        assert sum(1 for _ in eval_batches(to_device(data, CPU), indices_of(data, VAL), preprocess, 10)) == 3
    assert array_digest(data.images) == before


def test_nothing_is_copied_on_a_cpu(data: FaceData) -> None:
    assert to_device(data, CPU).images.data_ptr() == data.images.ctypes.data


def test_channels_last_batches(data: FaceData) -> None:
    colour = make_data(channels=3)
    (inputs,), _ = next(iter(batches_of(colour, memory_format=torch.channels_last)))
    assert inputs.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_training_images_have_mean_0_and_deviation_1(channels: int) -> None:
    data = make_data(channels=channels)
    preprocess = preprocess_of(data, SIZE, "dataset")
    train = preprocess(to_device(data, CPU).images[torch.from_numpy(data.split == TRAIN)])
    std, mean = torch.std_mean(train.double(), (0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(channels, dtype=torch.double), atol=1e-5, rtol=0)
    torch.testing.assert_close(std, torch.ones(channels, dtype=torch.double), atol=1e-5, rtol=0)


def test_pixel_statistics_are_exact() -> None:
    data = make_data(channels=3)
    mean, std = pixel_statistics(data.images)
    np.testing.assert_allclose(mean, (data.images / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (data.images / 255).std((0, 1, 2)), rtol=1e-12)


def test_each_image_normalised_by_itself_and_a_blank_one_is_zero(data: FaceData) -> None:
    images = torch.from_numpy(data.images[:4].copy())[:, None]
    images[0] = 0
    inputs = preprocess_of(data, SIZE, "image")(images)
    assert torch.equal(inputs[0], torch.zeros_like(inputs[0]))
    torch.testing.assert_close(inputs[1:].std((1, 2, 3), correction=0), torch.ones(3))


def test_evaluation_sees_the_middle_in_order(data: FaceData) -> None:
    indices = indices_of(data, VAL)
    preprocess = Preprocess(1, SIZE, 20, "none", (), ())
    inputs, labels = zip(
        *[(x, y) for (x,), y, _ in eval_batches(to_device(data, CPU), indices, preprocess, 7)], strict=True
    )
    pixels = (torch.cat(inputs)[:, 0] * 255).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(pixels, data.images[indices, 2:22, 2:22])
    np.testing.assert_array_equal(torch.cat(labels), data.labels[indices])


def with_features(data: FaceData) -> FaceData:
    """The index of each image in the data set, and half of it, as features."""
    features = np.arange(len(data.images), dtype=np.float32)[:, None] * np.array([1, 0.5], np.float32)
    features.setflags(write=False)
    return replace(data, features=features)


def batches_with_features(data: FaceData, augment: Augment) -> TrainBatches:
    on_device = to_device(data, CPU, make_network(hog={}, num_features=2))
    preprocess = preprocess_of(data, augment.output_size(SIZE), "none")
    return TrainBatches(data, on_device, preprocess, augment, batch_size=20, sampling="shuffle", seed=0)


def test_features_are_those_of_the_images_before_augmentation(data: FaceData) -> None:
    plain = list(batches_with_features(with_features(data), Augment()))
    changed = list(batches_with_features(with_features(data), Augment(flip=1, rotation=20)))
    for (images, features), _ in plain:
        assert features[:, 0].int().tolist() == positions(data, images)
    for (images, features), (changed_images, changed_features) in zip(
        (inputs for inputs, _ in plain), (inputs for inputs, _ in changed), strict=True
    ):
        assert torch.equal(features, changed_features)
        assert not torch.equal(images, changed_images)


def test_mixup_mixes_features_by_the_weights_of_the_targets(data: FaceData) -> None:
    names = with_features(replace(data, labels=np.arange(len(data.labels)) % 3))
    plain = list(batches_with_features(names, Augment()))
    for (_, features), ((_, mixed), targets) in zip(
        (inputs for inputs, _ in plain), batches_with_features(names, Augment(mixup=0.5)), strict=True
    ):
        own, before = (F.one_hot(f[:, 0].long() % 3, 3) for f in (features, features.roll(1, 0)))
        differ = (own != before).any(1)
        weight = (targets * own).sum(1, keepdim=True)
        expected = weight * features + (1 - weight) * features.roll(1, 0)
        torch.testing.assert_close(mixed[differ], expected[differ])


def test_network_without_features_gets_images_alone(data: FaceData) -> None:
    on_device = to_device(with_features(data), CPU, make_network())
    preprocess = preprocess_of(data, SIZE, "none")
    assert all(len(x) == 1 for x, _, _ in eval_batches(on_device, indices_of(data, VAL), preprocess, 10))


@pytest.mark.parametrize(("num_features", "has"), [(0, "none"), (2, "2")])
def test_data_without_the_features_of_a_network_is_refused(data: FaceData, num_features: int, has: str) -> None:
    given = with_features(data) if num_features else data
    with pytest.raises(ValueError, match=f"takes 5 features per image besides its pixels; the data has {has}$"):
        to_device(given, CPU, make_network(hog={}, num_features=5))


def test_split_without_images_is_named(data: FaceData) -> None:
    split = np.where(data.split == VAL, UNUSED, data.split).astype(np.uint8)
    without = face_data(data.images, data.labels, split, data.class_names, "a.csv", "published")
    with pytest.raises(ValueError, match=re.escape("the val split of a.csv has no images")):
        indices_of(without, VAL)
