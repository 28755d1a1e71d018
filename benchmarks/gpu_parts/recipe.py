"""A strong ResNet on FER2013: two epochs tell how many fit, at most 60; then the training, and scores of ten crops."""

import tempfile
import time
from typing import Any

from gpu_parts.common import Rows
from gpu_parts.winner import TINY, scores, train

MAX_EPOCHS = 60
RECIPE = [
    "space=null",
    "model=resnet",
    "augment=strong",
    "optim=sgd",
    "optim.lr=0.1",
    "optim.weight_decay=5e-4",
    "optim.nesterov=true",
    "trainer.label_smoothing=0.1",
    "trainer.weight_averaging=ema",
    "trainer.batch_size=256",
]
_SMALL = ["model.width=8", "model.num_stages=2", "augment.crop=20", "trainer.batch_size=16"]


def run(rows: Rows) -> None:
    if rows.data is None and not rows.small:
        rows.write(skipped="needs FER2013: --data fer2013.csv")
        return
    data = TINY if rows.small else ["data=fer2013", f"data.path={rows.data}"]
    common = [*data, *RECIPE, *(_SMALL if rows.small else [])]
    seconds_per_epoch = [1.5]

    def trained(name: str, *more: str) -> dict[str, Any]:
        found = train(rows, "demo", [*common, f"name={name}", *more], folder)
        if found["epochs"]:
            seconds_per_epoch[0] = found["epochs"][-1]["epoch_seconds"]
        return found

    with tempfile.TemporaryDirectory() as folder:
        rows.measure(lambda: trained("probe", "trainer.max_epochs=2"), training="probe")
        left = rows.seconds - (time.perf_counter() - rows.start)
        fitting = 2 if rows.small else int(0.85 * left / seconds_per_epoch[0])
        epochs = min(max(fitting, 2), MAX_EPOCHS)
        full = (f"trainer.max_epochs={epochs}", "lr_schedule=one_cycle")
        rows.measure(lambda: trained("recipe", *full), training="recipe", max_epochs=epochs)
        rows.measure(lambda: scores("recipe", folder, ten_crop=True), evaluation="recipe")
