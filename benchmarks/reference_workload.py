"""Eight trials of three epochs, by ferhpo and by its peers, in turn, in one call: whole processes by wall time.

    python benchmarks/reference_workload.py [--rounds 5] [--write benchmarks/results/NAME.md]

The workload is that of a tutorial: 4,000 training and 1,000 validation faces of 48x48, a tiny CNN, Adam with a sampled
learning rate, batch 64, two trials at a time on two cores. Early stopping is in place but never strikes (its grace
period is the whole training), so that everyone trains the same 24 epochs.

    documentation  Ray Tune as its documentation shows it with Lightning: TuneReportCheckpointCallback, OptunaSearch,
                   ASHAScheduler, MLflowLoggerCallback, a fresh process for each trial
    sequential     one process that fits the trials one after the other with Lightning; no Ray, no tracking
    ferhpo         `ferhpo sweep`: MLflow with parent, children and a registered model, checkpoints, a resumable study
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NUM_TRIALS, NUM_EPOCHS, BATCH_SIZE = 8, 3, 64
NUM_TRAIN, NUM_VAL = 4000, 1000
WIDTHS, DENSE = (16, 32, 64), 64
SYSTEMS = ("documentation", "sequential", "ferhpo")
TARGETS = {"documentation": 0.45, "sequential": 1.0}


def make_network():
    """conv-ReLU-BN-pool three times, then one dense layer: what conf/model/cnn.yaml makes of the settings below."""
    from torch import nn

    layers, channels = [], 1
    for width in WIDTHS:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(width), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(channels * 6 * 6, DENSE), nn.ReLU(), nn.BatchNorm1d(DENSE), nn.Linear(DENSE, 7)
    )


def make_module(lr):
    import pytorch_lightning as pl
    import torch
    import torch.nn.functional as F  # noqa: N812
    from torchmetrics.classification import MulticlassAccuracy

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.network, self.accuracy = make_network(), MulticlassAccuracy(7, average="micro")

        def training_step(self, batch, batch_idx):
            images, labels = batch
            loss = F.cross_entropy(self.network(images), labels)
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch, batch_idx):
            images, labels = batch
            logits = self.network(images)
            self.log("val_loss", F.cross_entropy(logits, labels))
            self.accuracy(logits, labels)
            self.log("val_acc", self.accuracy, on_epoch=True)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=lr)

    return Module()


def make_loaders(path):
    import numpy as np
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    arrays = np.load(path)
    images = (torch.from_numpy(arrays["images"]).unsqueeze(1).float() / 255 - 0.5) / 0.25
    labels = torch.from_numpy(arrays["labels"])
    train = TensorDataset(images[:NUM_TRAIN], labels[:NUM_TRAIN])
    val = TensorDataset(images[NUM_TRAIN:], labels[NUM_TRAIN:])
    return DataLoader(train, BATCH_SIZE, shuffle=True), DataLoader(val, 512)


def learning_rate(number):
    return 10 ** (-3.5 + 0.25 * number)


def run_sequential(data, folder):
    import pytorch_lightning as pl

    loaders = make_loaders(data)
    for number in range(NUM_TRIALS):
        trainer = pl.Trainer(
            max_epochs=NUM_EPOCHS, logger=False, enable_progress_bar=False, enable_checkpointing=False,
            enable_model_summary=False, accelerator="cpu",
        )  # fmt: skip
        trainer.fit(make_module(learning_rate(number)), *loaders)


def run_documentation(data, folder):
    import pytorch_lightning as pl
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.integration.pytorch_lightning import TuneReportCheckpointCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    def train(config):
        report = TuneReportCheckpointCallback({"val_acc": "val_acc", "val_loss": "val_loss"}, on="validation_end")
        trainer = pl.Trainer(
            max_epochs=NUM_EPOCHS, enable_progress_bar=False, accelerator="cpu", callbacks=[report],
            enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(make_module(config["lr"]), *make_loaders(data))

    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={"lr": tune.loguniform(1e-4, 1e-1)},
        tune_config=tune.TuneConfig(
            metric="val_acc",
            mode="max",
            num_samples=NUM_TRIALS,
            search_alg=OptunaSearch(),
            scheduler=ASHAScheduler(max_t=NUM_EPOCHS, grace_period=NUM_EPOCHS),
        ),
        run_config=tune.RunConfig(
            name="documentation",
            storage_path=str(folder / "ray"),
            callbacks=[MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="tune")],
        ),
    )
    results = tuner.fit()
    assert results.num_errors == 0
    assert len(results) == NUM_TRIALS


def run_ferhpo(data, folder):
    from ferhpo.cli import command

    overrides = [
        f"output_dir={folder}/mlruns", f"num_trials={NUM_TRIALS}", f"trainer.max_epochs={NUM_EPOCHS}",
        f"trainer.batch_size={BATCH_SIZE}", "data=fer2013", f"data.path={data.with_suffix('.csv')}",
        "model.stem_channels=0", "model.num_blocks=3", f"model.block_channels={list(WIDTHS)}", "model.conv_dropout=0.0",
        f"model.dense_units={DENSE}", "model.dense_dropout=0.0", "~space.model", f"scheduler.grace_period={NUM_EPOCHS}",
        "compute.max_concurrent=2",
    ]  # fmt: skip
    sys.argv = ["ferhpo", "sweep", "demo", *(text.replace(" ", "") for text in overrides)]
    command()


def check_same_network():
    """The workload is the same only if the network is."""
    from ferhpo.models.cnn import CNN
    from ferhpo.models.count import count_macs, count_parameters

    ours = CNN(
        in_channels=1, num_classes=7, image_size=48, stem_channels=0, num_blocks=3, block_channels=list(WIDTHS),
        conv_dropout=0.0, dense_units=DENSE, dense_dropout=0.0,
    )  # fmt: skip
    peer = make_network()
    shape = (1, 48, 48)
    found = [(count_parameters(network), count_macs(network, shape)) for network in (ours, peer)]
    assert found[0] == found[1], found
    return found[0]


def make_data(path):
    """The same faces twice: arrays for the peers, and beside them a fer2013.csv for ferhpo, which reads no arrays."""
    import numpy as np

    from ferhpo.data.synthetic import load

    faces = load(num_train=NUM_TRAIN, num_val=NUM_VAL, num_test=7)
    order = np.argsort(faces.split, kind="stable")
    images, labels = faces.images[order], faces.labels[order]
    np.savez(path, images=images[: NUM_TRAIN + NUM_VAL], labels=labels[: NUM_TRAIN + NUM_VAL])
    usage = ["Training"] * NUM_TRAIN + ["PublicTest"] * NUM_VAL + ["PrivateTest"] * 7
    with path.with_suffix(".csv").open("w") as out:
        out.write("emotion,pixels,Usage\n")
        for image, label, split in zip(images, labels, usage, strict=True):
            out.write(f"{label},{' '.join(map(str, image.ravel()))},{split}\n")


def timed(system, data):
    folder = Path(tempfile.mkdtemp(prefix=f"reference-{system}-"))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["FERHPO_CACHE_DIR"] = str(data.parent / "cache")
    environment["RAY_TRAIN_V2_ENABLED"] = environment.get("RAY_TRAIN_V2_ENABLED", "1")
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--one", system, str(data), str(folder)],
        env=environment, cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    shutil.rmtree(folder, ignore_errors=True)
    if done.returncode:
        sys.exit(f"{system} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--one", nargs=3, metavar=("SYSTEM", "DATA", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        system, data, folder = args.one[0], *map(Path, args.one[1:])
        {"documentation": run_documentation, "sequential": run_sequential, "ferhpo": run_ferhpo}[system](data, folder)
        return
    num_parameters, macs = check_same_network()
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "faces.npz"
        make_data(data)
        seconds = {system: [] for system in args.systems}
        for number in range(args.rounds):
            for system in args.systems:
                seconds[system].append(timed(system, data))
                print(f"round {number + 1}: {system} {seconds[system][-1]:.1f} s", flush=True)
    medians = {system: statistics.median(values) for system, values in seconds.items()}
    lines = [
        f"# Reference workload, {time.strftime('%Y-%m-%d')}",
        "",
        f"`python benchmarks/reference_workload.py --rounds {args.rounds}` on {os.cpu_count()} cores "
        f"({platform.machine()}, Python {platform.python_version()}); {NUM_TRIALS} trials of {NUM_EPOCHS} epochs, "
        f"{num_parameters:,} parameters, {macs / 1e6:.1f} MMAC an image.",
        "",
        "| system | median s | all, s | ferhpo takes of it | target |",
        "|---|---|---|---|---|",
    ]
    for system, values in seconds.items():
        shown = " ".join(f"{value:.1f}" for value in values)
        ratio = f"{medians['ferhpo'] / medians[system]:.2f}" if system in TARGETS and "ferhpo" in medians else ""
        target = f"at most {TARGETS[system]:.2f}" if system in TARGETS else ""
        lines.append(f"| {system} | {medians[system]:.1f} | {shown} | {ratio} | {target} |")
    text = "\n".join(lines) + "\n"
    print(text)
    print(json.dumps(medians))
    if args.write:
        args.write.parent.mkdir(parents=True, exist_ok=True)
        args.write.write_text(text)


if __name__ == "__main__":
    main()
