"""Make sweeps with any outcomes through the study alone, without training."""

import copy
from functools import cache

import torch

from ferhpo.config.compose import compose
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.storage.sweep import create_sweep

SMALL_SPACE = {
    "optim": {"lr": {"low": 1.0e-4, "high": 0.1, "log": True}},
    "model": {"norm": {"choices": ["batch", "none"]}},
}
CONDITIONAL_SPACE = {
    "model": {
        "num_blocks": {"low": 1, "high": 3},
        "block_channels": {"low": 16, "high": 64, "step": 16, "repeat": "model.num_blocks"},
    }
}
LIST_SPACE = {"model": {"dense_units": {"choices": [[64], [64, 32]]}}}


@cache
def demo(overrides):
    return compose("demo", ["sampler=random", *overrides])


def score(sample) -> float:
    """Return a value that depends only on the learning rate, if the sample has one."""
    return 0.9 - abs(sample.get("optim.lr", 0.01) - 0.03) * 4


# The keys of best.ckpt, of a network without weights; tests replace what they need
BARE_CHECKPOINT = {
    "epoch": 1,
    "metrics": {},
    "network": {},
    "confusion": torch.zeros(0, 0).long(),
    "class_names": [],
    "preprocess": {
        "channels": 1,
        "image_size": 24,
        "input_size": 24,
        "normalise": "none",
        "mean": (),
        "std": (),
    },
}


def metrics(value, epoch) -> dict[str, float]:
    return {
        "train_loss": 2.0 - value / 2 - epoch / 10, "train_acc": value + 0.02 * epoch, "val_loss": 2 - value,
        "val_acc": value, "val_macro_f1": value / 2,
    }  # fmt: skip


def made_sweep(folder, states, space=None, name="made", overrides=(), objective=None, extra=None, reason=""):
    """Make a sweep with one trial for each of `states`; RUNNING ones have one epoch and have not ended.

    extra: a function of the trial's number that returns what the study records with its outcome
    """
    composed = copy.deepcopy(demo(tuple(overrides)))
    composed.config.update({"name": name, "output_dir": str(folder)})
    composed.config["space"] = SMALL_SPACE if space is None else space
    composed.config["objective"] = objective or composed.config["objective"]
    sweep = create_sweep(composed)
    study = SweepStudy(sweep.folder, composed.space(), composed.config["sampler"], 0, sweep.objective)
    for state in states:
        trial = study.ask()
        if state not in ("FAILED", "INFEASIBLE"):
            for epoch in range(1, 2 if state in ("PRUNED", "RUNNING") else 4):
                value = score(trial.sample) * (0.5 + epoch / 6)
                study.record_epoch(trial.number, epoch, metrics(value, epoch), "CONTINUE")
        if state != "RUNNING":
            kept = extra(trial.number) if extra else {"num_parameters": 1000 + 37 * trial.number, "macs": 10**6}
            study.finish(trial.number, state, reason if state != "COMPLETE" else "", 1.5, kept)
    study.close()
    return sweep
