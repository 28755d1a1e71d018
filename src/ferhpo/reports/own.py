"""Panels of the user's own, named on the command line (--panel) or in the section `panels` of the configuration.

Note: a fault inside one costs that panel only, and the page says so.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ferhpo.components import own_code
from ferhpo.components.build import as_function
from ferhpo.errors import ConfigError
from ferhpo.reports.panel import Panel
from ferhpo.storage.sweep import Sweep

OwnPanel = Callable[[Any, Path, list[str]], Panel | None]


def of_module(module: str) -> OwnPanel:
    """Return the panel of a module that the command line names: its function of the same name, or `panel`.

    Raises ConfigError if there is none.
    """
    own_code.trusts(module)  # makes the user's folder importable
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError("report", [f"--panel is {module}; there is no module {error.name}"]) from None
    except Exception as error:  # the user's code
        raise ConfigError("report", [f"--panel is {module}, which raised {own_code.reason(error)}"]) from None
    name = module.rpartition(".")[2]
    panel = getattr(found, name, None) or getattr(found, "panel", None)
    if panel is None:
        raise ConfigError("report", [f"--panel is {module}; the module must have a function {name}, or panel"])
    return partial(_show, module, panel)


def of_sweep(sweep: Sweep, missing: list[str]) -> list[OwnPanel]:
    """Return the panels of a sweep's configuration. Those that are not trusted here are named in `missing`."""
    panels: list[OwnPanel] = []
    for name, section in (sweep.config.get("panels") or {}).items():
        try:
            panels.append(partial(_show, name, as_function(section, "panels")))
        except ConfigError as error:
            missing.append(f"Panel {name}: {' '.join(error.faults)}")
    return panels


def _show(name: str, panel: Callable[..., Any], subject: Any, folder: Path, missing: list[str]) -> Panel | None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        made = panel(subject, folder)
    except Exception as error:  # the user's code
        missing.append(f"Panel {name}: {own_code.reason(error)}")
        return None
    if not isinstance(made, Panel | None):
        missing.append(f"Panel {name}: it returned {made!r:.60}; it must return a ferhpo.reports.panel.Panel")
        return None
    return made
