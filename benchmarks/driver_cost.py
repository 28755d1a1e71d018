"""What the driver itself spends on a trial of no work, and whether that grows with the number of trials: one command.

    python benchmarks/driver_cost.py [--trials 10000]

Each trial is sampled at random, reported for one epoch and ended as complete, through the study, the ledger, the spool
and the removal of checkpoints; no Ray, no network, no upload. Printed: milliseconds of processor time a trial in each
tenth of the sweep, the ratio of the last tenth to the first, and the memory of the process.
"""

import argparse
import copy
import resource
import tempfile
import time
from pathlib import Path

from ferhpo.config.compose import compose
from ferhpo.driver.ledger import CONTINUE, Ledger
from ferhpo.driver.retention import Keeper
from ferhpo.storage.study.sweep_study import SweepStudy
from ferhpo.storage.sweep import create_sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    num_trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as folder:
        times = run(Path(folder), num_trials)
    for tenth, milliseconds in enumerate(times, 1):
        print(f"trials to {tenth * num_trials // 10:>6,}: {milliseconds:6.2f} ms a trial")
    print(f"last tenth / first tenth: {times[-1] / times[0]:.2f}")
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


def run(folder: Path, num_trials: int) -> list[float]:
    """Play a sweep and return the milliseconds of processor time per trial, in each tenth of it."""
    composed = copy.deepcopy(compose("demo", [f"num_trials={num_trials}", "sampler=random", f"output_dir={folder}"]))
    sweep = create_sweep(composed)
    study = SweepStudy(sweep.folder, sweep.space(), sweep.config["sampler"], 0, sweep.objective)
    tracker = Tracker(sweep.folder, sweep.tracking)
    tracker.open_sweep(sweep.name, {}, {}, "")
    keeper = Keeper(sweep, lambda trial: True)

    def ended(trial: TrialRecord) -> None:
        keeper.measure(trial.number)
        keeper.tidy([trial])
        if not ledger.is_finished:
            keeper.check_space(num_slots=2)

    ledger = Ledger(sweep, study, tracker, num_trials, on_end=ended)
    times, began = [], time.process_time()
    for number in range(num_trials):
        trial = ledger.next_trial()
        assert trial is not None
        ledger.start(trial.number)
        ledger.report_facts(trial.number, {"device": "cpu (1 threads)", "num_parameters": 1000})
        value = (number * 7919 % 1000) / 1000
        metrics = {"train_loss": 1.0, "train_acc": value, "val_loss": 1.0, "val_acc": value, "epoch_seconds": 0.1}
        ledger.report(trial.number, 1, metrics, lambda: CONTINUE)
        ledger.ended(trial.number, "COMPLETE")  # type: ignore[arg-type]
        if (number + 1) % (num_trials // 10) == 0:
            times.append(1000 * (time.process_time() - began) / (num_trials // 10))
            began = time.process_time()
    tracker.close(0)
    study.close()
    return times


if __name__ == "__main__":
    main()
