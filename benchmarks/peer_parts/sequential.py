"""One process that fits the trials one after the other with Lightning: no Ray, no tracking, no checkpoints."""

from pathlib import Path

from peer_parts.common import BARE, train
from peer_parts.workload import read_workload

workload = read_workload()
for lr in workload.lrs:
    train(workload, lr, Path.cwd(), **BARE)
