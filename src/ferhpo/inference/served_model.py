"""The MLflow model of an exported network: images in, a table of class probabilities out.

Note: export.py copies this file into model.py, after the code of the network; ferhpo itself never imports it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from safetensors.torch import load

from ferhpo.inference.images import images_in
from ferhpo.inference.probabilities import probabilities_of
from ferhpo.scoring.preprocess import Preprocess


class ServedModel(PythonModel):
    """Predict a table of probabilities, float32, with a row for each image and a column for each class.

    The input is an array of images uint8 [N, H, W] (gray) or [N, H, W, 3] (color) of any size, or a list or a table
    column of images: arrays, bytes of PNG or JPEG files, or their base64 text. Images are resized and turned gray as
    the training images were; HOG features are computed here if the network takes them.
    """

    def load_context(self, context: Any) -> None:
        """Build the network from model.json and its tensors, or the estimator from model.json and its skops file."""
        folder = Path(context.artifacts["model"])
        description = json.loads((folder / "model.json").read_text())
        network = description["network"]
        self.class_names = list(description["class_names"])
        self.preprocess = Preprocess.from_dict(description["preprocess"])
        self.hog = globals()["Hog"](**description["hog"]) if description["hog"] is not None else None
        self.network: torch.nn.Module = globals()[network["name"]](**network["arguments"])
        fitted = folder / "estimator.skops"
        path = fitted if fitted.exists() else folder / "network.safetensors"
        content = verified_content(path, description)
        if fitted.exists():  # the estimator checks which types it may contain
            state = {"_extra_state": torch.frombuffer(bytearray(content), dtype=torch.uint8)}
        else:
            state = load(content)
        self.network.load_state_dict(state)
        self.network.eval()

    # Without a type hint MLflow warns at every load; of the types that it knows, only an array says nothing false.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> pd.DataFrame:
        """Return the probabilities for the images. Raises MlflowException, with one sentence, for anything else."""
        try:
            images = images_in(model_input)
            found = probabilities_of(self.network, self.preprocess, self.hog, images, len(self.class_names))
        except ValueError as error:  # the scoring server shows the text of its own exceptions only
            raise MlflowException.invalid_parameter_value(str(error)) from None
        index = model_input.index if isinstance(model_input, pd.DataFrame | pd.Series) else None
        return pd.DataFrame(found, columns=self.class_names, index=index)


def verified_content(path: Path, description: Mapping[str, Any]) -> bytes:
    """Return the content of the file of weights. Raises ValueError if its digest is not the one in model.json.

    A model.json without a digest was written by an earlier version; its weights cannot be verified.
    """
    content = path.read_bytes()
    expected, found = description.get("weights_sha256"), hashlib.sha256(content).hexdigest()
    if expected not in (None, found):
        raise ValueError(
            f"{path} has the sha256 {found}; model.json says {expected}, so the weights were damaged or changed; "
            "restore the file from a copy, or export the model again"
        )
    return content


set_model(ServedModel())
