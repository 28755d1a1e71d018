"""Set an alias of the model that a sweep registered (the verb `promote`)."""

from typing import TYPE_CHECKING

from ferhpo.storage.sweep import load_sweep

if TYPE_CHECKING:
    from ferhpo.tracking.registry import Promotion


def promote(name: str, alias: str = "champion", version: int | None = None, output_dir: str = "mlruns") -> "Promotion":
    """Set an alias to a version of the model that sweep `name` registered.

    version: by default the newest one of this sweep or of a confirmation of it; other sweeps may use the same name
    """
    from ferhpo.tracking import registry

    sweep = load_sweep(name, output_dir)
    name = sweep.tracking.registered_name(sweep.name)
    return registry.promote(sweep.tracking, name, version, alias, sweep.name)


def store_of(name: str, output_dir: str = "mlruns") -> str:
    """Return the address of a sweep's MLflow store, without its password."""
    return load_sweep(name, output_dir).tracking.shown_uri
