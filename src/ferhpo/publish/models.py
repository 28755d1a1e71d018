"""Export trained networks and register the best one."""

from ferhpo.config.folds import KEPT_FOLD
from ferhpo.storage.checkpoints import best_checkpoint
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.tracking import Tracker, TrackingSettings, registry


def export(record: Sweep, trial: TrialRecord, tracker: Tracker, data_digest: str) -> None:
    from ferhpo.inference.export import export_model

    checkpoint, folder = best_checkpoint(record, trial), record.kept_folder(trial.number)
    config = trial.config
    # Of a cross-validated trial the means over its folds: those of the kept fold alone would be luck.
    scores = trial.folds[-1] if trial.folds else next(r for r in trial.epochs if r["epoch"] == trial.best_epoch)
    out = export_model(checkpoint, config["model"], folder / "model", data_digest, scores)
    tracker.log_model(trial.number, out)


def register(
    record: Sweep, best: TrialRecord | None, tracker: Tracker, settings: TrackingSettings
) -> tuple[str, int] | None:

    model_id = None if best is None or settings.off else tracker.model_id(best.number)
    if best is None or model_id is None:
        return None
    name = settings.registered_name(record.name)
    tags = {
        "ferhpo.sweep": record.name,
        "ferhpo.trial": str(best.number),
        "ferhpo.split": record.meta["data"]["split_name"],
    }
    description = f"Trial {best.number} of sweep {record.name}: {record.objective.metric} {best.value:.4f}"
    if best.folds:
        tags["ferhpo.fold"] = str(KEPT_FOLD)
        description += f", the mean of {len(best.folds)} folds; this is the network of data.fold={KEPT_FOLD}"
    return name, registry.register(settings, model_id, name, tags, description)
