"""Draw a round, a sweep with faults at random moments, from its number.

Note: the number determines what is done and when, but not how far each process is at that moment. A round that is
played twice kills at the same points of the sweep's files, to within some milliseconds.
"""

import random
from dataclasses import dataclass

import yaml


@dataclass(frozen=True)
class Fault:
    """What is done, and when.

    what: kill, term, int (of the driver), worker, workers, raylet, server (killed and restarted), freeze (the server)
    since: what is counted from the start of the driver: seconds, lines of the journal or the spool, or uploaded records
        ("shipped"); or `closing`, seconds after the sweep's run was closed in the spool
    share: share of the lines that are still to come; or seconds
    pause_seconds: between the moment and the fault; for a fault of the server, the time until it runs again
    """

    what: str
    since: str
    share: float
    pause_seconds: float


@dataclass(frozen=True)
class Round:
    """A sweep and its faults.

    kind: tiny (networks whose epochs take milliseconds), real (about a second), cold (tiny; each driver is a new
        process with its own Ray)
    store: file (a database next to the sweep) or server (`mlflow server`, over HTTP)
    finish: whether the sweep ends with figures, page and registered model
    """

    number: int
    kind: str
    sampler: str
    scheduler: str
    num_trials: int
    num_epochs: int
    num_slots: int
    folds: int | None
    store: str
    finish: bool
    faults: tuple[Fault, ...]


def draw(number):
    """Return the round with this number."""
    rng = random.Random(number)
    kind = "real" if number % 4 == 3 else "cold" if number % 10 == 4 else "tiny"
    store = "server" if number % 3 == 2 else "file"
    most_trials, most_epochs = (5, 4) if kind == "real" else (12, 5)
    folds = 2 if kind == "tiny" and rng.random() < 0.2 else None
    kinds_of_fault = ["kill", "kill", "kill", "term", "int", "worker", "workers"]
    kinds_of_fault += ["raylet"] * 3 if kind == "cold" else []
    faults = []
    for _ in range(rng.randint(1, 2 if kind == "cold" else 3)):
        faults.append(_fault(rng, rng.choice(kinds_of_fault), kind))
        if faults[-1].what == "kill" and rng.random() < 0.25:  # and once more, while it resumes
            faults.append(Fault("kill", "seconds", rng.uniform(0, 4), 0.0))
    if store == "server":
        faults.insert(rng.randint(0, len(faults)), _fault(rng, rng.choice(["server", "server", "freeze"]), kind))
    return Round(
        number=number,
        kind=kind,
        sampler=rng.choice(["random", "tpe", "cmaes", "grid"]),
        scheduler=rng.choice(["none", "asha", "hyperband", "median"]),
        num_trials=rng.randint(4, most_trials),
        num_epochs=rng.randint(2, most_epochs),
        num_slots=rng.randint(1, 2),
        folds=folds,
        store=store,
        finish=rng.random() < 0.3,
        faults=tuple(faults),
    )


def _fault(rng, what, kind):
    if what in ("server", "freeze"):
        return Fault(what, rng.choice(["journal", "spool", "shipped"]), rng.random(), rng.uniform(1, 8))
    if what in ("worker", "workers"):
        return Fault(what, rng.choice(["journal", "journal", "spool"]), rng.random(), rng.uniform(0, 0.3))
    since = rng.choice(["seconds", "journal", "journal", "spool", "shipped", "closing"])
    most = {"seconds": 30 if kind == "cold" else 6, "closing": 1.5}.get(since, 1)
    return Fault(what, since, rng.uniform(0, most), rng.uniform(0, 0.3))


def write_config(played, folder):
    """Write the round's sweep as a user's own configuration."""
    spaces = {
        "random": {"model": _blocks(), "optim": {"lr": _lr(), "weight_decay": None}},
        "tpe": {"model": _blocks(), "optim": {"lr": _lr(), "weight_decay": None}},
        "cmaes": {"model": _unvaried(), "optim": {"lr": _lr(), "weight_decay": {"low": 1e-6, "high": 1e-2}}},
        "grid": {
            "model": _unvaried() | {"activation": {"choices": ["relu", "gelu", "elu"]}},
            "trainer": {"label_smoothing": {"choices": [0.0, 0.05, 0.1, 0.2]}},
            "optim": {"lr": None, "weight_decay": None},
        },
    }
    size = {"num_train": 1400, "num_val": 140} if played.kind == "real" else {"num_train": 70, "num_val": 35}
    data = {**size, "num_test": 7, "image_size": 48 if played.kind == "real" else 24}
    channels = {"block_channels": 16, "dense_units": 32} if played.kind == "real" else {"block_channels": 4}
    config = {
        "defaults": [
            "config",
            {"override sampler": played.sampler},
            {"override scheduler": played.scheduler},
            "_self_",
        ],
        "seed": played.number,
        "num_trials": played.num_trials,
        "data": data | ({} if played.folds is None else {"folds": played.folds}),
        "model": {"stem_channels": 0, "num_blocks": 2, "dense_units": 8, **channels},
        "trainer": {"max_epochs": played.num_epochs, "batch_size": 64},
        "compute": {"max_concurrent": played.num_slots, "cpus_per_trial": 1, "gpus_per_trial": 0, "max_retries": 20},
        "tracking": {
            "required": False,
            "models": "best" if played.finish else "none",
            "report": played.finish,
            # Many rounds share one server.
            "experiment": f"round-{played.number}",
            "registered_model_name": f"round-{played.number}",
        },
        "space": spaces[played.sampler],
    }
    if played.sampler in ("tpe", "cmaes"):
        config["sampler"] = {"n_startup_trials": 3}
    (folder / "round.yaml").write_text(f"# Round {played.number}\n{yaml.safe_dump(config, sort_keys=False)}")


def _lr():
    return {"low": 1e-4, "high": 1e-1, "log": True}


def _unvaried():
    return dict.fromkeys(("stem_channels", "num_blocks", "block_channels", "conv_dropout", "dense_dropout"))


def _blocks():
    """Return a conditional space: the second block is sampled only if there is one."""
    repeated = {"low": 4, "high": 12, "step": 4, "repeat": "model.num_blocks"}
    return _unvaried() | {"num_blocks": {"low": 1, "high": 2}, "block_channels": repeated}
