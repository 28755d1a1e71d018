"""What a trial costs beyond its training: a whole sweep of trials that train one epoch on 140 small images.

    python benchmarks/trivial_trials.py [--trials 120] [--report false] [--store none]
    python benchmarks/trivial_trials.py --alone          # in this process, without Ray: one trial after the other

The sweep is a real one, with Ray, two slots, random sampling, an MLflow store and checkpoints. Printed are the seconds
until the first trial is handed to a worker, those from the second trial's end to the last one's, those after the last
trial, and per trial and slot: the time between two ends, the training in it (the recorded epoch), and the rest.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ferhpo
from ferhpo.config.compose import compose
from ferhpo.driver.ledger import Ledger
from ferhpo.training.settings import Hardware
from ferhpo.trial.load_data import load_data
from ferhpo.trial.run import run_trial
from ferhpo.tuning.result import SweepResult

OPTIONS = [
    "sampler=random", "scheduler=none", "~space.model", "data.num_train=140", "data.num_val=70", "data.num_test=14",
    "data.image_size=24", "trainer.max_epochs=1", "trainer.batch_size=32", "model.stem_channels=4",
    "model.num_blocks=2", "model.block_channels=4", "model.dense_units=8", "compute.num_cpus=2",
    "compute.max_concurrent=2", "compute.gpus_per_trial=0",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--report", default="true", help="tracking.report: draw figures and the HTML page")
    parser.add_argument("--store", default="null", help='tracking.uri; "none" for no store')
    parser.add_argument("--models", default="best", help="tracking.models")
    parser.add_argument("--alone", action="store_true")
    args = parser.parse_args()
    if args.alone:
        alone(args.trials)
        return
    ends: dict[int, float] = {}
    first_start: list[float] = []
    num_seen, unfinished = 0, set[int]()

    def listen(ledger: Ledger) -> None:
        nonlocal num_seen
        now = time.perf_counter()
        if ledger.running and not first_start:
            first_start.append(now)
        unfinished.update(range(num_seen, ledger.study.num_asked))
        num_seen = ledger.study.num_asked
        for number in [number for number in unfinished if ledger.study.trial(number).state.is_over]:
            unfinished.remove(number)
            ends[number] = now

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = ferhpo.sweep(
            "demo",
            [*OPTIONS, f"num_trials={args.trials}", f"output_dir={folder}", f"tracking.report={args.report}",
             f"tracking.uri={args.store}", f"tracking.models={args.models}"],
            listener=listen,
        )  # fmt: skip
        stop = time.perf_counter()
        epochs = list(epoch_seconds(result))
    times = sorted(ends.values())
    middle = times[-1] - times[1]
    per_trial = 2 * middle / (len(times) - 2)
    print(f"{len(times)} trials, 2 slots; tracking.uri {args.store}, report {args.report}, models {args.models}")
    print(f"before the first trial  {first_start[0] - start:6.1f} s")
    print(f"until the second end    {times[1] - first_start[0]:6.1f} s")
    print(f"from there to the last  {middle:6.1f} s")
    print(f"after the last trial    {stop - times[-1]:6.1f} s")
    training = statistics.median(epochs)
    print(f"per trial and slot      {1e3 * per_trial:6.0f} ms: epoch {1e3 * training:.0f} ms, rest "
          f"{1e3 * (per_trial - training):.0f} ms")  # fmt: skip


def alone(num_trials: int) -> None:
    """Print the median milliseconds of a trial in this process, and of the epoch in it."""
    composed = compose("demo", OPTIONS)
    data = load_data(composed)
    seconds, epochs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(num_trials + 5):
            start = time.perf_counter()
            run_trial(
                composed.config,
                data,
                Path(folder) / str(number),
                number,
                lambda epoch, metrics: epochs.append(metrics["epoch_seconds"]),
                hardware=Hardware(1, "32", 0),
            )
            seconds.append(time.perf_counter() - start)
    whole, epoch = (1e3 * statistics.median(values[5:]) for values in (seconds, epochs))  # the first ones import
    print(f"{num_trials} trials without Ray, 1 thread: {whole:.0f} ms a trial, of which the epoch {epoch:.0f} ms")


def epoch_seconds(result: SweepResult) -> Iterator[float]:
    for trial in result.sweep.trials():
        yield sum(row["epoch_seconds"] for row in trial.epochs)


if __name__ == "__main__":
    main()
