"""What is to be trained. The environment variable WORKLOAD names its JSON file, which peers.py writes."""

import json
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workload:
    """What is to be trained.

    lrs: one learning rate for each trial
    images: .npz with `images` uint8 [N, S, S] and `labels` int64 [N], training images first
    network: "cnn" or "resnet"; widths: channels of its blocks or stages; dense: units of the CNN's dense layer
    prune: whether trials may be stopped early
    precision: "32" or "bf16"
    slots: number of trials at a time; threads: of each trial
    """

    lrs: list[float]
    epochs: int
    images: str
    num_train: int
    batch_size: int
    network: str
    widths: list[int]
    dense: int
    prune: bool
    precision: str
    slots: int
    threads: int


def read_workload() -> Workload:
    return Workload(**json.loads(Path(os.environ["WORKLOAD"]).read_text()))
