"""Other targets of the fuzzer: a sweep folder, the checkpoints of a trial, and a folder of user configurations."""

import random
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from ferhpo.config import validate
from ferhpo.config.compose import compose
from ferhpo.config.files import headline, sweep_files
from ferhpo.data.synthetic import load as draw_faces
from ferhpo.models.cnn import CNN
from ferhpo.storage.listing import list_sweeps
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.storage.sweep import load_sweep
from ferhpo.training import schedules
from ferhpo.training.augment import Augment
from ferhpo.training.checkpoint import BEST, load_network
from ferhpo.training.fit import fit
from ferhpo.training.settings import TrainerSettings
from tests.fuzz.fuzzing import Target
from tests.reports.made_sweeps import CONDITIONAL_SPACE, made_sweep


def _sweep(folder: Path) -> None:
    made_sweep(folder, ["COMPLETE", "PRUNED", "FAILED", "RUNNING", "COMPLETE"], CONDITIONAL_SPACE)


def _read_sweep(folder: Path) -> Any:
    """Read what `ferhpo runs` reads, and what a resume reads and asks for."""
    list_sweeps(str(folder))
    record = load_sweep("made", folder)
    board = [(trial.number, trial.state, trial.value) for trial in record.leaderboard()]
    configs = [trial.config for trial in record.trials()]
    study = SweepStudy(record.folder, record.space(), record.config["sampler"], 0, record.objective, record.listed)
    try:
        asked = study.ask().sample
    finally:
        study.close()
    return board, configs, asked


@cache
def _faces() -> Any:
    return draw_faces(num_train=8, num_val=4, num_test=0, image_size=24)


def _network() -> torch.nn.Module:
    torch.manual_seed(0)
    shape = {"stem_channels": 2, "num_blocks": 1, "block_channels": 2, "dense_units": 4}
    return CNN(in_channels=1, num_classes=7, image_size=24, **shape)


class _StopError(Exception):
    pass


def _train(folder: Path, num_epochs: int) -> torch.nn.Module:
    """Train a network for two epochs, or stop after the first; continue from what is in the folder."""
    network = _network()

    def report(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == num_epochs < 2:
            raise _StopError

    with suppress(_StopError):
        _fit(network, folder, report)
    return network


def _fit(network: torch.nn.Module, folder: Path, report: Callable[[int, dict[str, float]], None]) -> None:
    fit(
        network,
        _faces(),
        optimizer=partial(torch.optim.Adam, lr=0.01),
        lr_schedule=schedules.constant,
        augment=Augment(flip=0.5),
        settings=TrainerSettings(max_epochs=2, batch_size=4, weight_averaging="ema"),
        folder=folder,
        seed=1,
        report=report,
        device=torch.device("cpu"),
    )


def _read_checkpoints(folder: Path) -> Any:
    """Load the kept network, as an evaluation does, then resume the training."""
    kept = _network()
    load_network(folder / BEST, kept)
    network = _train(folder, 2)
    return [tensor.tolist() for each in (kept, network) for tensor in each.state_dict().values()]


def _configs(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "optim").mkdir()
    (folder / "mine.yaml").write_text(
        "# a sweep of mine\ndefaults: [config, {override model: own}, {override optim: own}, _self_]\nnum_trials: 4\n"
        "space:\n  optim:\n    lr: {low: 1.0e-4, high: 0.1, log: true}\n    momentum: {low: 0.8, high: 0.9, step: 0.05}\n"
        "  model:\n    num_blocks: {low: 1, high: 2}\n    block_channels: {low: 8, high: 16, step: 8, repeat: model.num_blocks}\n"
    )
    (folder / "model" / "own.yaml").write_text(
        "# a network of mine\n_target_: ferhpo.models.cnn.CNN\nstem_channels: 4\nnum_blocks: 1\nblock_channels: 4\n"
    )
    (folder / "optim" / "own.yaml").write_text("# steps of mine\n_target_: torch.optim.SGD\nlr: 0.1\nmomentum: 0.9\n")


ODD_YAML = (
    *(
        "null",
        "true",
        "-1",
        "0",
        "1e400",
        ".nan",
        ".inf",
        "''",
        "[]",
        "{}",
        "[1, 2]",
        "{a: 1}",
        "1e30",
        "!!binary aGk=",
        "???",
    ),
    *(
        "${oc.env:HOME}",
        "${model}",
        "${nope}",
        "2020-01-01",
        "!!python/name:os.system",
        "*a",
        "&a 1",
        "'\\0'",
        "torch.load",
    ),
    *(
        "{_target_: os.getcwd}",
        "{low: 1, high: 2}",
        "{choices: [1, x]}",
        "'" + "9" * 400 + "'",
        "9" * 400,
        "torch.nn.Linear",
    ),
)


def _spoil_yaml(rng: random.Random, folder: Path) -> str:
    """An unusual value in a line, a key with another spelling, or changed bytes."""
    from tests.fuzz.mutations import mutate_tree

    path = rng.choice(sorted(folder.rglob("*.yaml")) or [folder / "mine.yaml"])
    if rng.random() < 0.4 or not path.is_file():
        return mutate_tree(rng, folder)
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    places = [place for place, line in enumerate(lines) if ":" in line]
    if not places:
        return mutate_tree(rng, folder)
    place = rng.choice(places)
    key, _, value = lines[place].partition(":")
    odd = rng.choice(ODD_YAML)
    lines[place] = f"{key}: {odd}" if rng.random() < 0.8 else f"{key}{rng.choice('ax_.')}:{value}"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    return f"{path.name}: {lines[place]}"


def _read_configs(folder: Path) -> Any:
    """Do what `ferhpo list` and `ferhpo check` do."""
    headlines = [headline(path) for path in sweep_files(folder).values()]
    composed = compose("mine", config_dir=folder)
    validate.check_composed(composed)
    return headlines, composed.config


OTHER_FILES = {
    "sweep_folder": Target(_sweep, _read_sweep, named=lambda folder: "made"),
    "checkpoints": Target(
        lambda folder: _train(folder, 1) and None,
        _read_checkpoints,
        must_be_same=True,
        named=lambda folder: str(folder),
    ),
    "configurations": Target(_configs, _read_configs, _spoil_yaml, named=lambda folder: ""),
}
