"""ferhpo and its peers on the same workload, in turn, in one call: whole processes by wall time, and a table.

    python benchmarks/peers.py [--workload reference|asha|real|trivial] [--rounds 3] [--quick]
    python benchmarks/peers.py --workload real --data fer2013.csv --systems ferhpo ray-reuse

Everyone trains the same networks from the same list of learning rates, with the same images, batch size, optimizer and
precision. Each system is a program of its own (peer_parts/), started anew in an empty folder. Two trials run at a time,
on half of the cores each; a system that runs one trial at a time gives it all cores.

    reference  a tutorial: 8 trials of 3 epochs of 4,000 faces, a tiny CNN
    asha       24 trials of up to 6 epochs of 2,000 faces; ASHA, or the peer's own pruner, or none if it has none
    real       6 trials of one epoch of FER2013 (28,709 faces, drawn ones without --data), a ResNet of 33 MMAC
    trivial    120 trials of one epoch of 140 faces of 24x24 pixels, a CNN of two layers: what a trial costs by itself

Counted after each run, and checked: trials and epochs. The share is the seconds of all epochs (with validation) over
the wall time of all slots. The driver's memory is the peak of the process that was started.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from peer_parts.prepare import SIZES, check_same_network, ferhpo_arguments, prepare
from peer_parts.report import conditions, results_path, write
from peer_parts.workload import Workload

from ferhpo.storage.sweep import load_sweep

BENCHMARKS = Path(__file__).resolve().parent
LIMIT_SECONDS = 7200  # of one run
TARGETS = {
    "reference": {"ray-docs": "at most 0.35", "ray-reuse": "at most 0.45", "sequential": "at most 0.45"},
    "real": {"ferhpo": "share at least 0.92"},
}


@dataclass(frozen=True)
class System:
    """A program to compare.

    program: its arguments to Python; none for ferhpo, which is started with a command of its own
    parallel: whether it runs a trial in each slot; prunes: whether it can stop trials early
    hydra: whether it runs in the environment with Hydra's plugins
    """

    title: str
    program: tuple[str, ...] = ()
    parallel: bool = True
    prunes: bool = False
    hydra: bool = False


SYSTEMS = {
    "ferhpo": System("ferhpo", prunes=True),
    "ferhpo-default": System("ferhpo, its default precision", prunes=True),
    "ray-docs": System("Ray Tune as documented", ("-m", "peer_parts.ray_tune"), prunes=True),
    "ray-reuse": System("Ray Tune, reuse_actors=True", ("-m", "peer_parts.ray_tune", "reuse"), prunes=True),
    "sequential": System("sequential Lightning loop", ("-m", "peer_parts.sequential"), parallel=False),
    "hydra-basic": System(
        "Hydra Optuna sweeper, basic launcher", ("-m", "peer_parts.hydra_optuna"), parallel=False, hydra=True
    ),
    "hydra-joblib": System(
        "Hydra Optuna sweeper, joblib launcher",
        ("-m", "peer_parts.hydra_optuna", "hydra/launcher=joblib", "hydra.launcher.n_jobs=SLOTS"),
        hydra=True,
    ),
    "optuna-threads": System("Optuna, n_jobs threads", ("-m", "peer_parts.optuna_threads"), prunes=True),
    "optuna-processes": System("Optuna, processes, JournalStorage", ("-m", "peer_parts.optuna_processes"), prunes=True),
}


@dataclass(frozen=True)
class Run:
    """One run of one system; seconds are wall time, training is the sum over all epochs of all trials."""

    seconds: float
    training: float
    trials: int
    epochs: int
    driver_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=SIZES, default="reference")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--rounds", type=int, help="how often each system runs (default: 3; with --quick: 1)")
    parser.add_argument("--trials", type=int, help="number of trials (default: that of the workload)")
    parser.add_argument("--slots", type=int, default=2, help="trials at a time; --trials must be a multiple of it")
    parser.add_argument("--threads", type=int, help="threads of each trial (default: cores divided by slots)")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--data", type=Path, help="FER2013 for the workload `real`, e.g. fer2013.csv")
    parser.add_argument("--quick", action="store_true", help="a tiny workload, to see that everything runs")
    parser.add_argument(
        "--peers-env",
        type=Path,
        default=Path.home() / ".cache" / "ferhpo-peers",
        help="folder for the environment with Hydra's plugins",
    )
    parser.add_argument("--write", type=Path, help="default: benchmarks/results/[quick/]peers-WORKLOAD.md")
    args = parser.parse_args()
    size = SIZES[args.workload][args.quick]
    size = replace(size, trials=args.trials or size.trials)
    if size.trials % args.slots:
        parser.error(f"--trials is {size.trials}; it must be a multiple of --slots, {args.slots}")
    if args.data and (args.workload != "real" or args.quick):
        parser.error("--data is for --workload real without --quick")
    rounds = args.rounds or (1 if args.quick else 3)

    load = os.getloadavg()[0]
    skipped = {}
    pythons = {False: sys.executable}
    if any(SYSTEMS[name].hydra for name in args.systems):
        try:
            pythons[True] = hydra_environment(args.peers_env / "hydra")
        except (subprocess.SubprocessError, OSError) as error:
            skipped = {name: f"no environment: {last_line(error)}" for name in args.systems if SYSTEMS[name].hydra}
    names = [name for name in args.systems if name not in skipped]

    conditions_at_start = conditions(pythons.get(True), load)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        workload, data_options = prepare(size, args.data, args.precision, args.slots, args.threads, Path(scratch))
        num_parameters, macs = check_same_network(workload, size.image_size)
        for number in range(rounds):
            for name in names:
                if name in skipped:
                    continue
                try:
                    run = run_once(name, workload, data_options, pythons[SYSTEMS[name].hydra], Path(scratch))
                except RuntimeError as error:
                    skipped[name] = f"failed: {error}"
                    print(f"round {number + 1}: {name} {skipped[name]}", flush=True)
                    continue
                runs[name].append(run)
                print(
                    f"round {number + 1}: {name} {run.seconds:.1f} s, {run.trials} trials, {run.epochs} epochs",
                    flush=True,
                )

    command = " ".join(["python benchmarks/peers.py", *sys.argv[1:]])
    write(
        args.write or results_path(f"peers-{args.workload}", args.quick),
        f"Peers, workload {args.workload}{' (quick: a test, not a measurement)' if args.quick else ''}",
        [
            f"`{command}`, {time.strftime('%Y-%m-%d')}: {size.trials} trials of {size.epochs} "
            f"epoch{'s' if size.epochs > 1 else ''}, {size.train:,} training and {size.val:,} validation images "
            f"({'FER2013' if args.data else 'drawn'}), {size.network} of {num_parameters:,} parameters and "
            f"{macs / 1e6:.1f} MMAC, batch size {size.batch_size}, precision {args.precision}, {rounds} "
            f"round{'s' if rounds > 1 else ''}, medians.",
            "",
            *conditions_at_start,
            "",
            *table(args.systems, runs, skipped, workload, TARGETS.get(args.workload, {})),
        ],
    )
    sys.exit(any(reason.startswith("failed") for reason in skipped.values()))


def hydra_environment(folder: Path) -> str:
    """Return the Python of an environment with Hydra's plugins, which need an old Optuna; make it if it is missing.

    torch and Lightning come from the environment of this process, through a .pth file.
    """
    python = folder / "bin" / "python"
    finished = folder / "finished"
    if not finished.exists():
        quiet = {"check": True, "capture_output": True, "text": True, "timeout": 900}
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], **quiet)
        packages = ["hydra-core", "hydra-optuna-sweeper", "hydra-joblib-launcher"]
        subprocess.run([python, "-m", "pip", "install", "--disable-pip-version-check", *packages], **quiet)
        own, main = (
            subprocess.run(
                [executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], **quiet
            ).stdout.strip()
            for executable in (python, sys.executable)
        )
        (Path(own) / "main_environment.pth").write_text(main + "\n")
        finished.touch()
    return str(python)


def start(
    name: str, workload: Workload, data_options: list[str], python: str, scratch: Path
) -> subprocess.Popen[bytes]:
    """Start one system in the empty folder SCRATCH/run, in a process group of its own; it prints into output.txt."""
    system = SYSTEMS[name]
    if not system.parallel:
        workload = replace(workload, slots=1, threads=workload.slots * workload.threads)
    if system.program:
        arguments = [argument.replace("SLOTS", str(workload.slots)) for argument in system.program]
    else:
        precision = "auto" if name == "ferhpo-default" else workload.precision
        arguments = ferhpo_arguments(workload, data_options, precision)
    folder = scratch / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    file = scratch / "workload.json"
    file.write_text(json.dumps(asdict(workload)))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment |= {
        "WORKLOAD": str(file),
        "FERHPO_CACHE_DIR": str(scratch / "cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(BENCHMARKS), os.environ.get("PYTHONPATH")])),
        "RAY_TRAIN_V2_ENABLED": "1",
    }
    with (scratch / "output.txt").open("w") as output:
        return subprocess.Popen(
            [python, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def run_once(name: str, workload: Workload, data_options: list[str], python: str, scratch: Path) -> Run:
    """Run one system to its end. Raises RuntimeError if it fails, or trains something else than the workload."""
    begin = time.perf_counter()
    process = start(name, workload, data_options, python, scratch)
    limit = threading.Timer(LIMIT_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
    limit.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        limit.cancel()
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        printed = (scratch / "output.txt").read_text(errors="replace").strip()
        raise RuntimeError(f"exit status {process.returncode}: {printed[-1500:]}")
    epochs = finished_epochs(scratch / "run")
    run = Run(
        seconds,
        training=sum(epoch_seconds for _, epoch_seconds in epochs),
        trials=len({lr for lr, _ in epochs}),
        epochs=len(epochs),
        driver_mb=usage.ru_maxrss * 1024 / 1e6,
    )
    check(run, SYSTEMS[name], workload)
    return run


def finished_epochs(folder: Path) -> list[tuple[float, float]]:
    """Return learning rate and seconds of each epoch: of a peer's epochs.jsonl, or of ferhpo's sweep."""
    if (folder / "mlruns").is_dir():
        trials = load_sweep(folder / "mlruns" / "demo").trials()
        return [(trial.config["optim"]["lr"], row["epoch_seconds"]) for trial in trials for row in trial.epochs]
    file = folder / "epochs.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [(row["lr"], row["seconds"]) for row in rows]


def check(run: Run, system: System, workload: Workload) -> None:
    """Raise RuntimeError unless every trial was trained, to its last epoch if nothing could stop it."""
    most = len(workload.lrs) * workload.epochs
    least = len(workload.lrs) if workload.prune and system.prunes else most
    if run.trials != len(workload.lrs) or not least <= run.epochs <= most:
        raise RuntimeError(
            f"it trained {run.trials} of {len(workload.lrs)} trials and {run.epochs} epochs, not {least} to {most}"
        )


def table(
    names: list[str], runs: dict[str, list[Run]], skipped: dict[str, str], workload: Workload, targets: dict[str, str]
) -> list[str]:
    """Return the lines of the table. The ratio is ferhpo's time over the system's, in the same precision."""
    lines = [
        "| system | median s | all, s | ferhpo takes of it | target | trials | epochs | trials at a time x threads "
        "| training share of the slots | driver, MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    medians = {name: statistics.median(run.seconds for run in found) for name, found in runs.items() if found}
    for name in names:
        system = SYSTEMS[name]
        if name in skipped:
            reason = " ".join(skipped[name].replace("|", "/").split())[-300:]
            lines.append(f"| {system.title} | {reason} | | | | | | | | |")
            continue
        found = runs[name]
        slots = workload.slots if system.parallel else 1
        ratio = f"{medians['ferhpo'] / medians[name]:.2f}" if "ferhpo" in medians and name != "ferhpo" else ""
        share = statistics.median(run.training / (slots * run.seconds) for run in found)
        least, most = min(run.epochs for run in found), max(run.epochs for run in found)
        cells = [
            system.title,
            f"{medians[name]:.1f}",
            " ".join(f"{run.seconds:.1f}" for run in found),
            ratio,
            targets.get(name, ""),
            found[0].trials,
            most if least == most else f"{least} to {most}",
            f"{slots} x {workload.slots * workload.threads // slots}",
            f"{share:.2f}",
            f"{statistics.median(run.driver_mb for run in found):.0f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def last_line(error: Exception) -> str:
    """Return the last line that a failed program printed, or the error itself."""
    output = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
    return (output.strip() or str(error)).splitlines()[-1]


if __name__ == "__main__":
    main()
