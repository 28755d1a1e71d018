"""Turns a checkpoint into a folder that answers images anywhere: tensors, JSON, one Python file; no pickle.

network.safetensors   the weights
model.json            the network's settings, classes, preprocessing, scores, the data's digest, versions
model.py              the code: network, preprocessing and MLflow wrapper, needing no ferhpo
"""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ferhpo.inference.bundle import bundle
from ferhpo.training.checkpoint import read

WRAPPER = "ferhpo.inference.served_model"


def export_model(
    checkpoint: Mapping[str, Any] | Path,
    model_config: Mapping[str, Any],
    out_dir: Path,
    data_digest: str,
    scores: Mapping[str, float] | None = None,
) -> Path:
    """Write the model into `out_dir`, replacing what is there, and return `out_dir`.

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
    description = {
        "network": {
            "name": name,
            "arguments": {
                **settings,
                "in_channels": preprocess["channels"],
                "num_classes": len(held["class_names"]),
                "image_size": preprocess["input_size"],
            },
        },
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
    tensors = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in held["network"].items()}
    save_file(tensors, str(out_dir / "network.safetensors"))
    (out_dir / "model.json").write_text(json.dumps(description, indent=2) + "\n")
    (out_dir / "model.py").write_text(bundle((module, WRAPPER)))
    return out_dir
