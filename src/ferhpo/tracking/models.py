"""Log an exported model (ferhpo.inference.export) to MLflow as code, tensors and JSON, without pickle."""

import base64
import hashlib
import io
import logging
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping
from importlib.machinery import BYTECODE_SUFFIXES
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import pandas as pd
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from PIL import Image

from ferhpo.components.bundle import model_source, requirements
from ferhpo.components.description import DIGEST_TAG, read_description
from ferhpo.data.io.files import MAX_SIDE
from ferhpo.tracking.upload.places import repository
from ferhpo.tracking.view import rounded

if TYPE_CHECKING:
    from mlflow import MlflowClient

_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "ENDPOINT_NOT_FOUND")
METADATA = ("class_names", "data_digest", "weights_sha256", "scores", "versions")


def log_model(
    client: "MlflowClient",
    experiment_id: str,
    run_id: str,
    model_dir: Path,
    mark: str,
    name: str = "model",
    time_ms: int | None = None,
) -> str:
    """Log the model in `model_dir` under a run and return the model's id.

    mark: the value of the tag `ferhpo.model`, unique to this model; a call with the same mark continues an upload that
        was interrupted, and never makes a second model
    name: shown in the list of models
    time_ms: of the model's metrics, which are its scores; without it there are none
    Raises ValueError if MLflow cannot load the model in the folder, MLflow's errors if the store is unreachable.
    """
    existing = client.search_logged_models([experiment_id], f"tags.`ferhpo.model` = '{mark}'", max_results=1)
    model = existing[0] if existing else None
    if model is None:
        description = read_description(model_dir / "model.json")
        model = client.create_logged_model(
            experiment_id,
            re.sub(r"[^\w -]", "_", name),  # MLflow refuses some other characters
            run_id,
            {"ferhpo.model": mark},
            {"network": description["network"]["name"]},
            "classifier",
        )
    if model.status != "READY":
        with tempfile.TemporaryDirectory(prefix="ferhpo-model-") as folder:
            package(model_dir, Path(folder) / "model")
            uploaded = next((Path(folder) / "model" / "artifacts").glob("*/model.json")).read_bytes()
            client.set_logged_model_tags(model.model_id, {DIGEST_TAG: hashlib.sha256(uploaded).hexdigest()})
            store = repository(client, model.artifact_location, model.model_id)
            store.log_artifacts(str(Path(folder) / "model"), None)
        client.finalize_logged_model(model.model_id, "READY")
    run = client.get_run(run_id)
    if time_ms is not None:
        scores = read_description(model_dir / "model.json").get("scores") or {}
        try:
            _log_scores(client, run, model.model_id, scores, time_ms)
        except MlflowException as error:  # a store that cannot keep them must not lack the model
            if error.error_code not in _REFUSALS:
                raise
    outputs = run.outputs
    if model.model_id not in {output.model_id for output in (outputs.model_outputs if outputs else [])}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


def _log_scores(client: "MlflowClient", run: Any, model_id: str, scores: Mapping[str, Any], time_ms: int) -> None:
    """Log the validation scores of a model, on the data set of its run. MLflow ignores a point that it has already.

    They have names of their own (model/val_acc), which are no points of the run's curves.
    """
    inputs = run.inputs.dataset_inputs if run.inputs else []
    data = {"dataset_name": inputs[0].dataset.name, "dataset_digest": inputs[0].dataset.digest} if inputs else {}
    for key, value in scores.items():
        if key.startswith("val_") and isinstance(value, int | float):
            client.log_metric(run.info.run_id, f"model/{key}", rounded(value), time_ms, 0, model_id=model_id, **data)


def package(model_dir: Path, out_dir: Path) -> None:
    """Write the exported model in `model_dir` to `out_dir` as an MLflow pyfunc model.

    MLflow runs the code of the model. It is generated here, because the folder may come from anyone.
    Raises ValueError if the network is not accepted, or its code does not load.
    """
    description = read_description(model_dir / "model.json")
    # Without a schema of the input: with one, MLflow would refuse lists, files and sizes that the model takes.
    outputs = Schema([ColSpec(DataType.float, name) for name in description["class_names"]])
    code = model_source(description)
    # MLflow logs that it validates the example, and its own code makes pandas warn of a comparison.
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="Operation with range is deprecated")
    copy = out_dir.with_name("files") / model_dir.name
    _copy_regular(model_dir, copy)
    (copy / "model.py").write_text(code, encoding="utf-8")
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # MLflow runs model.py in its folder
    try:
        mlflow.pyfunc.save_model(
            path=str(out_dir),
            python_model=str(copy / "model.py"),
            artifacts={"model": str(copy)},
            signature=ModelSignature(outputs=outputs),
            input_example=_example(description["preprocess"]),
            metadata={key: description[key] for key in METADATA if key in description},
            pip_requirements=[f"{name}=={version(name)}" for name in requirements(code)],
        )
    except MlflowException as error:
        raise ValueError(f"{model_dir}: {error}") from None
    finally:
        sys.dont_write_bytecode = writes_bytecode


def _copy_regular(folder: Path, out: Path) -> None:
    """Copy the regular files of an exported model.

    Links are left out, because they may lead anywhere, and bytecode, because Python would run it instead of model.py.
    """
    for path in sorted(folder.rglob("*")):
        parts = [path, *(parent for parent in path.parents if parent.is_relative_to(folder) and parent != folder)]
        is_code = path.suffix in BYTECODE_SUFFIXES or any(part.name == "__pycache__" for part in parts)
        if path.is_file() and not is_code and not any(part.is_symlink() for part in parts):
            target = out / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _example(preprocess: Mapping[str, Any]) -> pd.DataFrame:
    """Return an input for the served model: a table with one image, the base64 text of a PNG file."""
    side = preprocess["image_size"]
    if not isinstance(side, int) or not 0 < side <= MAX_SIDE:
        raise ValueError(f"preprocess.image_size in model.json is {side!r:.40}; it must be from 1 to {MAX_SIDE:,}")
    size = (side, side)
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("L" if preprocess["channels"] == 1 else "RGB").save(file, "PNG")
    return pd.DataFrame({"image": [base64.b64encode(file.getvalue()).decode()]})
