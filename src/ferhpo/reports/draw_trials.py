"""Draw the figures of trials in processes of their own: `python -m ferhpo.reports.draw_trials`.

matplotlib takes half a second for the two figures of a trial, and would hold the driver's interpreter lock meanwhile.
The driver writes one line of JSON for each trial to standard input; a process answers with the number of each trial
whose figures are complete.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ferhpo.states import TrialState
from ferhpo.storage.trial_record import TrialRecord

CURVES, CONFUSION = "curves.png", "confusion.png"
MOST_PROCESSES = 4


def job_of(trial: TrialRecord, folder: Path, kept: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a process needs for the figures of a trial, as JSON values.

    kept: `class_names` and `confusion` of its best checkpoint, if it has one
    """
    return {
        "folder": str(folder),
        "number": trial.number,
        "epochs": trial.epochs,
        "best_epoch": trial.best_epoch,
        "kept": kept,
    }


def draw(jobs: Iterable[dict[str, Any]], num_processes: int) -> Iterator[int]:
    """Draw the figures of trials in other processes; yield the number of each trial when they are complete.

    Raises RuntimeError with what a process printed if one of them failed; the others' figures are complete then.
    """
    lines = [json.dumps(job) + "\n" for job in jobs]
    command = [sys.executable, "-P", "-m", "ferhpo.reports.draw_trials"]
    shares = [lines[start::num_processes] for start in range(min(num_processes, len(lines)))]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in shares
    ]
    results: list[tuple[str, str]] = [("", "")] * len(shares)

    def run(index: int) -> None:
        results[index] = processes[index].communicate("".join(shares[index]))

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(shares))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    for output, _ in results:
        yield from (int(line) for line in output.split())
    for process, (_, errors) in zip(processes, results, strict=True):
        if process.returncode:
            raise RuntimeError((errors.strip().splitlines() or [f"exit status {process.returncode}"])[-1])


def _draw_trial(job: dict[str, Any]) -> None:
    import numpy as np

    from ferhpo.reports.trial import confusion, curves

    folder = Path(job["folder"])
    trial = TrialRecord(job["number"], TrialState.COMPLETE, {}, 0, epochs=job["epochs"], best_epoch=job["best_epoch"])
    folder.mkdir(parents=True, exist_ok=True)
    if job["kept"] is not None:
        matrix = np.asarray(job["kept"]["confusion"])
        confusion.draw(folder / CONFUSION, matrix, job["kept"]["class_names"], ["images", "shares"])
    # The curves come last: for a resumed sweep their file means that all figures of the trial are drawn.
    curves.draw(folder / CURVES, trial, ["acc", "loss"])


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        _draw_trial(job)
        print(job["number"], flush=True)


if __name__ == "__main__":
    main()
