"""A trained network as an MLflow model on this machine, to be served. Its code is generated here, never downloaded."""

from collections.abc import Sequence
from pathlib import Path

from ferhpo.errors import SweepError
from ferhpo.evaluation.load import find_local
from ferhpo.evaluation.versions import find_version, signature_required
from ferhpo.storage.checkpoints import best_checkpoint


def servable(
    model: str,
    out_dir: Path,
    stores: Sequence[str] = (),
    output_dir: str | Path = "mlruns",
    config_dir: Path | None = None,
) -> tuple[Path, list[str]]:
    """Write a trained network into `out_dir` as an MLflow model, and return its folder, and warnings.

    model: SWEEP (its best trial), SWEEP/7, models:/NAME@ALIAS or models:/NAME/VERSION; the latter are verified
    stores: overrides tracking.KEY=... that select the store of models:/, and security.require_signature=true
    Raises SweepError, TrackingError, ConfigError.
    """
    from ferhpo.inference.export import export_model
    from ferhpo.tracking import fetch
    from ferhpo.tracking.models import package

    warnings: list[str] = []
    if model.startswith("models:"):
        is_required, stores = signature_required(stores)
        settings, version = find_version(model, output_dir, stores, config_dir)
        exported = fetch.fetch_export(settings, version, out_dir / "fetched", is_required, warnings)
    else:
        sweep, trial, _ = find_local(model, output_dir)
        digest = str(sweep.meta.get("data", {}).get("digest", ""))
        exported = export_model(best_checkpoint(sweep, trial), trial.config["model"], out_dir / "model", digest)
    try:
        package(exported, out_dir / "served")
    except ValueError as error:
        raise SweepError(f"{model} cannot be served: {error}") from None
    return out_dir / "served", warnings
