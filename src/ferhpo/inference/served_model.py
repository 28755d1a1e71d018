"""What MLflow runs of an exported model: raw images in, class probabilities out.

export.py copies this file behind the network's code into the model's own model.py; ferhpo itself never imports it.
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
    """Answers uint8 images [N, H, W] (grey) or [N, H, W, 3] (colour) with float32 probabilities [N, classes].

    HOG features, where the network takes them, it computes itself.
    The classes are in the order of `class_names` in model.json, which is also in the MLflow model's metadata.
    """

    def load_context(self, context: Any) -> None:
        """Build the network from model.json and its tensors, or the estimator from its skops file."""
        folder = Path(context.artifacts["model"])
        description = json.loads((folder / "model.json").read_text())
        network = description["network"]
        self.num_classes = len(description["class_names"])
        self.preprocess = Preprocess.from_dict(description["preprocess"])
        self.hog = globals()["Hog"](**description["hog"]) if description["hog"] is not None else None
        self.network: torch.nn.Module = globals()[network["name"]](**network["arguments"])
        fitted = folder / "estimator.skops"
        if fitted.exists():  # read by the estimator's own rule, which types it may hold
            state = {"_extra_state": torch.frombuffer(bytearray(fitted.read_bytes()), dtype=torch.uint8)}
        else:
            state = load_file(str(folder / "network.safetensors"))
        self.network.load_state_dict(state)
        self.network.eval()

    # np.ndarray and nothing finer: MLflow reads the hint, and warns at every load where it is missing.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        """Probabilities of `model_input`. Raises ValueError for another type or shape."""
        images = self._checked(model_input)
        answers = [torch.empty(0, self.num_classes)]
        with torch.inference_mode():
            for start in range(0, len(images), BATCH_SIZE):
                batch = images[start : start + BATCH_SIZE]
                features = [] if self.hog is None else [torch.from_numpy(self.hog(batch))]
                pixels = torch.from_numpy(batch.copy())
                pixels_NCHW = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
                answers.append(self.network(self.preprocess(pixels_NCHW), *features).float().softmax(1))
        return torch.cat(answers).numpy()

    def _checked(self, images: Any) -> NDArray[np.uint8]:
        size, channels = self.preprocess.image_size, self.preprocess.channels
        shape = (size, size) if channels == 1 else (size, size, channels)
        wanted = f"uint8 images of shape [N, {', '.join(map(str, shape))}]"
        if not isinstance(images, np.ndarray):
            raise ValueError(f"the input is {type(images).__name__}; this model takes a numpy array: {wanted}")
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            got = f"{images.dtype} of shape [{', '.join(map(str, images.shape))}]"
            raise ValueError(f"the input is {got}; this model takes {wanted}, raw pixels from 0 to 255")
        return images


set_model(ServedModel())
