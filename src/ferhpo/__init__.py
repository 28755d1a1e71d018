"""Hyperparameter sweeps with experiment tracking for facial emotion recognition.

The verbs of the command line as functions: `from ferhpo import sweep, load_sweep`. Nothing heavy is imported before a
verb is used.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["check", "compose", "describe_data", "load_sweep", "plan", "promote", "sweep", "sync", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from ferhpo import verbs

        return getattr(verbs, name)
    raise AttributeError(f"module 'ferhpo' has no attribute {name!r}")
