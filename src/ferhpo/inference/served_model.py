"""The MLflow model of an exported network: images in, a table of class probabilities out.

Note: export.py copies this file into model.py, after the code of the network; ferhpo itself never imports it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from ferhpo.inference.images import images_in
from ferhpo.inference.probabilities import probabilities_of
from ferhpo.models.exported import MEMBERS, load_exported, verify_members
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
        self.class_names = list(description["class_names"])
        self.preprocess = Preprocess.from_dict(description["preprocess"])
        self.hog = globals()["Hog"](**description["hog"]) if description["hog"] is not None else None
        members = description.get("members")
        if members is None:
            self.network = loaded(description, folder)
        else:
            verify_members(description)
            self.network = globals()["Ensemble"](
                [loaded(member, folder / MEMBERS / str(place)) for place, member in enumerate(members)],
                [Preprocess.from_dict(member["preprocess"]) for member in members],
                [member["share"] for member in members],
                [member["hog"] is not None for member in members],
            ).eval()

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


def loaded(description: dict[str, Any], folder: Path) -> torch.nn.Module:
    """Return a network of model.json with the weights in a folder."""
    network = description["network"]
    make = network_class(globals().get(network["name"]), network["name"])
    made = make(**{key: built(value) for key, value in network["arguments"].items()})
    return load_exported(made, folder, description)


def built(value: Any) -> Any:
    """Return an argument of a network; a layer, which is a section with a _target_, is built with its arguments.

    Raises ValueError for anything but layers of torch.nn and of this file: model.json may come from anyone.
    """
    if not isinstance(value, dict) or "_target_" not in value:
        return value
    module, _, name = str(value["_target_"]).rpartition(".")
    layer = globals().get(name) or (getattr(torch.nn, name, None) if module.startswith("torch.nn") else None)
    return network_class(layer, name)(**{key: built(inner) for key, inner in value.items() if key != "_target_"})


def network_class(found: Any, name: str) -> type[torch.nn.Module]:
    """Return a class of networks or layers. Raises ValueError for anything else."""
    if not isinstance(found, type) or not issubclass(found, torch.nn.Module):
        raise ValueError(f"model.json names {name}, which is not a network of this model")
    return found


set_model(ServedModel())
