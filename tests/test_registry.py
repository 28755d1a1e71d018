"""Versions and aliases in a real SQLite store, of models that a tracker logged."""

import json
import threading

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow import MlflowClient

import ferhpo
from ferhpo.errors import TrackingError
from ferhpo.inference.export import export_model
from ferhpo.reports.live import Drawing
from ferhpo.tracking import Tracker, TrackingSettings, sync
from ferhpo.tracking.fetch import download, load
from ferhpo.tracking.registered import aliases
from ferhpo.tracking.registry import WEIGHTS_TAG, check_alias, choose, register, versions
from ferhpo.tracking.store import connect
from tests.test_tracking_models import CNN, CNN_CONFIG, GRAY, expected, make_checkpoint


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A store with a sweep of two trials that have a model each.

    Returns the settings, and of each trial the network, the model's id and the run's id.
    """
    folder = tmp_path_factory.mktemp("registry")
    settings = TrackingSettings(output_dir=folder)
    tracker = Tracker(folder / "demo", settings)
    tracker.open_sweep("demo", {}, {}, "")
    networks = []
    for number in range(2):
        tracker.open_trial(number, {}, {})
        network, checkpoint = make_checkpoint(CNN_CONFIG, CNN, GRAY, seed=number)
        networks.append(network)
        tracker.log_model(number, export_model(checkpoint, CNN_CONFIG, folder / f"export{number}", data_digest="d"))
        tracker.close_trial(number, "COMPLETE")
    tracker.start()
    assert tracker.flush(120) == 0
    models = [tracker.model_id(number) for number in range(2)]
    runs = [tracker.run_id(number) for number in range(2)]
    tracker.close(1)
    return settings, networks, models, runs


def test_a_model_is_logged_once_and_belongs_to_its_run(recorded):
    settings, _, models, runs = recorded
    client = connect(settings)
    before = client.search_logged_models([client.get_experiment_by_name("ferhpo").experiment_id])
    assert {m.model_id for m in before} == set(models)
    assert {str(m.status) for m in before} == {"READY"}
    assert [o.model_id for o in client.get_run(runs[0]).outputs.model_outputs] == [models[0]]
    (settings.output_dir / "demo" / "spool.shipped.json").unlink()
    sync(settings.output_dir / "demo", settings)
    assert len(client.search_logged_models([before[0].experiment_id])) == 2
    assert len(client.get_run(runs[0]).outputs.model_outputs) == 1


def test_register_promote_and_load(recorded, tmp_path):
    settings, networks, models, runs = recorded
    assert versions(settings, "faces") == []
    assert register(settings, models[0], "faces", {"sweep": "demo"}, "the *first*") == 1
    assert register(settings, models[0], "faces", {"sweep": "demo"}, "again") == 1
    assert register(settings, models[1], "faces", {}) == 2
    second, first = versions(settings, "faces")
    assert (first.number, first.run_id, first.model_id) == (1, runs[0], models[0])
    assert first.tags["sweep"] == "demo"
    assert first.description == "the *first*"
    assert second.number == 2

    entry = aliases.move(settings, "faces", "champion", 1, None)
    assert (entry.version, entry.previous, entry.alias) == (1, None, "champion")
    entry = aliases.move(settings, "faces", "champion", 2, 1)
    assert (entry.version, entry.previous) == (2, 1)
    second, first = versions(settings, "faces")
    assert (second.aliases, first.aliases) == (("champion",), ())
    assert second.tags["ferhpo.promoted.champion"].endswith(", before: version 1")
    assert first.tags["ferhpo.promoted.champion"].endswith(", before: none")

    images = np.random.default_rng(0).integers(0, 256, (7, 48, 48), dtype=np.uint8)
    for version, network in ((1, networks[0]), ("champion", networks[1])):
        model = mlflow.pyfunc.load_model(str(download(settings, "faces", version, tmp_path / str(version))))
        np.testing.assert_allclose(model.predict(images), expected(network, GRAY, images), atol=1e-6)


def test_a_version_whose_weights_are_not_the_registered_ones_is_refused(recorded, tmp_path):
    settings, _, models, _ = recorded
    digest = json.loads((settings.output_dir / "export0" / "model.json").read_text())["weights_sha256"]
    assert register(settings, models[0], "held", {WEIGHTS_TAG: digest}, about="What it takes") == 1
    assert register(settings, models[1], "held", {WEIGHTS_TAG: digest}, about="Other words") == 2
    assert connect(settings).get_registered_model("held").description == "What it takes"
    second, first = versions(settings, "held")
    _, described = load(settings, first)
    assert described["weights_sha256"] == digest
    with pytest.raises(
        TrackingError, match=f"held version 2: it was registered with weights of the sha256 {digest}; now "
    ):
        load(settings, second)
    file = next((settings.output_dir / "artifacts").rglob(f"{models[0]}/**/network.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    try:
        with pytest.raises(
            TrackingError, match=r"held version 1 cannot be loaded: .*network\.safetensors has the sha256"
        ):
            load(settings, first)
    finally:
        content[-1] ^= 1
        file.write_bytes(content)


@pytest.mark.parametrize("key", ["class_names", "preprocess", "network", "scores"])
def test_a_version_whose_description_is_not_the_registered_one_is_refused(recorded, key):
    """Classes in another order, other numbers of the preprocessing: no digest of the weights covers them."""
    settings, _, models, _ = recorded
    number = register(settings, models[0], "described", {})
    version = next(each for each in versions(settings, "described") if each.number == number)
    load(settings, version)
    file = next((settings.output_dir / "artifacts").rglob(f"{models[0]}/artifacts/artifacts/*/model.json"))
    content = file.read_text()
    described = json.loads(content)
    changed = {
        "class_names": described["class_names"][::-1],
        "preprocess": {**described["preprocess"], "mean": [0.1]},
        "network": {**described["network"], "arguments": {**described["network"]["arguments"], "x": 1}},
        "scores": {**described["scores"], "val_acc": 1.0},
    }
    file.write_text(json.dumps({**described, key: changed[key]}))
    try:
        with pytest.raises(
            TrackingError, match=r"described version 1: it was registered with a model\.json of the sha256 "
        ):
            load(settings, version)
    finally:
        file.write_text(content)


def test_concurrent_registrations_of_one_model_make_one_version(recorded):
    settings, _, models, _ = recorded
    numbers = []
    threads = [
        threading.Thread(target=lambda: numbers.append(register(settings, models[0], "twice", {}))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers == [1, 1, 1]
    assert len(versions(settings, "twice")) == 1


@pytest.mark.full
def test_a_model_that_is_uploaded_late_is_registered_by_the_sweep_itself(tiny, monkeypatch):
    """The store is slow while the sweep waits for its models, and has caught up when the report is done."""
    flush, calls = Tracker.flush, []

    def slow_at_first(tracker, seconds):
        calls.append(seconds)
        return 7 if len(calls) == 1 else flush(tracker, seconds)

    released = threading.Event()
    log_model = MlflowClient.create_logged_model
    monkeypatch.setattr(Tracker, "flush", slow_at_first)
    monkeypatch.setattr(MlflowClient, "create_logged_model", lambda *a, **k: (released.wait(60), log_model(*a, **k))[1])
    wait = Drawing.wait
    monkeypatch.setattr(Drawing, "wait", lambda drawing: (released.set(), wait(drawing))[1])
    result = ferhpo.train("demo", [*tiny, "trainer.max_epochs=1"])
    assert result.registered == ("ferhpo-demo", 1)
    assert len(calls) == 2


def test_unknown_names_versions_and_models_are_errors(recorded):
    settings, _, models, _ = recorded
    register(settings, models[0], "named", {})
    with pytest.raises(TrackingError, match="named has no version 7; existing versions: 1"):
        choose(versions(settings, "named"), "named", "demo", 7)
    with pytest.raises(TrackingError, match=r"nothing has no registered version; `ferhpo sweep` registers"):
        choose(versions(settings, "nothing"), "nothing", "demo")
    with pytest.raises(TrackingError, match=r"cannot register named in sqlite:.*m-0000"):
        register(settings, "m-0000", "named", {})


@pytest.mark.parametrize(
    ("alias", "message"),
    [
        ("latest", "alias is latest; MLflow reserves latest and v<number>; choose another, e.g. champion"),
        ("V12", "alias is V12; MLflow reserves latest"),
        ("a b", "alias is 'a b'; it must consist of 1 to 255 letters, digits, - and _, e.g. champion"),
        ("", "alias is ''; it must consist of 1 to 255 letters"),
    ],
)
def test_reserved_and_invalid_aliases_are_refused(alias, message):
    with pytest.raises(TrackingError) as caught:
        check_alias(alias)
    assert str(caught.value).startswith(message)


def test_a_registry_needs_a_store(tmp_path):
    with pytest.raises(
        TrackingError, match=r"cannot move x@champion: tracking\.uri is none; the model registry needs an MLflow store"
    ):
        aliases.move(TrackingSettings(output_dir=tmp_path, uri="none"), "x", "champion", 1, None)
    with pytest.raises(TrackingError, match=r"cannot read x in http://127\.0\.0\.1:9: connection refused"):
        versions(TrackingSettings(output_dir=tmp_path, uri="http://127.0.0.1:9"), "x")
