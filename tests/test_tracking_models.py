"""Exported models: the files of their folder, and predictions in a process without ferhpo and without pickle."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import skops.io
import torch
from sklearn.preprocessing import FunctionTransformer

from ferhpo.components.bundle import bundle
from ferhpo.data.dataset import TEST, face_data
from ferhpo.data.features.cached import with_hog
from ferhpo.data.features.hog import given_features, hog_of
from ferhpo.inference.export import export_model
from ferhpo.models.cnn import CNN
from ferhpo.models.estimators import DecisionTree, Estimator, LinearSVM
from ferhpo.models.layers import num_image_features
from ferhpo.models.resnet import ResNet
from ferhpo.scoring.predict import evaluate
from ferhpo.scoring.preprocess import Preprocess

NAMES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
CNN_CONFIG = {"_target_": "ferhpo.models.cnn.CNN", "stem_channels": 4, "num_blocks": 2, "block_channels": [4, 6],
              "dense_units": 8}  # fmt: skip
RESNET_CONFIG = {"_target_": "ferhpo.models.resnet.ResNet", "num_stages": 2, "blocks_per_stage": 1, "width": 4}
HOG_CONFIG = {**CNN_CONFIG, "hog": {"pixels_per_cell": 12}}
TREE_CONFIG = {"_target_": "ferhpo.models.estimators.DecisionTree", "features": "pixels", "max_depth": 4}
SVM_CONFIG = {"_target_": "ferhpo.models.estimators.LinearSVM", "features": "hog", "hog": {"orientations": 6}}


def make_checkpoint(config, network_class, preprocess, seed=0):
    """Return a network with random parameters, fitted if it is an estimator, and its checkpoint."""
    torch.manual_seed(seed)
    arguments = {key: value for key, value in config.items() if key != "_target_"}
    network = network_class(
        in_channels=preprocess.channels,
        num_classes=7,
        image_size=preprocess.input_size,
        **given_features(config, preprocess.image_size),
        **arguments,
    )
    shape = (preprocess.channels, preprocess.input_size, preprocess.input_size)
    features = [torch.rand(28, network.num_image_features)] if num_image_features(network) else []
    if isinstance(network, Estimator):
        network.fit(network.inputs_of(torch.randn(28, *shape), *features), np.arange(28) % 7, seed)
    else:
        with torch.no_grad():  # gives batch normalization other statistics than its initial ones
            network(torch.randn(28, *shape), *features)
    checkpoint = {
        "format": 1,
        "network": network.state_dict(),
        "class_names": NAMES,
        "preprocess": dataclasses.asdict(preprocess),
        "epoch": 3,
        "metrics": {"val_acc": 0.5},
        "confusion": torch.zeros(7, 7),
    }
    return network.eval(), checkpoint


def expected(network, preprocess, images, hog=None):
    """Return the probabilities that the evaluation of a training predicts."""
    num_images = len(images)
    split = np.full(num_images, TEST, np.uint8)
    data = face_data(images, np.zeros(num_images, np.int64), split, NAMES, "random", "published")
    if hog is not None:
        data = with_hog(data, hog)
    return evaluate(network, data, "test", preprocess).probabilities


GRAY = Preprocess(1, 48, 44, "dataset", (0.5,), (0.25,))
COLOR = Preprocess(3, 32, 32, "image", (), ())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Models of every kind as MLflow models, each with images and the predictions of the network in this process.

    "evil" is a decision tree whose file contains a function that must not be loaded.
    """
    from ferhpo.tracking.models import package

    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    cases = {
        "cnn": (CNN_CONFIG, CNN, GRAY, (48, 48)),
        "resnet": (RESNET_CONFIG, ResNet, COLOR, (32, 32, 3)),
        "hog": (HOG_CONFIG, CNN, GRAY, (48, 48)),
        "tree": (TREE_CONFIG, DecisionTree, GRAY, (48, 48)),
        "svm": (SVM_CONFIG, LinearSVM, COLOR, (32, 32, 3)),
    }
    for name, (config, network_class, preprocess, shape) in cases.items():
        network, checkpoint = make_checkpoint(config, network_class, preprocess)
        export_model(checkpoint, config, folder / name, data_digest="d" * 64)
        package(folder / name, folder / f"{name}-mlflow")
        images = rng.integers(0, 256, (7, *shape), dtype=np.uint8)
        predictions = expected(network, preprocess, images, hog_of(config))
        np.savez(folder / f"{name}.npz", images=images, predictions=predictions)
    shutil.copytree(folder / "tree", folder / "evil")
    (folder / "evil" / "estimator.skops").write_bytes(skops.io.dumps(FunctionTransformer(func=os.system)))
    package(folder / "evil", folder / "evil-mlflow")
    return folder


LOAD_AND_PREDICT = """
import builtins, json, pickle, sys
real_import = builtins.__import__
def no_ferhpo(name, *args, **kwargs):
    if name.split(".")[0] == "ferhpo":
        raise ImportError("ferhpo is not installed")
    return real_import(name, *args, **kwargs)
builtins.__import__ = no_ferhpo
import mlflow.pyfunc
import numpy as np
models = {name: mlflow.pyfunc.load_model(f"{name}-mlflow") for name in sys.argv[1:]}
report = {}
for name, model in models.items():
    saved = np.load(f"{name}.npz")
    for n in (1, 7):
        predictions = model.predict(saved["images"][:n])
        assert predictions.dtype == np.float32 and predictions.shape == (n, 7), (predictions.dtype, predictions.shape)
        report[f"{name}{n}"] = float(np.abs(predictions - saved["predictions"][:n]).max())
    report[name] = [model.metadata.metadata["class_names"], model.metadata.signature.to_dict()]
    report[f"{name}-refusals"] = []
    for wrong in (saved["images"].astype(np.float32), saved["images"][:, :20], list(range(3))):
        try:
            model.predict(wrong)
        except Exception as error:
            report[f"{name}-refusals"].append(str(error))
    unwrapped = model.unwrap_python_model()
    for wrong in (saved["images"].astype(np.float32), saved["images"][:, :20], [1, 2]):
        try:
            unwrapped.predict(None, wrong)
        except ValueError as error:
            report[f"{name}-refusals"].append(str(error))
    assert unwrapped.predict(None, saved["images"][:0]).shape == (0, 7)
try:
    mlflow.pyfunc.load_model("evil-mlflow")
except RuntimeError as error:
    report["evil"] = str(error)
report["ferhpo"] = [name for name in sys.modules if name.split(".")[0] == "ferhpo"]
print(json.dumps(report))
"""


def test_models_predict_in_a_process_without_ferhpo_and_without_pickle(exported):
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD_AND_PREDICT, "cnn", "resnet", "hog", "tree", "svm"],
        cwd=exported,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    for name in ("cnn", "resnet", "hog", "tree", "svm"):
        assert max(report[f"{name}{n}"] for n in (1, 7)) < 1e-5, name
    assert report["ferhpo"] == []
    assert report["evil"].startswith("it is not the skops file of a DecisionTreeClassifier: Untrusted types found")
    names, signature = report["cnn"]
    assert tuple(names) == NAMES
    assert json.loads(signature["inputs"])[0]["tensor-spec"] == {"dtype": "uint8", "shape": [-1, 48, 48]}
    assert json.loads(signature["outputs"])[0]["tensor-spec"] == {"dtype": "float32", "shape": [-1, 7]}
    assert len(report["cnn-refusals"]) == 6
    assert report["cnn-refusals"][3:] == [
        "the input is float32 of shape [7, 48, 48]; it must be uint8 images of shape [N, 48, 48], raw pixels "
        "from 0 to 255",
        "the input is uint8 of shape [7, 20, 48]; it must be uint8 images of shape [N, 48, 48], raw pixels "
        "from 0 to 255",
        "the input is list; it must be a numpy array: uint8 images of shape [N, 48, 48]",
    ]


def test_the_folder_has_only_tensors_json_and_code(exported):
    files = {path.name for path in (exported / "cnn").iterdir()}
    assert files == {"network.safetensors", "model.json", "model.py"}
    description = json.loads((exported / "cnn" / "model.json").read_text())
    assert description["network"]["arguments"]["image_size"] == 44
    assert description["scores"] == {"val_acc": 0.5}
    assert description["data_digest"] == "d" * 64
    packaged = [path for path in (exported / "cnn-mlflow").rglob("*") if path.is_file()]
    assert not [path for path in packaged if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".bin")]
    assert "ResNet" not in (exported / "cnn" / "model.py").read_text()
    assert {path.name for path in (exported / "tree").iterdir()} == {"estimator.skops", "model.json", "model.py"}


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("cnn", set()),
        ("hog", {"scikit-image"}),
        ("tree", {"scikit-learn", "skops"}),
        ("svm", {"scikit-image", "scikit-learn", "skops"}),
    ],
)
def test_a_model_requires_what_its_code_imports(exported, name, own):
    lines = (exported / f"{name}-mlflow" / "requirements.txt").read_text().splitlines()
    assert {line.split("==")[0] for line in lines} == {"mlflow", "numpy", "safetensors", "torch"} | own


def test_an_export_removes_the_files_of_another_kind_of_model(tmp_path):
    for config, kind in ((CNN_CONFIG, CNN), (TREE_CONFIG, DecisionTree)):
        export_model(make_checkpoint(config, kind, GRAY)[1], config, tmp_path, data_digest="")
    assert {path.name for path in tmp_path.iterdir()} == {"estimator.skops", "model.json", "model.py"}


def test_a_checkpoint_file_exports_the_same_model(tmp_path, exported):
    _, checkpoint = make_checkpoint(CNN_CONFIG, CNN, GRAY)
    torch.save(checkpoint, tmp_path / "best.ckpt")
    export_model(tmp_path / "best.ckpt", CNN_CONFIG, tmp_path / "out", data_digest="d" * 64)
    for name in ("network.safetensors", "model.json", "model.py"):
        assert (tmp_path / "out" / name).read_bytes() == (exported / "cnn" / name).read_bytes()


def test_a_network_outside_ferhpo_is_refused(tmp_path):
    _, checkpoint = make_checkpoint(CNN_CONFIG, CNN, GRAY)
    with pytest.raises(ValueError, match=r"model\._target_ is torchvision\.models\.resnet50; it must be under ferhpo"):
        export_model(checkpoint, {"_target_": "torchvision.models.resnet50"}, tmp_path, data_digest="")


def test_a_model_that_does_not_load_is_refused(tmp_path):
    from ferhpo.tracking.models import package

    _, checkpoint = make_checkpoint(CNN_CONFIG, CNN, GRAY)
    export_model(checkpoint, CNN_CONFIG, tmp_path / "m", data_digest="")
    (tmp_path / "m" / "model.py").write_text("raise RuntimeError('broken')")
    with pytest.raises(ValueError, match="broken"):
        package(tmp_path / "m", tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import ferhpo.errors\n", "line 1: write `from ferhpo.x import name` at the top level"),
        ("from ferhpo.errors import DataError as E\n", "line 1: write `from ferhpo.x import name`"),
        ("def f():\n    from ferhpo.errors import DataError\n", "line 2: write `from ferhpo.x import name`"),
        (
            "from ferhpo.errors import DataError\n\n\nclass Infeasible:\n    pass\n",
            "both define Infeasible; rename one",
        ),
    ],
)
def test_bundle_refuses_code_that_would_not_run(tmp_path, monkeypatch, source, message):
    (tmp_path / "some_family.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=message):
        bundle(["some_family"])
