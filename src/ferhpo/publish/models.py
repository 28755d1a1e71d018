"""Export trained networks and register the best one."""

from ferhpo.config.folds import KEPT_FOLD
from ferhpo.storage.checkpoints import best_checkpoint
from ferhpo.storage.provenance import changes_text
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings, registry


def export(sweep: Sweep, trial: TrialRecord, tracker: Tracker, data_digest: str) -> None:
    """Export the best network of a trial, and record it as the model of the trial's run.

    The model's metadata holds the scores of its epoch; for a cross-validated trial it holds the means over the folds,
    because the scores of a single fold depend on its images.
    Raises SweepError if the checkpoint was removed.
    """
    from ferhpo.inference.export import export_model

    checkpoint, folder = best_checkpoint(sweep, trial), sweep.kept_folder(trial.number)
    scores = trial.folds[-1] if trial.folds else next(r for r in trial.epochs if r["epoch"] == trial.best_epoch)
    out = export_model(checkpoint, trial.config["model"], folder / "model", data_digest, scores)
    tracker.log_model(trial.number, out)


def register(
    sweep: Sweep, best: TrialRecord | None, tracker: Tracker, settings: TrackingSettings
) -> tuple[str, int] | None:
    """Register the best trial's model, and return the name and version that it has in the registry.

    Returns None if there is no best trial, or its model is not in MLflow (yet). Raises TrackingError.
    """
    model_id = None if best is None or settings.off else tracker.model_id(best.number)
    if best is None or model_id is None:
        return None
    name = settings.registered_name(sweep.name)
    tags = {
        "ferhpo.sweep": sweep.name,
        "ferhpo.trial": str(best.number),
        "ferhpo.split": sweep.meta["data"]["split_name"],
    }
    description = f"Trial {best.number} of sweep {sweep.name}: {sweep.objective.metric} {best.value:.4f}"
    description += f". {changes}" if (changes := changes_text(sweep.meta)) else ""
    if best.folds:
        tags["ferhpo.fold"] = str(KEPT_FOLD)
        description += f", the mean of {len(best.folds)} folds; this is the network of data.fold={KEPT_FOLD}"
    return name, registry.register(settings, model_id, name, tags, description)
