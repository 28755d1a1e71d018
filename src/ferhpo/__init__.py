"""Hyperparameter sweeps with experiment tracking for facial emotion recognition.

The verbs of the command line as functions: `from ferhpo import sweep, load_sweep`. Nothing heavy is imported before a
verb is used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_WHERE = {
    "check": "verbs",
    "compose": "composing",
    "confirm": "confirming",
    "describe_data": "verbs",
    "doctor": "verbs",
    "evaluate": "evaluating",
    "list_sweeps": "verbs",
    "load_sweep": "record",
    "plan": "verbs",
    "promote": "verbs",
    "report": "verbs",
    "sweep": "running",
    "sync": "verbs",
    "train": "running",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"ferhpo.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'ferhpo' has no attribute {name!r}")
