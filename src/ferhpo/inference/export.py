"""Turns a checkpoint into a folder that answers images anywhere: tensors, JSON, one Python file; no pickle.

network.safetensors   the weights; of one of scikit-learn's estimators estimator.skops instead
model.json            the network's settings, classes, preprocessing, scores, the data's digest, versions
model.py              the code: network, preprocessing, features and MLflow wrapper, needing no ferhpo
"""

import json
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ferhpo.config.model_section import given_features, hog_of, is_estimator
from ferhpo.inference.bundle import bundle
from ferhpo.training.checkpoint import read

WEIGHTS, FITTED = "network.safetensors", "estimator.skops"
WRAPPER = "ferhpo.inference.served_model"


def export_model(
    checkpoint: Mapping[str, Any] | Path,
    model_config: Mapping[str, Any],
    out_dir: Path,
    data_digest: str,
    scores: Mapping[str, float] | None = None,
) -> Path:
    """Write the model into `out_dir`, replacing what is there by renames, model.json last, and return `out_dir`.

    checkpoint: a best.ckpt, or what ferhpo.training.checkpoint.read makes of it
    model_config: the resolved `model` section, with its _target_ under ferhpo.models
    scores: what is known of its quality; the checkpoint's metrics where None

    Raises ValueError for a network from elsewhere, whose code could not be copied, SweepError for a damaged file.
    """
    held = read(checkpoint) if isinstance(checkpoint, Path) else checkpoint
    settings = dict(model_config)
    module, _, name = str(settings.pop("_target_")).rpartition(".")
    if not module.startswith("ferhpo.models."):
        raise ValueError(f"model._target_ is {module}.{name}; only a network under ferhpo.models can be exported")
    if "weights" in settings:
        settings["weights"] = "none"  # they are in the tensors
    preprocess = held["preprocess"]
    hog = hog_of(settings)
    description = {
        "network": {
            "name": name,
            "arguments": {
                **settings,
                "in_channels": preprocess["channels"],
                "num_classes": len(held["class_names"]),
                "image_size": preprocess["input_size"],
                **given_features(settings, preprocess["image_size"]),
            },
        },
        "hog": None if hog is None else asdict(hog),
        "class_names": list(held["class_names"]),
        "preprocess": preprocess,
        "data_digest": data_digest,
        "scores": dict(held["metrics"] if scores is None else scores),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("ferhpo", "torch", "numpy", "mlflow")},
        },
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".model-", dir=out_dir.parent) as name:
        made = Path(name)
        if is_estimator(model_config):
            (made / FITTED).write_bytes(held["network"]["_extra_state"].numpy().tobytes())
        else:
            tensors = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in held["network"].items()}
            save_file(tensors, str(made / WEIGHTS))
        (made / "model.py").write_text(
            bundle((module, *([] if hog is None else ["ferhpo.data.features.hog"]), WRAPPER))
        )
        (made / "model.json").write_text(json.dumps(description, indent=2) + "\n")
        for file in (WEIGHTS, FITTED, "model.py", "model.json"):
            if (made / file).exists():
                (made / file).replace(out_dir / file)
            else:
                (out_dir / file).unlink(missing_ok=True)
    return out_dir
