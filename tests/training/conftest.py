"""A tiny data set, and a way to fit a tiny network to it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import make_data, make_network

from ferhpo.data.dataset import FaceData


@pytest.fixture
def data() -> FaceData:
    return make_data()


@pytest.fixture
def run_fit(tmp_path: Path) -> Callable[..., Any]:
    """Return fit() with small defaults; `trainer=` takes trainer settings, other arguments are those of fit."""
    from ferhpo.training import schedules
    from ferhpo.training.augment import Augment
    from ferhpo.training.fit import fit
    from ferhpo.training.settings import TrainerSettings

    def run(**changes: Any) -> Any:
        trainer = {"max_epochs": 2, "batch_size": 20, "precision": "32", "num_threads": 1, **changes.pop("trainer", {})}
        arguments: dict[str, Any] = {
            "network": None,
            "data": None,
            "optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9),
            "lr_schedule": schedules.constant,
            "augment": Augment(),
            "settings": TrainerSettings(**trainer),
            "folder": tmp_path,
            "seed": 3,
            "report": lambda epoch, metrics: None,
            "device": torch.device("cpu"),
        }
        arguments |= changes
        if arguments["network"] is None:
            arguments["network"] = make_network()
        if arguments["data"] is None:
            arguments["data"] = make_data()
        return fit(**arguments)

    return run
