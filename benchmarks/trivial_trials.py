"""What a trial costs beyond its training: a whole sweep of trials that train one epoch on 140 small images.

    python benchmarks/trivial_trials.py [--trials 120] [--report false] [--store none]

The sweep is a real one, with Ray, two slots, random sampling, an MLflow store and checkpoints. Printed are the seconds
until the first trial is handed to a worker, those from the second trial's end to the last one's, those after the last
trial, and per trial and slot: the time between two ends, the training in it (the recorded epoch), and the rest.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator

import ferhpo
from ferhpo.driver.ledger import Ledger
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
    args = parser.parse_args()
    ends: dict[int, float] = {}
    first_start: list[float] = []

    def listen(ledger: Ledger) -> None:
        now = time.perf_counter()
        if ledger.running and not first_start:
            first_start.append(now)
        for number in range(max(ends, default=-1) - 3, ledger.study.num_asked):
            if number >= 0 and number not in ends and ledger.study.trial(number).state.is_over:
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


def epoch_seconds(result: SweepResult) -> Iterator[float]:
    for trial in result.sweep.trials():
        yield sum(row["epoch_seconds"] for row in trial.epochs)


if __name__ == "__main__":
    main()
