"""Generated faces: equal for equal seeds, and a task that can be learned."""

import numpy as np
import pytest

from ferhpo.data import synthetic
from ferhpo.data.dataset import TEST, TRAIN, VAL


def test_shapes_and_determinism() -> None:
    data = synthetic.load(num_train=70, num_val=20, num_test=10)
    assert data.images.shape == (100, 48, 48)
    assert data.images.dtype == np.uint8
    assert np.bincount(data.split).tolist() == [70, 20, 10]
    assert data.split_name == "published"
    assert not data.images.flags.writeable
    assert synthetic.load(num_train=70, num_val=20, num_test=10).digest == data.digest
    assert synthetic.load(num_train=70, num_val=20, num_test=10, seed=1).digest != data.digest


def test_more_images_begin_with_the_fewer() -> None:
    few, many = synthetic.load(40, 20, 10), synthetic.load(100, 30, 10)
    for code in (TRAIN, VAL, TEST):
        number = (few.split == code).sum()
        np.testing.assert_array_equal(many.images[many.split == code][:number], few.images[few.split == code])
        np.testing.assert_array_equal(many.labels[many.split == code][:number], few.labels[few.split == code])


def test_size_without_a_test_split() -> None:
    data = synthetic.load(10, 10, 0, image_size=64)
    assert data.images.shape == (20, 64, 64)
    assert np.bincount(data.split).tolist() == [10, 10]


def test_label_noise_is_the_share_asked_for() -> None:
    clean, noisy = synthetic.load(1000, 1, 0, label_noise=0.0), synthetic.load(1000, 1, 0, label_noise=0.3)
    np.testing.assert_array_equal(clean.images, noisy.images)
    assert (clean.labels != noisy.labels).mean() == pytest.approx(0.3, abs=0.04)


def test_imbalance() -> None:
    counts = np.bincount(synthetic.load(1500, 1, 0, label_noise=0, imbalance=10).labels)
    assert counts[3] / counts[1] == pytest.approx(10, rel=0.4)
    alike = np.bincount(synthetic.load(1500, 1, 0, label_noise=0).labels)
    assert alike.min() / alike.max() > 0.7


def test_expressions_differ_where_they_should() -> None:
    data = synthetic.load(700, 1, 0, difficulty=0, label_noise=0)
    mean = np.stack([data.images[data.labels == label].mean(axis=0) for label in range(7)])
    neutral = mean[6]
    mouth = slice(28, 44)
    surprise = data.class_names.index("surprise")
    assert mean[surprise][mouth, 20:28].min() < neutral[mouth, 20:28].min() - 15, "surprise opens a dark mouth"
    for one in range(7):
        for other in range(one):
            assert np.abs(mean[one] - mean[other]).max() > 25, f"{data.class_names[one]}, {data.class_names[other]}"


@pytest.mark.full
def test_learning_rate_decides() -> None:
    """A tiny network, three epochs: a good learning rate is far better than a bad one, and below the label noise."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # two threads on busy cores wait for each other
    data = synthetic.load(4000, 1000, 0)
    images = (torch.tensor(data.images)[:, None].float() - 128) / 64
    labels, split = torch.tensor(data.labels), torch.tensor(data.split)

    def val_acc(lr: float) -> float:
        torch.manual_seed(0)
        layers: list[torch.nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, 64)):
            convolution = torch.nn.Conv2d(before, after, 3, stride=2, padding=1)
            layers += [convolution, torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
        net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(64 * 36, 7))
        optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
        train = torch.nonzero(split == TRAIN)[:, 0]
        for _ in range(3):
            for batch in train[torch.randperm(len(train))].split(64):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
                optimizer.step()
        net.eval()
        with torch.no_grad():
            return float((net(images[split == VAL]).argmax(1) == labels[split == VAL]).float().mean())

    good, slow = val_acc(0.01), val_acc(0.0001)
    assert 0.6 < good < 0.92
    assert slow < good - 0.2
