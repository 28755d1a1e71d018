"""Every recipe on the real FER2013, reduced as `# reduced:` in its header says: a row of the results page each.

    python benchmarks/recipes.py fer2013.csv [NAME ...] [--ckplus CK48 --sfew SFEW] [--full] [--output-dir recipes]

The reduced forms are for two CPU cores; `--full` runs the recipes as they stand, for a GPU. Each run is the command
that a user would type, in a process of its own. A recipe whose sweep is in the output folder is resumed, not repeated.
Recipes on merged data need CK+, and SFEW, which stands in for AffectNet; without them they are left out.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from ferhpo.config.compose import compose
from ferhpo.config.files import sweep_files
from ferhpo.storage.meta import META
from ferhpo.storage.sweep import Sweep, load_sweep

MERGED = "mammadov2022_merged"


def reduced_overrides(path: Path) -> list[str]:
    """What the header of a recipe says to change where there is no GPU."""
    found = re.search(r"^# reduced:((?: .*\n)(?:#  .*\n)*)", path.read_text(), re.MULTILINE)
    return found.group(1).replace("#", " ").split() if found else []


def data_overrides(name: str, args: argparse.Namespace) -> list[str]:
    """Where the data are; empty for a recipe whose data are not all given."""
    if not name.startswith(MERGED):
        return [f"data.path={args.data.resolve()}"]
    if args.ckplus is None or args.sfew is None:
        return []
    merge = {"ckplus": args.ckplus.resolve(), "sfew": args.sfew.resolve(), "affectnet": "null"}
    return [f"data.main.path={args.data.resolve()}", *(f"data.merge.{key}.path={path}" for key, path in merge.items())]


def run(name: str, overrides: list[str], output_dir: Path) -> tuple[Sweep, float]:
    """Run a recipe as a user would; returns its record and the wall time in seconds."""
    verb = "sweep" if compose(name).config["space"] else "train"
    command = [sys.executable, "-m", "ferhpo", verb, "--json"]
    if (output_dir / name / META).exists():
        command += ["--resume", name, f"output_dir={output_dir}"]
    else:
        command += [name, f"output_dir={output_dir}", *overrides]
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return load_sweep(name, output_dir), time.perf_counter() - begin


def row(record: Sweep, reduced: list[str], seconds: float) -> str:
    """A row of markdown: recipe, value, accuracy in training, trials, how reduced, minutes."""
    best = record.best()
    assert best is not None, f"{record.name}: no trial is complete"
    kept = best.folds[-1] if best.folds else best.epochs[(best.best_epoch or 1) - 1]
    values = [f"{100 * kept[key]:.2f} %" for key in ("val_acc", "train_acc")]
    how = " ".join(f"`{text}`" for text in reduced) or "no"
    return f"| {record.name} | {' | '.join(values)} | {len(record.trials())} | {how} | {seconds / 60:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--ckplus", type=Path)
    parser.add_argument("--sfew", type=Path)
    parser.add_argument("--full", action="store_true", help="as the recipes stand")
    parser.add_argument("--output-dir", type=Path, default=Path("recipes"))
    args = parser.parse_args()
    files = {name: path for name, path in sweep_files().items() if name != "demo"}
    print("| recipe | val_acc | train_acc | trials | reduced | minutes |\n|---|---|---|---|---|---|", flush=True)
    for name in args.names or files:
        reduced, data = [] if args.full else reduced_overrides(files[name]), data_overrides(name, args)
        if not data:
            continue
        record, seconds = run(name, [*data, *reduced], args.output_dir.resolve())
        print(row(record, reduced, seconds), flush=True)


if __name__ == "__main__":
    main()
