"""The MLflow model of an exported network: raw images in, class probabilities out.

Note: export.py copies this file into model.py, after the code of the network; ferhpo itself never imports it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from numpy.typing import NDArray
from safetensors.torch import load_file

from ferhpo.scoring.preprocess import Preprocess

BATCH_SIZE = 256


class ServedModel(PythonModel):
    """Predict float32 probabilities [N, classes] for uint8 images [N, H, W] (gray) or [N, H, W, 3] (color).

    The classes have the order of `class_names` in model.json, which the metadata of the MLflow model also contain. HOG
    features are computed here if the network takes them.
    """

    def load_context(self, context: Any) -> None:
        """Build the network from model.json and its tensors, or the estimator from model.json and its skops file."""
        folder = Path(context.artifacts["model"])
        description = json.loads((folder / "model.json").read_text())
        network = description["network"]
        self.num_classes = len(description["class_names"])
        self.preprocess = Preprocess.from_dict(description["preprocess"])
        self.hog = globals()["Hog"](**description["hog"]) if description["hog"] is not None else None
        self.network: torch.nn.Module = globals()[network["name"]](**network["arguments"])
        fitted = folder / "estimator.skops"
        if fitted.exists():  # the estimator checks which types it may contain
            state = {"_extra_state": torch.frombuffer(bytearray(fitted.read_bytes()), dtype=torch.uint8)}
        else:
            state = load_file(str(folder / "network.safetensors"))
        self.network.load_state_dict(state)
        self.network.eval()

    # The hint must be plain np.ndarray: MLflow reads it, and warns at every load if it is missing.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        """Return the probabilities for `model_input`. Raises ValueError for another type or shape."""
        images = self._checked(model_input)
        probabilities = [torch.empty(0, self.num_classes)]
        with torch.inference_mode():
            for start in range(0, len(images), BATCH_SIZE):
                batch = images[start : start + BATCH_SIZE]
                features = [] if self.hog is None else [torch.from_numpy(self.hog(batch))]
                pixels = torch.from_numpy(batch.copy())
                pixels_NCHW = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
                probabilities.append(self.network(self.preprocess(pixels_NCHW), *features).float().softmax(1))
        return torch.cat(probabilities).numpy()

    def _checked(self, images: Any) -> NDArray[np.uint8]:
        size, channels = self.preprocess.image_size, self.preprocess.channels
        shape = (size, size) if channels == 1 else (size, size, channels)
        expected = f"uint8 images of shape [N, {', '.join(map(str, shape))}]"
        if not isinstance(images, np.ndarray):
            raise ValueError(f"the input is {type(images).__name__}; it must be a numpy array: {expected}")
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            given = f"{images.dtype} of shape [{', '.join(map(str, images.shape))}]"
            raise ValueError(f"the input is {given}; it must be {expected}, raw pixels from 0 to 255")
        return images


set_model(ServedModel())
