"""scikit-learn's decision tree, linear SVM and linear discriminant analysis, with the interface of a network.

Note: an estimator has no torch parameters. The fitted estimator is stored in the state dict as the bytes of a skops
file, never as a pickle; only the types allowed below are loaded from it.
"""

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import skops.io
import torch
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._tree import Tree
from torch import Tensor, nn

from ferhpo.models.files.skops_file import are_numbers, check_skops
from ferhpo.models.layers import check_choice, check_int

FEATURES = ("pixels", "hog")
# In addition to numpy arrays and the public classes of scikit-learn, which skops trusts by default.
TRUSTED = ["sklearn.tree._tree.Tree"]
# The same value as in scikit-learn's log_loss; a tree often predicts a probability of zero.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)


class Estimator(nn.Module, ABC):
    """Classify images with an estimator on their pixels or HOG features. Call `fit` before the estimator itself.

    Forward: float [N, C, H, W], and features float [N, num_features] if it takes them, to log probabilities
    [N, num_classes]. in_channels, num_classes, image_size and num_features come from the data.
    Raises ValueError for a setting out of range.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: int,
        num_features: int,
        features: str,
        hog: Mapping[str, int] | None,
    ) -> None:
        super().__init__()
        check_choice("features", features, FEATURES)
        if features == "hog" and hog is None:
            raise ValueError("features is hog, but hog is null; set it, e.g. hog={orientations: 9}")
        check_int("num_features", num_features, at_least=1 if features == "hog" else 0)
        self.num_classes = num_classes
        self.num_image_features = num_features if features == "hog" else 0
        self.num_inputs = self.num_image_features or in_channels * image_size**2
        self.fitted: Any = None

    @abstractmethod
    def make(self, seed: int) -> Any:
        """Return the unfitted scikit-learn estimator."""

    @abstractmethod
    def cost(self) -> dict[str, int]:
        """Return num_parameters of the fitted estimator, and macs per image if it computes products."""

    @abstractmethod
    def is_right(self, fitted: Any) -> bool:
        """Return whether the numbers of a loaded estimator are those of a fit. Its type is right."""

    def probabilities(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probabilities [N, number of classes in training] for inputs [N, num_inputs]."""
        probabilities: NDArray[np.float64] = self.fitted.predict_proba(inputs)
        return probabilities

    def fit(self, inputs: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> None:
        """Fit the estimator to inputs [N, num_inputs], as returned by `inputs_of`, and labels [N]."""
        self.fitted = self.make(seed).fit(inputs, labels)

    def inputs_of(self, images: Tensor, features: Tensor | None = None) -> NDArray[np.float32]:
        """Return the inputs of the estimator, [N, num_inputs]: the pixels of the images, or the features."""
        inputs = features if self.num_image_features else images.flatten(1)
        assert inputs is not None, "an estimator on hog is called with images and features"
        return inputs.cpu().float().numpy()

    def forward(self, images: Tensor, features: Tensor | None = None) -> Tensor:
        assert self.fitted is not None, "an estimator is fitted, or loaded, before it is called"
        predicted = np.zeros((len(images), self.num_classes), np.float32)
        # A class without training images is never predicted.
        predicted[:, self.fitted.classes_] = self.probabilities(self.inputs_of(images, features))
        return torch.from_numpy(predicted).clamp_min_(SMALLEST_PROBABILITY).log_().to(images.device)

    def get_extra_state(self) -> Tensor:
        if self.fitted is None:
            return torch.empty(0, dtype=torch.uint8)
        data = skops.io.dumps(self.fitted, compression=zipfile.ZIP_DEFLATED)
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Load the result of get_extra_state. Raises RuntimeError, as torch does, if it does not fit."""
        wanted = type(self.make(0)).__name__
        try:
            data = state.cpu().numpy().tobytes()
            check_skops(data, self.num_inputs, self.num_classes)
            fitted = skops.io.loads(data, trusted=TRUSTED)
        except Exception as error:  # a file can be damaged in any way
            raise RuntimeError(f"it is not the skops file of a {wanted}: {error}") from None
        if type(fitted).__name__ != wanted:
            raise RuntimeError(f"it is the skops file of a {type(fitted).__name__}, not of a {wanted}")
        if fitted.n_features_in_ != self.num_inputs:
            raise RuntimeError(f"it takes {fitted.n_features_in_} inputs per image; it must take {self.num_inputs}")
        try:
            is_right = self.is_right(fitted) and _are_classes(fitted.classes_, self.num_classes)
        except (AttributeError, TypeError, ValueError, IndexError):
            is_right = False
        if not is_right:
            raise RuntimeError(f"the numbers of this {wanted} are damaged; restore the file from a copy")
        self.fitted = fitted


class DecisionTree(Estimator):
    """A decision tree (Breiman et al. 1984); num_parameters is the number of its nodes, and it has no macs."""

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        num_features: int = 0,
        features: str = "pixels",
        hog: Mapping[str, int] | None = None,
        max_depth: int | None = 40,
        min_samples_leaf: int = 1,
        criterion: str = "gini",
    ) -> None:
        super().__init__(in_channels, num_classes, image_size, num_features, features, hog)
        if max_depth is not None:
            check_int("max_depth", max_depth)
        check_int("min_samples_leaf", min_samples_leaf)
        check_choice("criterion", criterion, ("gini", "entropy", "log_loss"))
        self.settings = {"max_depth": max_depth, "min_samples_leaf": min_samples_leaf, "criterion": criterion}

    def make(self, seed: int) -> Any:
        return DecisionTreeClassifier(**self.settings, random_state=seed)

    def fit(self, inputs: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> None:
        # A tree sorts the images by one input at a time, which is faster if the values of an input are contiguous.
        super().fit(np.asfortranarray(inputs), labels, seed)

    def is_right(self, fitted: Any) -> bool:
        tree = fitted.tree_  # its nodes were checked before it was built
        return (
            type(tree) is Tree
            and fitted.n_outputs_ == 1
            and fitted.n_classes_ == len(fitted.classes_) == tree.n_classes[0]
        )

    def cost(self) -> dict[str, int]:
        return {"num_parameters": int(self.fitted.tree_.node_count)}


class LinearSVM(Estimator):
    """Linear support vector machines, one class against the rest, on standardized inputs (Cortes and Vapnik 1995).

    Probabilities are the softmax of the distances from the hyperplanes: they have the right order, but are not
    calibrated.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        num_features: int = 0,
        features: str = "pixels",
        hog: Mapping[str, int] | None = None,
        C: float = 1e-4,
        max_iter: int = 1000,
    ) -> None:
        super().__init__(in_channels, num_classes, image_size, num_features, features, hog)
        if isinstance(C, bool) or not isinstance(C, int | float) or not 0 < C < float("inf"):
            raise ValueError(f"C is {C!r}; it must be above 0")
        check_int("max_iter", max_iter)
        self.settings = {"C": C, "max_iter": max_iter}

    def make(self, seed: int) -> Any:
        # There are more images than inputs, so the primal problem is smaller than the dual one.
        return make_pipeline(StandardScaler(), LinearSVC(**self.settings, dual=False, random_state=seed))

    def probabilities(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        distances = self.fitted.decision_function(inputs)
        if distances.ndim == 1:  # for two classes, scikit-learn returns the distance of the second class only
            distances = np.stack([-distances, distances], 1)
        return torch.from_numpy(distances).softmax(1).numpy()

    def is_right(self, fitted: Any) -> bool:
        (_, scaler), (_, machine) = fitted.steps
        return (
            type(scaler) is StandardScaler
            and type(machine) is LinearSVC
            and all(are_numbers(values, (self.num_inputs,)) for values in (scaler.mean_, scaler.scale_))
            and bool(scaler.scale_.all())
            and _is_linear(machine, self.num_inputs)
        )

    def cost(self) -> dict[str, int]:
        return _linear_cost(self.fitted[-1])


class LinearDiscriminants(Estimator):
    """Linear discriminant analysis (Fisher 1936) with a covariance shrunk by a fraction or Ledoit and Wolf's rule."""

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        num_features: int = 0,
        features: str = "pixels",
        hog: Mapping[str, int] | None = None,
        shrinkage: float | str | None = "auto",
    ) -> None:
        super().__init__(in_channels, num_classes, image_size, num_features, features, hog)
        is_fraction = isinstance(shrinkage, int | float) and not isinstance(shrinkage, bool) and 0 <= shrinkage <= 1
        if not is_fraction and shrinkage not in (None, "auto"):
            raise ValueError(f"shrinkage is {shrinkage!r}; it must be in [0, 1], auto or null")
        self.settings = {"shrinkage": shrinkage}

    def make(self, seed: int) -> Any:
        return LinearDiscriminantAnalysis(solver="lsqr", **self.settings)

    def fit(self, inputs: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> None:
        super().fit(inputs, labels, seed)
        del self.fitted.covariance_  # [num_inputs, num_inputs], and not needed for predictions

    def is_right(self, fitted: Any) -> bool:
        return _is_linear(fitted, self.num_inputs)

    def cost(self) -> dict[str, int]:
        return _linear_cost(self.fitted)


def _linear_cost(fitted: Any) -> dict[str, int]:
    """Return the number of weights and intercepts, and one MAC per weight."""
    return {"num_parameters": int(fitted.coef_.size + fitted.intercept_.size), "macs": int(fitted.coef_.size)}


def _is_linear(fitted: Any, num_inputs: int) -> bool:
    rows = 1 if len(fitted.classes_) == 2 else len(fitted.classes_)
    return are_numbers(fitted.coef_, (rows, num_inputs)) and are_numbers(fitted.intercept_, (rows,))


def _are_classes(classes: Any, num_classes: int) -> bool:
    """Return whether these are some of the numbers of the classes, in order."""
    is_array = isinstance(classes, np.ndarray) and classes.dtype.kind == "i" and classes.ndim == 1 and len(classes) > 0
    return bool(is_array and classes[0] >= 0 and classes[-1] < num_classes and (np.diff(classes) > 0).all())
