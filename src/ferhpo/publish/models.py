"""Export trained networks and register the best one."""

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ferhpo.components.description import read_description
from ferhpo.config.folds import KEPT_FOLD
from ferhpo.errors import first_line
from ferhpo.storage.checkpoints import best_checkpoint
from ferhpo.storage.provenance import changes_text
from ferhpo.storage.sweep import Sweep
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.text import markdown
from ferhpo.tracking import Tracker, TrackingSettings, registry


def export(sweep: Sweep, trial: TrialRecord, tracker: Tracker, data_digest: str) -> list[str]:
    """Export the best network of a trial, and record it as the model of the trial's run; return warnings.

    The model's metadata holds the scores of its epoch; for a cross-validated trial it holds the means over the folds,
    because the scores of a single fold depend on its images.
    Raises SweepError if the checkpoint was removed.
    """
    from ferhpo.inference.export import export_model

    checkpoint, folder = best_checkpoint(sweep, trial), sweep.kept_folder(trial.number)
    scores = trial.folds[-1] if trial.folds else next(r for r in trial.epochs if r["epoch"] == trial.best_epoch)
    out = export_model(checkpoint, trial.config["model"], folder / "model", data_digest, scores)
    faults = _own_exports(trial.config, out)
    tracker.log_model(trial.number, out)
    return faults


def _own_exports(config: Mapping[str, Any], model_dir: Path) -> list[str]:
    """Call the user's exports, each with a folder of its own in the model's; return what went wrong."""
    sections = config.get("exports") or {}
    if not sections:
        return []
    import torch

    from ferhpo.components.build import as_function, instantiate
    from ferhpo.models.exported import load_exported

    described = read_description(model_dir / "model.json")
    arguments, preprocess = described["network"]["arguments"], described["preprocess"]
    network = instantiate({"_target_": described["network"]["target"], **arguments}, "model")
    load_exported(network, model_dir, described)
    faults = []
    for name, section in sections.items():
        folder = model_dir / "exports" / str(name)
        if folder.parent != model_dir / "exports" or folder.name in ("", ".", ".."):  # the check refuses such a name
            continue
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        images = torch.zeros(1, preprocess["channels"], preprocess["input_size"], preprocess["input_size"])
        try:
            as_function(section, "exports")(network, images, folder)
        except Exception as error:  # the user's code
            faults.append(f"exports.{name}: {section['_target_']} raised {type(error).__name__}: {first_line(error)}")
    return faults


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
        "ferhpo.split": sweep.meta.get("data", {}).get("split_name", ""),
    }
    description = f"Trial {best.number} of sweep {markdown(sweep.name)}: {sweep.objective.metric} {best.value:.4f}"
    if best.folds:
        tags["ferhpo.fold"] = str(KEPT_FOLD)
        description += f", the mean of {len(best.folds)} folds; this is the network of data.fold={KEPT_FOLD}"
    description += f". {changes}" if (changes := markdown(changes_text(sweep.meta))) else ""
    weights, about = exported_facts(sweep, best, sweep.name, name)
    return name, registry.register(settings, model_id, name, {**tags, **weights}, description, about)


def exported_facts(sweep: Sweep, trial: TrialRecord, sweep_name: str, name: str) -> tuple[dict[str, str], str]:
    """Return the tag with the digest of an exported trial's weights, and the description of the registered model.

    sweep_name: the sweep that the model is named after. Both are empty if the exported files were removed.
    """
    try:
        exported = read_description(sweep.kept_folder(trial.number) / "model" / "model.json")
    except (OSError, ValueError):
        return {}, ""
    digest = exported.get("weights_sha256")  # None in the files of an earlier version
    return {} if digest is None else {registry.WEIGHTS_TAG: digest}, describe(exported, sweep_name, name)


def describe(exported: Mapping[str, Any], sweep_name: str, name: str) -> str:
    """Return the description of a registered model in Markdown: what it takes, what it returns, how to call it.

    exported: the content of model.json
    """
    size, channels = exported["preprocess"]["image_size"], exported["preprocess"]["channels"]
    classes = markdown(", ".join(exported["class_names"]))
    promote = f"ferhpo promote {shlex.quote(sweep_name)}".replace("`", "")
    return f"""Recognizes facial emotions; selected by the ferhpo sweep {markdown(sweep_name)}.

**Input:** face images, gray or color, of any size, cropped as the training images were. The model resizes them to
{size}x{size} pixels, {"gray" if channels == 1 else "color"}. An array `uint8 [N, height, width]` or
`uint8 [N, height, width, 3]`, or a list or a table column `image` of images: arrays, the bytes of PNG or JPEG files, or
their base64 text.

**Output:** a table with a row for each image and a column with the probability of each class: {classes}.

**Call** (needs MLflow and torch, not ferhpo; `{promote}` sets the alias):

```python
import mlflow
model = mlflow.pyfunc.load_model({f"models:/{name}@champion"!r})
model.predict([open("face.png", "rb").read()])
```

or, after `mlflow models serve -m {shlex.quote(f"models:/{name}@champion")}`:

```bash
curl localhost:5000/invocations -H "Content-Type: application/json" \\
  -d "{{\"inputs\": [\"$(base64 -w0 face.png)\"]}}"
```
"""
