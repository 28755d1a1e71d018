"""Hyperparameter sweeps with experiment tracking for facial emotion recognition.

The verbs of the command line are functions here: `from ferhpo import sweep, load_sweep`. Importing the package is
cheap: each function imports what it needs when it is first used.
"""

from importlib import import_module
from typing import Any

from ferhpo.current_folder import ignore_matplotlibrc
from ferhpo.text import escape_logs

__version__ = "0.1.0"
_WHERE = {
    "check": "config.validate",
    "compare": "evaluation.compare",
    "compose": "config.compose",
    "confirm": "confirmation.confirm",
    "describe_data": "trial.load_data",
    "doctor": "cli.doctor",
    "ensemble": "evaluation.ensemble",
    "evaluate": "evaluation.evaluate",
    "list_sweeps": "storage.listing",
    "load_model": "evaluation.load",
    "load_sweep": "storage.sweep",
    "plan": "tuning.plan",
    "predict": "evaluation.predict",
    "promote": "promotion.promote",
    "report": "reports.report",
    "rollback": "promotion.promote",
    "sweep": "tuning.sweep",
    "sync": "publish.sync",
    "train": "tuning.train",
}
__all__ = list(_WHERE)
escape_logs("ferhpo")
ignore_matplotlibrc()


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"ferhpo.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'ferhpo' has no attribute {name!r}")
