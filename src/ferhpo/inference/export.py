"""The export of a checkpoint to a model folder that works without ferhpo: tensors, JSON, one Python file, no pickle.

network.safetensors   the weights; for a scikit-learn estimator, estimator.skops instead; for an ensemble, one of these
                      in each of members/0, members/1, ...
model.json            the settings of the network, classes, preprocessing, scores, digests of weights and data, versions
model.py              the code: network, preprocessing, features and MLflow wrapper
"""

import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ferhpo.components.build import locate
from ferhpo.components.bundle import ENSEMBLE, model_source
from ferhpo.components.kinds import is_estimator
from ferhpo.data.features.hog import given_features, hog_of
from ferhpo.models.exported import FITTED, MEMBERS, WEIGHTS
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
    description = {
        **described(content, model_config),
        "class_names": list(content["class_names"]),
        "data_digest": data_digest,
        "scores": dict(content["metrics"] if scores is None else scores),
        "versions": _versions(),
    }
    with _replacing(out_dir) as new:
        description["weights_sha256"] = write_weights(content, model_config, new)
        (new / "model.py").write_text(model_source(description))
        (new / "model.json").write_text(json.dumps(description, indent=2) + "\n")
    return out_dir


def export_ensemble(
    members: Sequence[tuple[Path, Mapping[str, Any], float]],
    out_dir: Path,
    data_digest: str,
    scores: Mapping[str, float],
) -> Path:
    """Write several checkpoints as one model, which returns the mean of their probabilities, and return its folder.

    members: best.ckpt, resolved `model` section and share of each; the shares sum to 1
    Raises ValueError if they do not take the same images or predict the same classes, or if their code cannot be
    copied into one file; SweepError for a damaged checkpoint.
    """
    contents = [read(path) for path, _, _ in members]
    for key, what in (("class_names", "classes"), ("channels", "color channels"), ("image_size", "size of images")):
        values = [content[key] if key in content else content["preprocess"][key] for content in contents]
        if any(list_of(value) != list_of(values[0]) for value in values):
            raise ValueError(f"the members do not have the same {what}; choose trials of one data set")
    described_members = [
        {**described(content, config), "share": share}
        for content, (_, config, share) in zip(contents, members, strict=True)
    ]
    hogs = [member["hog"] for member in described_members if member["hog"] is not None]
    if any(hog != hogs[0] for hog in hogs):
        raise ValueError("the members take different HOG features; choose trials with the same ones")
    first = contents[0]["preprocess"]
    description = {
        "network": {"name": "Ensemble", "target": ENSEMBLE, "arguments": {}},
        "members": described_members,
        "hog": hogs[0] if hogs else None,
        "class_names": list(contents[0]["class_names"]),
        "preprocess": {**first, "input_size": first["image_size"], "normalise": "none", "mean": [], "std": []},
        "data_digest": data_digest,
        "scores": dict(scores),
        "versions": _versions(),
    }
    with _replacing(out_dir) as new:
        for place, (content, (_, config, _)) in enumerate(zip(contents, members, strict=True)):
            folder = new / MEMBERS / str(place)
            folder.mkdir(parents=True)
            described_members[place]["weights_sha256"] = write_weights(content, config, folder)
        digests = "".join(member["weights_sha256"] for member in described_members)
        description["weights_sha256"] = hashlib.sha256(digests.encode()).hexdigest()
        (new / "model.py").write_text(model_source(description))
        (new / "model.json").write_text(json.dumps(description, indent=2) + "\n")
    return out_dir


def list_of(value: Any) -> Any:
    """Return a sequence as a list, so that tuples and lists are equal; other values as they are."""
    return list(value) if isinstance(value, list | tuple) else value


def described(content: Mapping[str, Any], model_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what model.json says of one network: how to build it, its features and its preprocessing."""
    settings = dict(model_config)
    target = str(settings.pop("_target_"))
    locate(target, "model")
    if "weights" in settings:
        settings["weights"] = "none"  # the tensors contain them
    preprocess = content["preprocess"]
    hog = hog_of(settings)
    return {
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
        "preprocess": preprocess,
    }


def write_weights(content: Mapping[str, Any], model_config: Mapping[str, Any], folder: Path) -> str:
    """Write the weights of a checkpoint, and return their digest."""
    if is_estimator(model_config):
        (folder / FITTED).write_bytes(content["network"]["_extra_state"].numpy().tobytes())
    else:
        tensors = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in content["network"].items()}
        save_file(tensors, str(folder / WEIGHTS))
    weights = next(folder / file for file in (FITTED, WEIGHTS) if (folder / file).exists())
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def _versions() -> dict[str, str]:
    packages = {package: version(package) for package in ("ferhpo", "torch", "numpy", "mlflow")}
    return {"python": platform.python_version(), **packages}


@contextmanager
def _replacing(out_dir: Path) -> Iterator[Path]:
    """Yield a new folder, whose files then replace those of `out_dir`, model.json last."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".model-", dir=out_dir.parent) as temporary:
        new = Path(temporary)
        yield new
        shutil.rmtree(out_dir / MEMBERS, ignore_errors=True)
        for file in (MEMBERS, WEIGHTS, FITTED, "model.py", "model.json"):
            if (new / file).exists():
                (new / file).replace(out_dir / file)
            elif file != MEMBERS:
                (out_dir / file).unlink(missing_ok=True)
