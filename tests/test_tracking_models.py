"""Exported models: the files of their folder, and predictions in a process without ferhpo and without pickle."""

import base64
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from importlib._bootstrap_external import _code_to_hash_pyc
from importlib.util import cache_from_source
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import invocations
from PIL import Image
from sklearn.preprocessing import FunctionTransformer

from ferhpo.components.bundle import bundle
from ferhpo.data.dataset import TEST, face_data
from ferhpo.data.features.cached import with_hog
from ferhpo.data.features.hog import given_features, hog_of
from ferhpo.data.io.faults import Faults
from ferhpo.data.io.files import Tree, decode_images
from ferhpo.inference.export import export_model
from ferhpo.models.cnn import CNN
from ferhpo.models.estimators import DecisionTree, Estimator, LinearSVM
from ferhpo.models.layers import num_image_features
from ferhpo.models.resnet import ResNet
from ferhpo.scoring.predict import evaluate
from ferhpo.scoring.preprocess import Preprocess
from tests.servers import free_port, wait_until

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
        "confusion": torch.zeros(7, 7).long(),
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
    evil = skops.io.dumps(FunctionTransformer(func=os.system))
    (folder / "evil" / "estimator.skops").write_bytes(evil)
    description = json.loads((folder / "evil" / "model.json").read_text())
    description["weights_sha256"] = hashlib.sha256(evil).hexdigest()
    (folder / "evil" / "model.json").write_text(json.dumps(description))
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
        assert list(predictions.columns) == model.metadata.metadata["class_names"], predictions.columns
        predictions = predictions.to_numpy()
        assert predictions.dtype == np.float32 and predictions.shape == (n, 7), (predictions.dtype, predictions.shape)
        report[f"{name}{n}"] = float(np.abs(predictions - saved["predictions"][:n]).max())
    report[name] = [model.metadata.metadata["class_names"], model.metadata.signature.to_dict()]
    assert model.predict(saved["images"][:0]).shape == (0, 7)
    example = model.input_example
    assert list(example.columns) == ["image"] and model.predict(example).shape == (1, 7)
try:
    mlflow.pyfunc.load_model("evil-mlflow")
except RuntimeError as error:
    report["evil"] = str(error)
report["ferhpo"] = [name for name in sys.modules if name.split(".")[0] == "ferhpo"]
print(json.dumps(report))
"""


@pytest.mark.full
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
    assert signature["inputs"] is None, "any kind of images"
    columns = [(column["name"], column["type"]) for column in json.loads(signature["outputs"])]
    assert columns == [(name, "float") for name in NAMES]


@pytest.fixture(scope="module")
def served(exported):
    """Two models as MLflow loads them: of gray and of color images."""
    return {name: mlflow.pyfunc.load_model(str(exported / f"{name}-mlflow")) for name in ("cnn", "resnet")}


def file_of(pixels, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def text_of(pixels):
    return base64.b64encode(file_of(pixels)).decode()


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_every_form_of_an_image_has_the_same_prediction(exported, served, name):
    images = np.load(exported / f"{name}.npz")["images"]
    model, wanted = served[name], served[name].predict(images)
    files, texts = [file_of(image) for image in images], [text_of(image) for image in images]
    column = np.empty(len(files), object)
    column[:] = files
    forms = {
        "list of arrays": list(images),
        "whole numbers": images.astype(np.int64),
        "nested lists": images.tolist(),
        "bytes": files,
        "text": texts,
        "data addresses": [f"data:image/png;base64,{text}" for text in texts],
        "pictures": [Image.fromarray(image) for image in images],
        "object array": column,
        "table": pd.DataFrame({"image": files}),
        "table with other columns": pd.DataFrame({"name": list("abcdefg"), "image": texts}),
        "column": pd.Series(files),
        "dictionary": {"image": texts},
        "with opacity": [np.dstack([*([image] * 3 if image.ndim == 2 else [image]), np.full(image.shape[:2], 255, np.uint8)]) for image in images],
    }  # fmt: skip
    for form, given in forms.items():
        np.testing.assert_allclose(model.predict(given), wanted, atol=1e-6, err_msg=form)
    assert list(model.predict(pd.DataFrame({"image": files}, index=list("abcdefg"))).index) == list("abcdefg")
    np.testing.assert_allclose(model.predict(files[2]), wanted[2:3], atol=1e-6)


@pytest.mark.parametrize(("name", "channels", "size"), [("cnn", 1, 48), ("resnet", 3, 32)])
def test_images_of_any_size_and_color_are_read_as_for_training(served, tmp_path, name, channels, size):
    """The prediction is that of the pixels that ferhpo's own readers make of the same files."""
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, shape, np.uint8) for shape in ((60, 50, 3), (30, 90), (200, 200, 3), (48, 48), (32, 32, 3))]  # fmt: skip
    for number, picture in enumerate(pictures):
        (tmp_path / f"{number}.png").write_bytes(file_of(picture))
    names = sorted(path.name for path in tmp_path.iterdir())
    tree = Tree(tuple(names), (), lambda name: (tmp_path / name).open("rb"))
    pixels = decode_images("test", Faults("file"), tree, names, channels, size)
    wanted = served[name].predict(pixels)
    np.testing.assert_allclose(served[name].predict(pictures), wanted, atol=1e-6)
    np.testing.assert_allclose(
        served[name].predict([(tmp_path / name).read_bytes() for name in names]), wanted, atol=1e-6
    )
    np.testing.assert_allclose(served[name].predict(np.stack([pictures[0]] * 2))[:1], wanted[:1], atol=1e-6)
    np.testing.assert_allclose(served[name].predict(pictures[1][None, :, :, None]), wanted[1:2], atol=1e-6)


SHAPE = "; it must be an array uint8 [N, height, width] (gray) or [N, height, width, 3] (color), or a list or"
ONE = np.zeros((48, 48), np.uint8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 48, 48), np.float32), "image 0 has pixels of type float32; they must be uint8, whole numbers from 0 to 255"),
        ([ONE, ONE + 0.5], "image 1 has pixels of type float64; they must be uint8"),
        ([ONE, ONE.astype(int) - 1], "image 1 has pixels of type int64; they must be uint8"),
        (ONE, f"the input is an array of shape [48, 48]{SHAPE}"),
        (np.zeros((60, 50, 3), np.uint8), f"the input is an array of shape [60, 50, 3]{SHAPE}"),
        (np.zeros((2, 3, 48, 48), np.uint8), "image 0 has the shape [3, 48, 48]; it must be [height, width] (gray) or [height, width, 3] (color)"),
        (np.zeros((1, 1, 48, 48, 3), np.uint8), f"the input is an array of shape [1, 1, 48, 48, 3]{SHAPE}"),
        ([ONE, []], "image 1 has the shape [0]"),
        ([[[1, 2], [3]]], "image 0 has the shape []"),
        (3, f"the input is int{SHAPE}"),
        (None, f"the input is NoneType{SHAPE}"),
        ([1, 2], "image 0 is int; it must be an array uint8, bytes, or base64 text"),
        ([None], "image 0 is NoneType"),
        ({"a": [ONE], "b": [ONE]}, "the input has the columns a, b; one must be named image"),
        (["faces/smile/0.png"], "image 0 is the text 'faces/smile/0.png'; text must be the base64 of an image file; for a file, give its bytes"),
        ([ONE, b""], "image 1 is empty; give the whole content of an image file"),
        ([b"no image"], "image 0 is not a readable PNG or JPEG file; give the whole content of an image file"),
        ([file_of(ONE)[:-30]], "image 0 is not a readable PNG or JPEG file (image file is truncated"),
        ([file_of(np.zeros((8, 8), np.uint16))], "image 0 has pixels of more than 8 bits; convert it to 8 bits"),
        ([file_of(np.zeros((7000, 7000), np.uint8))], "image 0 is 7000x7000; it must have at most 40,000,000 pixels"),
    ],
)  # fmt: skip
def test_wrong_input_is_refused_in_one_sentence(served, given, message):
    for model in served.values():
        with pytest.raises(MlflowException) as caught:
            model.predict(given)
        assert str(caught.value).startswith(message)
        assert len(str(caught.value).splitlines()) == 1


def post(model, body):
    """What MLflow's scoring server answers."""
    return json.loads(
        invocations(json.dumps(body), "application/json", model, model.metadata.get_input_schema()).response
    )


def test_the_scoring_server_answers_with_class_names(exported, served):
    images = np.load(exported / "cnn.npz")["images"][:2]
    wanted, texts = served["cnn"].predict(images), [text_of(image) for image in images]
    for body in (
        {"inputs": images.tolist()},
        {"inputs": texts},
        {"inputs": {"image": texts}},
        {"instances": texts},
        {"dataframe_split": {"columns": ["image"], "data": [[text] for text in texts]}},
        {"dataframe_records": [{"image": text} for text in texts]},
    ):
        rows = post(served["cnn"], body)["predictions"]
        assert [list(row) for row in rows] == [list(NAMES)] * 2
        np.testing.assert_allclose(pd.DataFrame(rows), wanted, atol=1e-6)
    example = json.loads((exported / "cnn-mlflow" / "serving_input_example.json").read_text())
    assert len(post(served["cnn"], example)["predictions"]) == 1
    with pytest.raises(MlflowException, match=r"^image 1 is the text 'no\.png'; text must be the base64"):
        post(served["cnn"], {"inputs": [texts[0], "no.png"]})


@pytest.mark.parametrize("name", ["cnn", "tree"])
def test_a_flipped_bit_of_the_weights_is_refused(exported, tmp_path, name):
    shutil.copytree(exported / f"{name}-mlflow", tmp_path / "model")
    (folder,) = (tmp_path / "model" / "artifacts").iterdir()
    file = folder / ("network.safetensors" if name == "cnn" else "estimator.skops")
    content = bytearray(file.read_bytes())
    recorded = hashlib.sha256(content).hexdigest()
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert str(caught.value) == (
        f"{file} has the sha256 {hashlib.sha256(content).hexdigest()}; model.json says {recorded}, so the weights were "
        "damaged or changed; restore the file from a copy, or export the model again"
    )


def test_a_model_of_an_earlier_version_has_no_digest_and_loads(exported, tmp_path):
    shutil.copytree(exported / "cnn-mlflow", tmp_path / "model")
    path = tmp_path / "model" / "artifacts" / "cnn" / "model.json"
    description = json.loads(path.read_text())
    del description["weights_sha256"]
    path.write_text(json.dumps(description))
    images = np.load(exported / "cnn.npz")["images"]
    assert mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(images).shape == (7, 7)


def test_the_folder_has_only_tensors_json_and_code(exported):
    files = {path.name for path in (exported / "cnn").iterdir()}
    assert files == {"network.safetensors", "model.json", "model.py"}
    description = json.loads((exported / "cnn" / "model.json").read_text())
    assert description["network"]["arguments"]["image_size"] == 44
    assert description["scores"] == {"val_acc": 0.5}
    assert description["data_digest"] == "d" * 64
    weights = (exported / "cnn" / "network.safetensors").read_bytes()
    assert description["weights_sha256"] == hashlib.sha256(weights).hexdigest()
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
    assert {line.split("==")[0] for line in lines} == {
        "mlflow",
        "numpy",
        "pandas",
        "pillow",
        "safetensors",
        "torch",
    } | own


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
    with pytest.raises(
        ValueError, match=r"_target_ is torchvision\.models\.resnet50; it must be a subclass of torch\.nn\.Module"
    ):
        export_model(checkpoint, {"_target_": "torchvision.models.resnet50"}, tmp_path, data_digest="")


def test_the_code_in_a_models_folder_is_never_run(tmp_path):
    """It may come from anyone; the code that MLflow runs is written anew."""
    from ferhpo.tracking.models import package

    _, checkpoint = make_checkpoint(CNN_CONFIG, CNN, GRAY)
    export_model(checkpoint, CNN_CONFIG, tmp_path / "m", data_digest="")
    written = (tmp_path / "m" / "model.py").read_text()
    (tmp_path / "m" / "model.py").write_text("raise RuntimeError('broken')")
    package(tmp_path / "m", tmp_path / "out")
    assert (tmp_path / "out" / "artifacts" / "m" / "model.py").read_text() == written
    marker = tmp_path / "ran"
    code = compile(f"open({str(marker)!r}, 'w')", "model.py", "exec")
    for name in ("model", "m", "__init__"):
        cached = Path(cache_from_source(str(tmp_path / "m" / f"{name}.py")))
        cached.parent.mkdir(exist_ok=True)
        cached.write_bytes(_code_to_hash_pyc(code, b"\0" * 8, False))  # which is never compared with its source
    package(tmp_path / "m", tmp_path / "again")
    assert not marker.exists()
    assert not list((tmp_path / "again").rglob("*.pyc"))
    described = json.loads((tmp_path / "m" / "model.json").read_text())
    for name in ("os.system", "ferhpo.models.cnn._hidden", "my_stranger.Net"):
        described["network"]["target"] = name
        (tmp_path / "m" / "model.json").write_text(json.dumps(described))
        with pytest.raises(ValueError, match="_target_ is "):
            package(tmp_path / "m", tmp_path / "other")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import ferhpo.errors\n", "line 1: write `from ferhpo.errors import name` at the top level"),
        ("import ferhpo.errors as E\n", "line 1: write `from ferhpo.errors import name`"),
        ("def f():\n    from ferhpo.errors import DataError\n", "line 2: write `from ferhpo.errors import name`"),
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


@pytest.mark.full
@pytest.mark.timeout(200)
def test_a_real_scoring_server_takes_files_as_base64_text(exported):
    """`mlflow models serve` in its own process, as the description of a registered model says."""
    port = free_port()
    command = ["-m", "mlflow", "models", "serve", "-m", "cnn-mlflow", "--env-manager", "local", "-p", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow starts uvicorn by its name
    environment = {**os.environ, "PATH": path, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "OMP_NUM_THREADS": "1"}
    with (exported / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *command], cwd=exported, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:

        def answer(inputs):
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations",
                json.dumps({"inputs": inputs}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.loads(response.read())

        def is_up():
            assert server.poll() is None, (exported / "server.log").read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                return True
            return False

        wait_until(is_up, 150, 0.5)
        (row,) = answer([text_of(np.zeros((60, 50, 3), np.uint8))])["predictions"]
        assert list(row) == list(NAMES)
        assert sum(row.values()) == pytest.approx(1, abs=1e-5)
        with pytest.raises(urllib.error.HTTPError) as caught:
            answer(["no.png"])
        assert "image 0 is the text 'no.png'; text must be the base64 of an image file" in caught.value.read().decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
