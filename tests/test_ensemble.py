"""Ensembles: export, answers without ferhpo, the verb, the registry."""

import json
import os
import shutil
import subprocess
import sys

import mlflow.pyfunc
import numpy as np
import pytest
import torch

import ferhpo
from ferhpo import cli
from ferhpo.components.description import description_fault
from ferhpo.data.features.hog import hog_of
from ferhpo.errors import ConfigError, SweepError
from ferhpo.evaluation.chosen import kept_predictions
from ferhpo.evaluation.ensemble import ensemble
from ferhpo.inference.export import export_ensemble
from ferhpo.models.cnn import CNN
from ferhpo.models.estimators import DecisionTree
from ferhpo.models.resnet import ResNet
from ferhpo.scoring.preprocess import Preprocess
from ferhpo.storage.evaluation_log import read_all
from ferhpo.storage.sweep import load_sweep
from ferhpo.tracking import TrackingSettings
from ferhpo.tracking.models import package
from tests.conftest import TINY
from tests.test_tracking_models import (
    CNN_CONFIG,
    GRAY,
    HOG_CONFIG,
    LOAD_AND_PREDICT,
    NAMES,
    RESNET_CONFIG,
    TREE_CONFIG,
    expected,
    make_checkpoint,
)

WHOLE = Preprocess(1, 48, 48, "image", (), ())
KINDS = {
    "cnn": (CNN_CONFIG, CNN, GRAY, 0.5),
    "resnet": (RESNET_CONFIG, ResNet, WHOLE, 0.25),
    "hog": (HOG_CONFIG, CNN, GRAY, 0.125),
    "tree": (TREE_CONFIG, DecisionTree, GRAY, 0.125),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An ensemble of four kinds of networks, with preprocessings of their own, as an MLflow model."""
    folder = tmp_path_factory.mktemp("ensemble")
    images = np.random.default_rng(0).integers(0, 256, (7, 48, 48), dtype=np.uint8)
    members, mean = [], np.zeros((7, 7))
    for number, (name, (config, network_class, preprocess, share)) in enumerate(KINDS.items()):
        network, checkpoint = make_checkpoint(config, network_class, preprocess, seed=number)
        torch.save(checkpoint, folder / f"{name}.ckpt")
        members.append((folder / f"{name}.ckpt", config, share))
        mean += share * expected(network, preprocess, images, hog_of(config))
    export_ensemble(members, folder / "mixed", "d" * 64, {"val_acc": 0.5})
    package(folder / "mixed", folder / "mixed-mlflow")
    np.savez(folder / "mixed.npz", images=images, predictions=mean)
    return folder


def test_model_json_describes_every_member(exported):
    description = json.loads((exported / "mixed" / "model.json").read_text())
    assert description_fault(description) == ""
    assert [member["network"]["name"] for member in description["members"]] == ["CNN", "ResNet", "CNN", "DecisionTree"]
    assert sum(member["share"] for member in description["members"]) == 1
    assert len(description["weights_sha256"]) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"members": []}, {"members": 3}, {"members": [{}]}, {"members": [{"share": 2}]}, {"members": "0123"},
    ],
    ids=str,
)  # fmt: skip
def test_a_description_that_is_no_ensembles_is_refused(exported, change):
    description = json.loads((exported / "mixed" / "model.json").read_text())
    assert "members is" in description_fault({**description, **change})
    inner = [{**description["members"][0], "members": description["members"]}]
    assert "members is" in description_fault({**description, "members": inner})


def test_it_answers_as_mlflow_loads_it(exported):
    saved = np.load(exported / "mixed.npz")
    found = mlflow.pyfunc.load_model(str(exported / "mixed-mlflow")).predict(saved["images"])
    assert tuple(found.columns) == NAMES
    np.testing.assert_allclose(found.to_numpy(), saved["predictions"], atol=1e-5)


@pytest.mark.full
def test_it_answers_without_ferhpo(exported):
    script = LOAD_AND_PREDICT.replace('mlflow.pyfunc.load_model("evil-mlflow")', "pass")
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, "mixed"], cwd=exported, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert max(report["mixed1"], report["mixed7"]) < 1e-5
    assert report["ferhpo"] == []


@pytest.mark.parametrize("member", ["0", "1", "3"])
def test_one_flipped_bit_of_a_member_is_refused(exported, tmp_path, member):
    shutil.copytree(exported / "mixed-mlflow", tmp_path / "model")
    (file,) = [
        path for path in (tmp_path / "model").rglob(f"members/{member}/*") if path.suffix in (".safetensors", ".skops")
    ]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(Exception, match="the weights were damaged or changed"):
        mlflow.pyfunc.load_model(str(tmp_path / "model"))


@pytest.mark.parametrize("change", ["swapped", "changed"])
def test_members_that_the_ensembles_digest_does_not_name_are_refused(exported, tmp_path, change):
    """Their own digests are right; that of the ensemble, which the registry has, is not made of them."""
    shutil.copytree(exported / "mixed-mlflow", tmp_path / "model")
    (file,) = (tmp_path / "model").rglob("model.json")
    description = json.loads(file.read_text())
    first, second = (file.parent / "members" / place for place in ("0", "2"))
    if change == "swapped":
        shutil.copytree(second, tmp_path / "kept")
        shutil.rmtree(second)
        shutil.copytree(first, second)
        description["members"][2] = {**description["members"][0], "share": description["members"][2]["share"]}
    else:
        description["members"][1]["weights_sha256"] = None
    file.write_text(json.dumps(description))
    with pytest.raises(Exception, match="do not give that of the ensemble"):
        mlflow.pyfunc.load_model(str(tmp_path / "model"))


def test_members_of_other_images_are_refused(exported, tmp_path):
    _, checkpoint = make_checkpoint(RESNET_CONFIG, ResNet, Preprocess(3, 48, 48, "image", (), ()))
    torch.save(checkpoint, tmp_path / "color.ckpt")
    members = [(exported / "cnn.ckpt", CNN_CONFIG, 0.5), (tmp_path / "color.ckpt", RESNET_CONFIG, 0.5)]
    with pytest.raises(ValueError, match="do not have the same color channels"):
        export_ensemble(members, tmp_path / "out", "d" * 64, {})


@pytest.fixture(scope="module")
def swept(tmp_path_factory, warm, empty_store):
    """A sweep of four trials and a confirmation of its best one, with a store."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "mlruns").mkdir()
    shutil.copy(empty_store, folder / "mlruns" / "mlflow.db")
    options = [*TINY, f"output_dir={folder / 'mlruns'}", "num_trials=4", "trainer.max_epochs=2", "data.num_val=140"]
    ferhpo.sweep("demo", [*options, "sampler=random", "scheduler=none", "optim.lr=0.01"])
    ferhpo.confirm("demo", [], top=1, seeds=3, output_dir=str(folder / "mlruns"))
    return folder / "mlruns"


@pytest.mark.full
def test_an_ensemble_of_a_sweep(swept, capsys):
    result = ensemble("demo", output_dir=swept)
    sweep = load_sweep("demo", swept)
    assert sum(member.share for member in result.members) == pytest.approx(1)
    assert result.value >= result.single
    trials = {trial.number: trial for trial in sweep.trials()}
    kept = {member.trial: kept_predictions(sweep, trials[member.trial]) for member in result.members}
    mean = sum(member.share * kept[member.trial].probabilities.astype(float) for member in result.members)
    labels = next(iter(kept.values())).labels
    assert (mean.argmax(1) == labels).mean() == pytest.approx(result.value, abs=0.01)
    assert result.registered == ("ferhpo-demo", 3), "after the sweep's and the confirmation's"
    scores = ferhpo.evaluate("models:/ferhpo-demo/3", output_dir=swept)
    assert scores.scores.all.acc == pytest.approx(result.value, abs=0.01)
    before = len(read_all(sweep.folder))
    tested = ferhpo.evaluate("models:/ferhpo-demo/3", split="test", output_dir=swept)
    assert len(read_all(sweep.folder)) == before + 1, "noted where the sweep's own readings are"
    assert not [text for text in tested.warnings if "not here" in text]
    compared = ferhpo.compare("models:/ferhpo-demo/3", "demo/0", output_dir=swept)
    assert [key for key, _ in compared.settings if key == "ensemble of"]
    settings = TrackingSettings(output_dir=swept)
    mlflow.set_tracking_uri(settings.store_uri)
    model = mlflow.pyfunc.load_model("models:/ferhpo-demo/3")
    assert model.predict(np.zeros((3, 30, 50), np.uint8)).shape == (3, 7)
    assert cli.main(["ensemble", "demo", "--json", "--output-dir", str(swept)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["registered"] == ["ferhpo-demo", 3], "the same one"


@pytest.mark.full
def test_the_seeds_of_a_confirmation_are_averaged(swept, capsys):
    assert cli.main(["ensemble", "demo-confirm", "--output-dir", str(swept)]) == 0
    assert "Ensemble of 3 of 3 networks of demo-confirm" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="does not apply to a confirmation"):
        ensemble("demo-confirm", 4, output_dir=swept)


@pytest.mark.full
def test_what_is_no_ensemble_is_refused(swept, tmp_path):
    with pytest.raises(ConfigError, match="--top is 1; it must be from 2 to 50"):
        ensemble("demo", 1, output_dir=swept)
    ferhpo.train("demo", [*TINY, f"output_dir={tmp_path}", "tracking=none", "trainer.max_epochs=1"])
    with pytest.raises(SweepError, match="has 1 complete trials"):
        ensemble("demo", output_dir=tmp_path)
