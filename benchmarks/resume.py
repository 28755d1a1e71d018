"""How long a sweep of many trials takes to go on: from opening its folder to its next trial, phase by phase.

    python benchmarks/resume.py [--trials 1000] [--epochs 10]

The sweep is made first, by ferhpo's own study, ledger and spool, with values that a formula gives: trials that ASHA
stopped or that ran to the end, ten metrics an epoch, TPE over the demo's space. A process of its own then resumes it as
`ferhpo sweep --resume NAME num_trials=...` does. What imports and Ray take is shown beside it: any sweep needs that.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

METRICS = (
    "train_loss", "train_acc", "val_loss", "val_acc", "val_acc_dedup", "val_macro_f1", "lr", "epoch_seconds",
    "images_per_second", "device_memory_mb",
)  # fmt: skip


def make(folder: Path, num_trials: int, num_epochs: int) -> None:
    """A sweep that has ended and was shipped."""
    from dataclasses import asdict

    import numpy as np

    from ferhpo.components.build import instantiate
    from ferhpo.config.compose import compose
    from ferhpo.driver.ledger import STOP, Ledger
    from ferhpo.driver.ray_hooks import RecordingScheduler
    from ferhpo.storage.study.sweep_study import SweepStudy
    from ferhpo.storage.sweep import create_sweep
    from ferhpo.tracking import Tracker, TrackingSettings
    from ferhpo.tracking.upload.shipped import Shipped

    composed = compose("demo", ["name=big", f"output_dir={folder}", f"trainer.max_epochs={num_epochs}", "sampler=tpe"])
    composed.config["num_trials"] = num_trials
    sweep = create_sweep(composed)
    os.fsync = lambda descriptor: None  # a disk's time is not what is measured, and there are 20,000 lines
    drawn_fast = {"_target_": "optuna.samplers.RandomSampler"}
    study = SweepStudy(sweep.folder, sweep.space(), drawn_fast, 0, sweep.objective)
    settings = TrackingSettings(output_dir=folder)
    tracker = Tracker(sweep.folder, settings)
    tracker.open_sweep(sweep.name, {}, {}, "")
    ledger = Ledger(sweep, study, tracker, num_trials)
    stock = instantiate(composed.config["scheduler"], "scheduler", metric="val_acc", mode="max")
    scheduler = RecordingScheduler(stock, ledger, composed.config["seed"])
    numbers = np.random.default_rng(0)
    while (trial := ledger.next_trial()) is not None:
        ledger.start(trial.number)
        height, decision = numbers.uniform(0.3, 0.8), ""
        for epoch in range(1, num_epochs + 1):
            metrics = {**dict.fromkeys(METRICS, numbers.random()), "val_acc": height * (1 - 0.7**epoch)}
            row = {**metrics, "epoch": epoch}
            decision = ledger.report(trial.number, epoch, metrics, lambda row=row: scheduler._decide(trial.number, row))
            if decision == STOP:
                scheduler._finish(trial.number, row)
                break
        ledger.stopped(trial.number)
    tracker.close(0)
    study.close()
    spool = sweep.folder / "spool.jsonl"
    last_seq = json.loads(spool.read_bytes().splitlines()[-1])["seq"]
    note = Shipped(sweep.folder / "spool.shipped.json", settings.shown_uri, settings.experiment)
    note.seq, note.offset = last_seq, spool.stat().st_size
    note.runs = {str(number): f"{number:032x}" for number in range(num_trials)}
    assert asdict(note)["seq"] == last_seq
    note.save()


def resume(folder: Path, num_trials: int) -> None:
    """Print the seconds of each phase as JSON: by the clock, and of this process alone."""
    seconds: dict[str, tuple[float, float]] = {}
    began = time.perf_counter(), time.process_time()

    def phase(name: str) -> None:
        nonlocal began
        now = time.perf_counter(), time.process_time()
        seconds[name] = now[0] - began[0], now[1] - began[1]
        began = time.perf_counter(), time.process_time()

    from ferhpo.components.build import instantiate
    from ferhpo.config import ComputeSettings
    from ferhpo.config.compose import compose
    from ferhpo.config.validate import check_composed
    from ferhpo.driver import ray_cluster, ray_hooks

    check_composed(compose("demo"))  # imports what the components of a configuration are made of
    phase("imports")
    ray_cluster.start_ray(ComputeSettings(num_cpus=2, num_gpus=0))
    phase("Ray")
    from ferhpo.driver.ledger import Ledger
    from ferhpo.driver.retention import Keeper
    from ferhpo.storage.study.sweep_study import SweepStudy
    from ferhpo.tracking import Tracker
    from ferhpo.tuning.preflight import resumed

    sweep = resumed("big", [f"output_dir={folder}", f"num_trials={num_trials}"], "sweep")
    config = sweep.config
    check_composed(sweep.composed)
    phase("check")
    study = SweepStudy(sweep.folder, sweep.space(), config["sampler"], config["seed"], sweep.objective, sweep.listed)
    phase("study")
    tracker = Tracker(sweep.folder, sweep.tracking)
    tracker.open_sweep(sweep.name, {}, {}, "")
    phase("spool")
    ledger = Ledger(sweep, study, tracker, num_trials)
    phase("ledger")
    keeper = Keeper(sweep, lambda trial: tracker.is_shipped(trial.number))
    for trial in study.trials():
        keeper.measure(trial.number)
    keeper.tidy(study.trials())
    phase("checkpoints")
    stock: Any = instantiate(config["scheduler"], "scheduler", metric="val_acc", mode="max")
    ray_hooks.RecordingScheduler(stock, ledger, config["seed"])
    phase("scheduler")
    asked = ledger.next_trial()
    assert asked is not None
    phase("first ask")
    ledger.start(asked.number)
    assert ledger.next_trial() is not None
    phase("second ask")
    ray_cluster.stop_ray()
    print(json.dumps(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--in", dest="folder", type=Path, help="where the sweep is, or is to be, made and kept")
    parser.add_argument("--part", choices=["make", "resume"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part == "make":
        make(args.folder, args.trials, args.epochs)
    elif args.part == "resume":
        resume(args.folder, args.trials + 2)
    else:
        with tempfile.TemporaryDirectory() as name:
            compare(args, args.folder or Path(name))


def compare(args: argparse.Namespace, folder: Path) -> None:
    command = [sys.executable, __file__, "--trials", str(args.trials), "--epochs", str(args.epochs)]
    if not (folder / "big").exists():
        subprocess.run([*command, "--in", str(folder), "--part", "make"], check=True)
    sizes = {name: (folder / "big" / name).stat().st_size / 1e6 for name in ("study.jsonl", "spool.jsonl")}
    print(f"{args.trials} trials, " + ", ".join(f"{name} {size:.1f} MB" for name, size in sizes.items()))
    with tempfile.TemporaryDirectory() as copy:  # or the next measurement would find this one's trials
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        command += ["--in", copy, "--part", "resume"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = json.loads(done.stdout.splitlines()[-1])
    for name, (wall, own) in seconds.items():
        print(f"{name:<12} {wall:6.2f} s, {own:.2f} of the processor")
    added = sum(wall for name, (wall, _) in seconds.items() if name not in ("imports", "Ray", "second ask"))
    print(f"beyond imports and Ray, to the next trial: {added:.2f} s")


if __name__ == "__main__":
    main()
