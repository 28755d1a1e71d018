"""The GPU computes what the CPU computes: augmented batches and gradients (G2), and scores (G10)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from ferhpo.data.dataset import VAL
from ferhpo.scoring.device_data import to_device
from ferhpo.scoring.exact import exact_float32
from ferhpo.scoring.predict import evaluate
from ferhpo.scoring.preprocess import preprocess_of
from ferhpo.training.augment import Augment
from ferhpo.training.batches import Batch, TrainBatches
from ferhpo.trial.run import build_network
from tests.gpu.trials import BATCH_SIZE, FAMILIES, IMAGE_SIZE, config_of, faces

pytestmark = pytest.mark.gpu
CPU = torch.device("cpu")
AUGMENTS = {
    "none": Augment(),
    "standard": Augment(flip=0.5, shift=0.1, rotation=10.0),
    "strong": Augment(
        flip=0.5,
        shift=0.12,
        rotation=10.0,
        scale=0.1,
        crop=IMAGE_SIZE - 4,
        brightness=0.2,
        contrast=0.2,
        erasing=0.5,
        mixup=0.2,
    ),
}


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    expected = expected.double()
    return float((found.cpu().double() - expected).norm() / expected.norm())


def batches_on(device: torch.device, augment: Augment) -> list[Batch]:
    data = faces()
    preprocess = preprocess_of(data, augment.output_size(IMAGE_SIZE), "dataset")
    on_device = to_device(data, device)
    return list(TrainBatches(data, on_device, preprocess, augment, batch_size=BATCH_SIZE, sampling="shuffle", seed=3))


def network_of(family: str) -> torch.nn.Module:
    data = faces()
    torch.manual_seed(0)
    return build_network(config_of(*FAMILIES[family]), data.channels, data.num_classes, IMAGE_SIZE)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_augmented_batches_are_those_of_the_cpu(device: torch.device, augment: str) -> None:
    with exact_float32():
        found, expected = batches_on(device, AUGMENTS[augment]), batches_on(CPU, AUGMENTS[augment])
    assert len(found) == len(expected) > 1
    for (inputs, targets), (cpu_inputs, cpu_targets) in zip(found, expected, strict=True):
        assert targets.device.type == device.type
        assert relative(inputs[0], cpu_inputs[0]) < 1e-5
        assert torch.allclose(targets.cpu(), cpu_targets, atol=1e-6)


@pytest.mark.parametrize("family", ["cnn", "attention", "vit", "resnet18"])
def test_loss_and_gradients_are_those_of_the_cpu(device: torch.device, family: str) -> None:
    def computed(place: torch.device) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        network = network_of(family).to(place).eval()  # dropout draws other numbers on a GPU
        (images,), targets = batches_on(place, Augment())[0]
        with exact_float32():
            loss = F.cross_entropy(network(images), targets)
            loss.backward()
        return loss.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}

    (loss, gradients), (cpu_loss, cpu_gradients) = computed(device), computed(CPU)
    assert relative(loss, cpu_loss) < 1e-4
    assert list(gradients) == list(cpu_gradients)
    together = [torch.cat([g.flatten().cpu() for g in values.values()]) for values in (gradients, cpu_gradients)]
    assert relative(*together) < 1e-3


@pytest.mark.parametrize("family", ["cnn", "resnet", "vit"])
def test_scores_are_those_of_float64_on_the_cpu(device: torch.device, family: str) -> None:
    """With TF32, which cuDNN uses by default, the difference would be about 1e-3."""
    data, network = faces(), network_of(family).eval()
    preprocess = preprocess_of(data, IMAGE_SIZE, "dataset")
    found = evaluate(network.to(device), data, "val", preprocess).probabilities
    pixels = torch.from_numpy(data.images[data.split == VAL])[:, None].double() / 255
    with torch.no_grad():
        logits = network.to(CPU).double()((pixels - preprocess.mean[0]) / preprocess.std[0])
    assert relative(torch.from_numpy(found.astype(np.float64)), logits.softmax(1)) < 1e-5
