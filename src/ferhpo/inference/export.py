"""The export of a checkpoint to a model folder that works without ferhpo: tensors, JSON, one Python file, no pickle.

network.safetensors   the weights; for a scikit-learn estimator, estimator.skops instead
model.json            the settings of the network, classes, preprocessing, scores, digests of weights and data, versions
model.py              the code: network, preprocessing, features and MLflow wrapper
"""

import hashlib
import json
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ferhpo.components.build import locate
from ferhpo.components.bundle import model_source
from ferhpo.components.kinds import is_estimator
from ferhpo.data.features.hog import given_features, hog_of
from ferhpo.models.exported import FITTED, WEIGHTS
from ferhpo.training.checkpoint import read


def export_model(
    checkpoint: Mapping[str, Any] | Path,
    model_config: Mapping[str, Any],
    out_dir: Path,
    data_digest: str,
    scores: Mapping[str, float] | None = None,
) -> Path:
    """Write the model to `out_dir` and return it; existing files are replaced by renames, model.json last.

    checkpoint: a best.ckpt, or the result of ferhpo.training.checkpoint.read
    model_config: the resolved `model` section
    scores: the scores of the model; None for the metrics of the checkpoint
    Raises ValueError for a network whose code cannot be copied (see components.bundle), SweepError for a damaged file.
    """
    content = read(checkpoint) if isinstance(checkpoint, Path) else checkpoint
    settings = dict(model_config)
    target = str(settings.pop("_target_"))
    locate(target, "model")
    if "weights" in settings:
        settings["weights"] = "none"  # the tensors contain them
    preprocess = content["preprocess"]
    hog = hog_of(settings)
    description = {
        "network": {
            "name": target.rpartition(".")[2],
            "target": target,
            "arguments": {
                **settings,
                "in_channels": preprocess["channels"],
                "num_classes": len(content["class_names"]),
                "image_size": preprocess["input_size"],
                **given_features(settings, preprocess["image_size"]),
            },
        },
        "hog": None if hog is None else asdict(hog),
        "class_names": list(content["class_names"]),
        "preprocess": preprocess,
        "data_digest": data_digest,
        "scores": dict(content["metrics"] if scores is None else scores),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("ferhpo", "torch", "numpy", "mlflow")},
        },
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".model-", dir=out_dir.parent) as temporary:
        new = Path(temporary)
        if is_estimator(model_config):
            (new / FITTED).write_bytes(content["network"]["_extra_state"].numpy().tobytes())
        else:
            tensors = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in content["network"].items()}
            save_file(tensors, str(new / WEIGHTS))
        weights = next(new / file for file in (FITTED, WEIGHTS) if (new / file).exists())
        description["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        (new / "model.py").write_text(model_source(description))
        (new / "model.json").write_text(json.dumps(description, indent=2) + "\n")
        for file in (WEIGHTS, FITTED, "model.py", "model.json"):
            if (new / file).exists():
                (new / file).replace(out_dir / file)
            else:
                (out_dir / file).unlink(missing_ok=True)
    return out_dir
