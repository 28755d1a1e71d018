"""conf/trainer and the messages of its settings."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ferhpo.training.settings import TrainerSettings

CONF = Path(__file__).parents[2] / "conf"


def test_file_gives_every_setting_its_default() -> None:
    settings = yaml.safe_load((CONF / "trainer" / "default.yaml").read_text())
    assert settings.pop("_target_") == "ferhpo.training.settings.TrainerSettings"
    assert set(settings) == set(vars(TrainerSettings()))
    assert TrainerSettings(**settings) == TrainerSettings()


def test_every_key_of_the_file_is_explained() -> None:
    lines = (CONF / "trainer" / "default.yaml").read_text().splitlines()[2:]
    explained = [line.split(":")[0] for line in lines if "#" in line]
    assert set(vars(TrainerSettings())) - set(explained) == {"max_epochs", "batch_size"}


def test_precision_may_be_written_as_a_number() -> None:
    assert TrainerSettings(precision=16).precision == "16"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epochs": 0}, "max_epochs is 0; it must be an integer of at least 1"),
        ({"batch_size": 12.0}, "batch_size is 12.0; it must be an integer of at least 1"),
        ({"num_threads": 0}, "num_threads is 0; it must be an integer of at least 1"),
        ({"early_stopping_patience": -1}, "early_stopping_patience is -1; it must be an integer of at least 1"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; it must be in [0, 1)"),
        ({"ema_decay": 1}, "ema_decay is 1; it must be in [0, 1)"),
        ({"swa_start": "late"}, "swa_start is 'late'; it must be in [0, 1)"),
        ({"precision": "fp8"}, "precision is 'fp8'; it must be one of auto, 32, bf16, 16"),
        ({"channels_last": "yes"}, "channels_last is 'yes'; it must be one of auto, true, false"),
        ({"compile": 1}, "compile is 1; it must be one of true, false"),
        ({"cuda_graph": 1}, "cuda_graph is 1; it must be one of auto, true, false"),
        (
            {"cuda_graph": True, "compile": True},
            "cuda_graph is true, but compile is true; it must be auto or false then",
        ),
        (
            {"cuda_graph": True, "precision": 16},
            "cuda_graph is true, but precision is 16; it must be auto or false then",
        ),
        ({"weight_averaging": "mean"}, "weight_averaging is 'mean'; it must be one of null, ema, swa"),
        ({"class_weights": None}, "class_weights is None; it must be one of none, balanced"),
        ({"sampling": "random"}, "sampling is 'random'; it must be one of shuffle, balanced"),
        ({"normalise": True}, "normalise is True; it must be one of dataset, image, none"),
        ({"keep_epochs": 5}, "keep_epochs is 5; it must be a list of epochs, e.g. [1, 5, 20]"),
        ({"keep_epochs": "all"}, "keep_epochs is 'all'; it must be a list of epochs, e.g. [1, 5, 20]"),
        (
            {"max_epochs": 4, "keep_epochs": [0, 4, 5, True, 2.0]},
            "keep_epochs has 0, 5, True, 2.0; each must be an integer from 1 to max_epochs, 4",
        ),
        ({"gradient_clip_norm": 0}, "gradient_clip_norm is 0; it must be above 0, or null for no clipping"),
    ],
    ids=str,
)
def test_setting_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TrainerSettings(**settings)
