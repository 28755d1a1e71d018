"""The modules that the check of a configuration imports do not import Lightning and torchmetrics."""

import subprocess
import sys

import pytest

LIGHT = ["augment", "batches", "schedules", "averaging", "checkpoint", "hardware.device", "settings"]


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (["ferhpo.training.settings"], ["torch", "numpy"]),
        (
            [f"ferhpo.training.{name}" for name in LIGHT]
            + [
                "ferhpo.scoring.preprocess",
                "ferhpo.scoring.device_data",
                "ferhpo.models.cnn",
                "ferhpo.models.resnet",
                "ferhpo.models.count",
            ],
            ["pytorch_lightning", "lightning_fabric", "torchmetrics", "torchvision"],
        ),
    ],
    ids=["settings", "all but fit"],
)
def test_no_heavy_import(modules: list[str], absent: list[str]) -> None:
    code = f"import sys, {', '.join(modules)}; print([name for name in {absent} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
