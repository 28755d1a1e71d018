"""The published winner of vulpe2021 on FER2013, in full: 30 epochs, then its scores."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import ferhpo
from gpu_parts.common import Rows

TINY = ["data=synthetic", "data.num_train=64", "data.num_val=32", "data.num_test=8", "data.image_size=24"]


def train(rows: Rows, name: str, overrides: Sequence[str], folder: str) -> dict[str, Any]:
    """Run a training, and return its epochs and how it ended."""
    ferhpo.train(name, [*overrides, "tracking=none", f"output_dir={folder}"])
    chosen = [text.partition("=")[2] for text in overrides if text.startswith("name=")]
    (trial,) = ferhpo.load_sweep(chosen[0] if chosen else name, folder).trials()
    found = {"state": trial.state, "reason": trial.reason, "value": trial.value, "best_epoch": trial.best_epoch}
    return {**found, "seconds": trial.seconds, "device": trial.extra.get("device"), "epochs": trial.epochs}


def scores(name: str, folder: str, *, ten_crop: bool = False) -> dict[str, Any]:
    """Evaluate on validation: of all images and dedup, from one view of each and from ten."""
    found = ferhpo.evaluate(name, output_dir=folder, ten_crop=ten_crop)
    views = {"scores": found.scores, "ten_crop": found.ten_crop}
    return {"acc": found.scores.all.acc, **{key: asdict(value) for key, value in views.items() if value is not None}}


def run(rows: Rows) -> None:
    if rows.data is None and not rows.small:
        rows.write(skipped="needs FER2013: --data fer2013.csv")
        return
    tiny = [*TINY, "model.width_multiplier=0.02", "trainer.max_epochs=1", "trainer.batch_size=16"]
    overrides = tiny if rows.small else [f"data.path={rows.data}"]
    with tempfile.TemporaryDirectory() as folder:
        rows.measure(lambda: train(rows, "vulpe2021_winner", overrides, folder), training="vulpe2021_winner")
        rows.measure(lambda: scores("vulpe2021_winner", folder), evaluation="vulpe2021_winner")
