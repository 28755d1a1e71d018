"""The workloads of peers.py: their sizes, their images, and the command by which ferhpo trains the same."""

import os
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from ferhpo.data import fer2013, synthetic
from ferhpo.data.dataset import TEST, TRAIN, VAL, FaceData
from ferhpo.models.cnn import CNN
from ferhpo.models.count import count_macs, count_parameters
from ferhpo.models.resnet import ResNet
from peer_parts.common import make_network
from peer_parts.workload import Workload


@dataclass(frozen=True)
class Size:
    """How large a workload is; --quick trains the second size of each."""

    trials: int
    epochs: int
    train: int
    val: int
    image_size: int = 48
    batch_size: int = 64
    network: str = "cnn"
    widths: tuple[int, ...] = (16, 32, 64)
    dense: int = 64
    prune: bool = False


RESNET = {"batch_size": 128, "network": "resnet", "widths": (24, 48, 96)}
TRIVIAL = {"image_size": 24, "batch_size": 32, "widths": (4, 4), "dense": 8}
SIZES = {
    "reference": (Size(8, 3, 4000, 1000), Size(2, 2, 280, 70)),
    "asha": (Size(24, 6, 2000, 500, prune=True), Size(4, 2, 140, 70, prune=True)),
    "real": (Size(6, 1, 28_709, 3589, **RESNET), Size(2, 1, 512, 70, **RESNET)),
    "trivial": (Size(120, 1, 140, 70, **TRIVIAL), Size(4, 1, 140, 70, **TRIVIAL)),
}


def prepare(
    size: Size, data: Path | None, precision: str, slots: int, threads: int | None, scratch: Path
) -> tuple[Workload, list[str]]:
    """Write the images twice: arrays for the peers, and what ferhpo reads, whose options are returned, already cached.

    Small images are drawn by ferhpo itself: those of FER2013 have 48x48 pixels.
    """
    if data:
        faces, options = (
            fer2013.load(data, cache_dir=scratch / "cache"),
            ["data=fer2013", f"data.path={data.resolve()}"],
        )
    else:
        drawn = {"num_train": size.train, "num_val": size.val, "num_test": 14, "image_size": size.image_size}
        faces, options = synthetic.load(**drawn), [f"data.{key}={value}" for key, value in drawn.items()]
        if size.image_size == 48:
            write_csv(faces, scratch / "faces.csv")
            fer2013.load(scratch / "faces.csv", cache_dir=scratch / "cache")  # writes the cache
            options = ["data=fer2013", f"data.path={scratch / 'faces.csv'}"]
    parts = [np.flatnonzero(faces.split == split) for split in (TRAIN, VAL)]
    order = np.concatenate(parts)
    np.savez(scratch / "faces.npz", images=faces.images[order], labels=faces.labels[order])
    lrs = [10**exponent for exponent in np.linspace(-3.5, -1.75, size.trials).tolist()]
    random.Random(0).shuffle(lrs)
    workload = Workload(
        lrs=[float(f"{lr:.5g}") for lr in lrs],
        epochs=size.epochs,
        images=str(scratch / "faces.npz"),
        num_train=len(parts[0]),
        batch_size=size.batch_size,
        network=size.network,
        widths=list(size.widths),
        dense=size.dense,
        prune=size.prune,
        precision=precision,
        slots=slots,
        threads=threads or max((os.cpu_count() or 1) // slots, 1),
    )
    return workload, options


def write_csv(faces: FaceData, path: Path) -> None:
    usage = {TRAIN: "Training", VAL: "PublicTest", TEST: "PrivateTest"}
    with path.open("w") as file:
        file.write("emotion,pixels,Usage\n")
        for image, label, split in zip(faces.images, faces.labels, faces.split, strict=True):
            file.write(f"{label},{' '.join(map(str, image.ravel()))},{usage[split]}\n")


def check_same_network(workload: Workload, image_size: int) -> tuple[int, int]:
    """Return parameters and multiply-accumulates. Raises AssertionError unless both networks have the same."""
    shape = {"in_channels": 1, "num_classes": 7, "image_size": image_size}
    ours: nn.Module
    if workload.network == "cnn":
        ours = CNN(
            **shape, stem_channels=0, num_blocks=len(workload.widths), block_channels=workload.widths,
            conv_dropout=0.0, dense_units=workload.dense, dense_dropout=0.0,
        )  # fmt: skip
    else:
        ours = ResNet(**shape, stem_stride=2, width=workload.widths[0], num_stages=len(workload.widths))
    networks = (ours, make_network(workload, image_size))
    found = [(count_parameters(network), count_macs(network, (1, image_size, image_size))) for network in networks]
    assert found[0] == found[1], found
    return found[0]


def ferhpo_arguments(workload: Workload, data_options: list[str], precision: str) -> list[str]:
    """The command `ferhpo sweep` with the same workload: the learning rates are a grid, MLflow is its own database."""
    if workload.network == "cnn":
        network = [
            "model.stem_channels=0", "model.stem_pool=false", f"model.num_blocks={len(workload.widths)}",
            f"model.block_channels={workload.widths}", "model.conv_dropout=0.0",
            f"model.dense_units={workload.dense}", "model.dense_dropout=0.0",
        ]  # fmt: skip
    else:
        network = [
            "model=resnet", "model.stem_stride=2", f"model.width={workload.widths[0]}",
            f"model.num_stages={len(workload.widths)}",
        ]  # fmt: skip
    options = [
        *data_options, *network, "~space.model", f"space.optim.lr={{choices: {workload.lrs}}}", "sampler=grid",
        f"scheduler={'asha' if workload.prune else 'none'}", f"num_trials={len(workload.lrs)}",
        f"trainer.max_epochs={workload.epochs}", f"trainer.batch_size={workload.batch_size}",
        f"trainer.precision={precision}", f"compute.max_concurrent={workload.slots}",
        f"compute.num_cpus={workload.slots * workload.threads}", f"compute.cpus_per_trial={workload.threads}",
        "compute.gpus_per_trial=0",
    ]  # fmt: skip
    return ["-m", "ferhpo", "sweep", "demo", *(option.replace(" ", "") for option in options)]
