"""The current folder, which may be anyone's: keep libraries from obeying a file in it."""

import contextlib
import importlib.util
import os
import sys
from pathlib import Path


def ignore_matplotlibrc() -> None:
    """Import matplotlib in its own folder, if the current one has a file `matplotlibrc`.

    matplotlib obeys such a file before any other and from whomever it came: it can run LaTeX on the user's files and
    import a module, and a pipe of that name would be waited for. Lightning imports matplotlib too, by torchmetrics.
    """
    if "matplotlib" in sys.modules or not os.path.lexists("matplotlibrc"):
        return
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    with contextlib.chdir(Path(spec.origin).parent / "mpl-data"):  # its own matplotlibrc is there
        import matplotlib  # noqa: F401
