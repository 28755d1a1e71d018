"""A report panel of your own: a function that returns a Panel for the page of a sweep, or None.

It writes its figures and tables into `folder`. An error in it omits only this panel, and the page says so.
"""

from pathlib import Path

from ferhpo.reports.panel import Panel, write_table
from ferhpo.storage.sweep import Sweep


def starter(sweep: Sweep, folder: Path) -> Panel | None:
    """List the trials that took longest."""
    trials = sorted(sweep.trials(), key=lambda trial: trial.seconds or 0.0, reverse=True)[:5]
    if not trials:
        return None
    rows = [{"trial": trial.number, "seconds": round(trial.seconds or 0.0, 1)} for trial in trials]
    return Panel("Slowest trials", "The trials that took longest.", tables=(write_table(folder / "slowest.csv", rows),))
