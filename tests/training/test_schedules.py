"""Learning rates step by step, against the formulas."""

import importlib
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from ferhpo.training import schedules
from ferhpo.training.schedules import Schedule

CONF = Path(__file__).parents[2] / "conf"
LENGTH = {"num_epochs": 10, "steps_per_epoch": 4}


def sgd(lr: float = 0.1, momentum: float = 0.9) -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr, momentum=momentum)


def run(make: Any, optimizer: torch.optim.Optimizer, scores: list[float] | None = None, **settings: Any) -> list[float]:
    """The learning rate of each of the 40 steps."""
    schedule = make(optimizer, **LENGTH, **settings)
    rates = []
    for epoch in range(10):
        for _ in range(4):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(scores[epoch] if scores else 0.0)
    return rates


def test_constant() -> None:
    assert run(schedules.constant, sgd()) == [0.1] * 40


def test_warm_up_rises_in_equal_steps_to_the_rate() -> None:
    rates = run(schedules.constant, sgd(), warmup_epochs=1.0)
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert rates[5:] == [0.1] * 35


def test_step() -> None:
    rates = run(schedules.step, sgd(), every_epochs=3, factor=0.5)
    assert rates == pytest.approx([0.1] * 12 + [0.05] * 12 + [0.025] * 12 + [0.0125] * 4)


def test_cosine() -> None:
    expected = [0.05 * (1 + math.cos(math.pi * step / 40)) for step in range(40)]
    assert run(schedules.cosine, sgd()) == pytest.approx(expected)


def test_cosine_with_warm_up_and_an_end_above_nothing() -> None:
    rates = run(schedules.cosine, sgd(), warmup_epochs=2, final_fraction=0.1)
    assert rates[:9] == pytest.approx([0.1 * (i + 1) / 9 for i in range(9)])
    assert max(rates) == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.1 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 31 / 32))))


def test_plateau_falls_after_patience_epochs_without_improvement() -> None:
    scores = [0.1, 0.2, 0.2, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    rates = run(schedules.plateau, sgd(), scores, patience=1, factor=0.1)[::4]
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 6)


def test_plateau_works_on_negated_losses() -> None:
    rates = run(schedules.plateau, sgd(), [-1 / (i + 1) for i in range(10)], patience=0, threshold=1e-6)
    assert rates == [0.1] * 40


def test_one_cycle_ends_where_it_should_and_turns_momentum() -> None:
    optimizer = sgd()
    schedule = schedules.one_cycle(optimizer, **LENGTH, warmup_fraction=0.25)
    rates, momenta = [], []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        schedule.after_step()
    assert rates[0] == pytest.approx(0.1 / 25)
    assert max(rates) == pytest.approx(0.1, rel=0.02)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 25 / 1e4)
    assert rates[-1] < 0.001
    assert momenta[rates.index(max(rates))] == pytest.approx(0.85, abs=0.005)
    assert momenta[0] == pytest.approx(0.95)


def test_one_cycle_leaves_an_optimizer_without_momentum_alone() -> None:
    rates = run(schedules.one_cycle, torch.optim.RMSprop([nn.Parameter(torch.zeros(1))], lr=0.1))
    assert max(rates) == pytest.approx(0.1, rel=0.02)


FILES = sorted((CONF / "lr_schedule").glob("*.yaml"))


def from_file(file: Path, optimizer: torch.optim.Optimizer, **changes: Any) -> Schedule:
    settings = yaml.safe_load(file.read_text())
    module, name = settings.pop("_target_").rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(  # type: ignore[no-any-return]
        optimizer, **LENGTH, **{**settings, **changes}
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_files_stop_and_go_on_exactly(file: Path) -> None:
    def rates(interrupted_after: int | None) -> list[float]:
        optimizer, found = sgd(), []
        schedule = from_file(file, optimizer)
        for epoch in range(10):
            for _ in range(4):
                optimizer.step()
                schedule.after_step()
                found.append(optimizer.param_groups[0]["lr"])
            schedule.after_epoch(1.0)
            if epoch == interrupted_after:
                states = schedule.state_dict(), optimizer.state_dict()
                optimizer = sgd()
                schedule = from_file(file, optimizer)
                optimizer.load_state_dict(states[1])
                schedule.load_state_dict(states[0])
        return found

    whole = rates(None)
    assert all(rates(epoch) == whole for epoch in range(9))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cosine", {"warmup_epochs": 10}, "warmup_epochs is 10; it must be at least 0 and below max_epochs, 10"),
        ("constant", {"warmup_epochs": -1}, "warmup_epochs is -1; it must be at least 0 and below max_epochs, 10"),
        ("cosine", {"final_fraction": 2}, "final_fraction is 2; it must be in [0, 1]"),
        ("step", {"every_epochs": 0}, "every_epochs is 0; it must be an integer of at least 1"),
        ("step", {"factor": 1.0}, "factor is 1.0; it must be in (0, 1)"),
        ("plateau", {"patience": -1}, "patience is -1; it must be an integer of at least 0"),
        ("plateau", {"min_lr": -1}, "min_lr is -1; it must be at least 0"),
        ("one_cycle", {"warmup_fraction": 1}, "warmup_fraction is 1; it must be in (0, 1)"),
        ("one_cycle", {"start_divisor": 0}, "start_divisor is 0; it must be at least 1"),
    ],
)
def test_setting_out_of_range_is_named(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        from_file(CONF / "lr_schedule" / f"{name}.yaml", sgd(), **settings)


@pytest.mark.parametrize("file", sorted((CONF / "optim").glob("*.yaml")), ids=lambda file: file.stem)
def test_optimizer_files(file: Path) -> None:
    config = yaml.safe_load(file.read_text())
    settings = config["optim"]
    optimizer_class = getattr(torch.optim, settings.pop("_target_").removeprefix("torch.optim."))
    assert file.read_text().startswith("# @package _global_\n# ")
    assert set(config["space"]["optim"]) <= set(settings)
    for bound in ("low", "high"):
        drawn = {key: draw[bound] for key, draw in config["space"]["optim"].items()}
        optimizer_class([nn.Parameter(torch.zeros(1))], **{**settings, **drawn})
