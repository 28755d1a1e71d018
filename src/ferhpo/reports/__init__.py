"""Reports: panels with figures and tables, and the HTML page that shows them.

report.py  the verb `report`: collect the panels, write the page
live.py    figures of a sweep that is running
panel.py   Panel
page.py    render panels as one HTML file (page.css)
style.py   colors and sizes of every figure
sweep/     panels of a sweep
trial/     panels of a trial
network/   panels that look inside a network

Note: matplotlib obeys a file `matplotlibrc` in the current folder, before any other and from whomever it came. Such a
file can run LaTeX on the user's files and import a module, and a pipe of that name would be waited for. Importing any
module of this package therefore imports matplotlib in its own folder first, if there is such a file.
"""

import contextlib
import importlib.util
import logging
import os
import sys
from pathlib import Path

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home folder that cannot be written


def _import_matplotlib() -> None:
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    with contextlib.chdir(Path(spec.origin).parent / "mpl-data"):  # its own matplotlibrc is there
        import matplotlib  # noqa: F401


if "matplotlib" not in sys.modules and os.path.lexists("matplotlibrc"):
    _import_matplotlib()
