"""`ferhpo compare` on small trainings: the same images, exact tests, what differs, the page; and what sweeps keep."""

import json
import shutil

import numpy as np
import pytest

import ferhpo
from ferhpo import cli
from ferhpo.errors import ConfigError, DataError, SweepError
from ferhpo.evaluation.chosen import corrected_best, kept_predictions
from ferhpo.evaluation.comparison import verdicts
from ferhpo.reports.comparison import comparison_page
from ferhpo.scoring.kept import FILE
from ferhpo.storage.sweep import load_sweep
from tests.conftest import TINY
from tests.test_evaluating import CLASSES, draw_faces


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Trainings on faces in train/ and val/: `one` and `two` differ in their learning rate, `mixed` in its split,
    `folded` is cross-validated; and a sweep."""
    folder = tmp_path_factory.mktemp("comparing")
    for seed, (split, per_class) in enumerate((("train", 9), ("val", 6))):
        draw_faces(folder / "faces" / split, seed, per_class)
    draw_faces(folder / "others" / "train", 7, 5, names=("a", "b"))
    draw_faces(folder / "others" / "val", 8, 5, names=("a", "b"))
    options = [*(text for text in TINY if not text.startswith("data.")), f"output_dir={folder / 'mlruns'}"]
    options += ["data=image_folder", f"data.path={folder / 'faces'}", f"data.cache_dir={folder / 'cache'}"]
    options += ["tracking=none", "trainer.max_epochs=2", "trainer.batch_size=16"]
    ferhpo.train("demo", [*options, "name=one"])
    ferhpo.train("demo", [*options, "name=two", "optim.lr=0.02", "seed=3"])
    ferhpo.train("demo", [*options, "name=mixed", "data.split=random", "data.val_fraction=0.3"])
    ferhpo.train("demo", [*options, "name=other", f"data.path={folder / 'others'}"])
    ferhpo.train("demo", [*options, "name=folded", "data.folds=3", "trainer.max_epochs=1"])
    ferhpo.train("demo", [*options, "name=folded2", "data.folds=3", "trainer.max_epochs=1", "optim.lr=0.02"])
    return folder


@pytest.fixture
def compare(place):
    def run(*models, **options):
        return ferhpo.compare(*models, output_dir=place / "mlruns", **options)

    return run


def test_a_trial_keeps_the_predictions_of_its_best_epoch(place):
    sweep = load_sweep("one", place / "mlruns")
    (trial,) = sweep.trials()
    kept = kept_predictions(sweep, trial)
    found = ferhpo.evaluate("one", output_dir=place / "mlruns")
    assert kept.epoch == trial.best_epoch
    assert (kept.probabilities.argmax(1) == kept.labels).mean() == found.scores.all.acc
    assert kept.losses.mean() == pytest.approx(found.scores.all.loss, abs=2e-3)


def test_predictions_of_another_epoch_do_not_count(place):
    from dataclasses import replace

    sweep = load_sweep("one", place / "mlruns")
    (trial,) = sweep.trials()
    assert kept_predictions(sweep, replace(trial, best_epoch=trial.best_epoch + 1)) is None


def test_networks_are_scored_on_the_same_images(place, compare):
    found = compare("one", "two")
    assert found.n == 42
    assert found.left_out == 0
    for model, name in zip(found.models, ("one", "two"), strict=True):
        scores = ferhpo.evaluate(name, output_dir=place / "mlruns")
        assert model.acc == scores.scores.all.acc
        assert model.macro_f1 == pytest.approx(scores.scores.all.macro_f1)
        assert model.loss == pytest.approx(scores.scores.all.loss, abs=2e-3)
        assert [(each.n, each.recall) for each in model.classes] == [(each.n, each.recall) for each in scores.classes]
        assert model.low < model.acc < model.high
    (pair,) = found.pairs
    assert pair.found.difference == pytest.approx(found.models[0].acc - found.models[1].acc)
    assert sum(each.only_first for each in pair.classes) == pair.found.only_first


def test_what_differs_is_named_and_places_are_not(compare):
    found = compare("one", "two")
    settings = dict(found.settings)
    assert settings["optim.lr"][1] == 0.02
    assert settings["seed"] == [0, 3]
    assert not [key for key in settings if "path" in key or "cache" in key or "model" in key]
    assert found.versions == []


def test_images_on_which_they_differ(compare):
    found = compare("one", "two")
    assert found.images
    for image in found.images:
        assert len(set(image.predicted)) == 2
        assert image.label in CLASSES
    least = [min(image.probabilities) for image in found.images]
    assert least == sorted(least, reverse=True)


def test_no_network_is_needed(place, compare, tmp_path):
    """The checkpoints of all but the best trials are removed; what is kept of the predictions suffices."""
    before = compare("one", "two").to_json()
    shutil.copytree(place / "mlruns", tmp_path / "mlruns")
    for path in (tmp_path / "mlruns").rglob("*.ckpt"):
        path.unlink()
    assert ferhpo.compare("one", "two", output_dir=tmp_path / "mlruns").to_json() == before


def test_no_kept_predictions_are_needed(place, compare, tmp_path):
    before = compare("one", "two")
    shutil.copytree(place / "mlruns", tmp_path / "mlruns")
    for path in (tmp_path / "mlruns").rglob(FILE):
        path.unlink()
    found = ferhpo.compare("one", "two", output_dir=tmp_path / "mlruns")
    assert [model.acc for model in found.models] == [model.acc for model in before.models]
    assert found.pairs == before.pairs


def test_images_that_a_network_was_trained_on_are_left_out(place, compare):
    found = compare("one", "mixed")
    assert 0 < found.n < 42
    assert found.left_out == 42 - found.n
    assert dict(found.settings)["data.split"] == ["published", "random"] or "data.split" in dict(found.settings)
    from ferhpo.trial.load_data import load_data

    data = load_data(load_sweep("mixed", place / "mlruns").composed)
    trained = {image.tobytes() for image in data.images[data.split == 0]}
    own = load_data(load_sweep("one", place / "mlruns").composed)
    shown = [own.images[image.index].tobytes() for image in found.images]
    assert not trained & set(shown)


def test_cross_validated_networks_are_compared_on_all_folds(compare):
    found = compare("folded", "folded2")
    assert found.n == 7 * 15


def test_three_networks_have_three_pairs(compare):
    found = compare("one", "two", "mixed")
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        ("one/0", "two/0"), ("one/0", "mixed/0"), ("two/0", "mixed/0"),
    ]  # fmt: skip
    assert all(pair.adjusted >= pair.found.p_value for pair in found.pairs)
    assert all("adjusted for 3 pairs" in text for text in verdicts(found) if "McNemar" in text)


@pytest.mark.parametrize(
    ("models", "overrides", "error", "message"),
    [
        (["one"], [], ConfigError, "1 models were named; compare 2 to 8"),
        (["one", "one"], [], ConfigError, "named twice"),
        (["one", "two"], ["optim.lr=1"], ConfigError, "optim.lr cannot be overridden in a comparison"),
        (["one", "nothing"], [], SweepError, "there is no sweep nothing"),
        (["one", "two/7"], [], SweepError, "has no trial 7"),
        (["one", "other"], [], DataError, "its classes must be those of the model"),
    ],
)
def test_what_cannot_be_compared_is_refused(compare, models, overrides, error, message):
    with pytest.raises(error, match=message):
        compare(*models, overrides=overrides)


def test_the_page_has_everything_and_nothing_from_outside(place, compare, tmp_path):
    page = comparison_page(compare("one", "two"), tmp_path / "new" / "page.html").read_text()
    for title in ("Scores", "Curves", "Classes", "Images on which they differ", "Settings that differ"):
        assert f">{title}</h3>" in page
    assert "<script" not in page
    assert 'src="http' not in page
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "page.html"]


def test_the_command_line(place, tmp_path, capsys):
    command = ["compare", "one", "two", "--output-dir", str(place / "mlruns")]
    assert cli.main([*command, "--out", str(tmp_path / "page.html")]) == 0
    shown = capsys.readouterr().out
    for text in ("one/0", "two/0", "optim.lr", "McNemar", str(tmp_path / "page.html")):
        assert text in shown
    assert cli.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 42
    assert "data" not in found
    assert cli.main(["compare", "one", "--output-dir", str(place / "mlruns")]) == 2


@pytest.mark.full
def test_a_sweep_ends_with_its_best_value_corrected(tmp_path, capsys):
    options = [*TINY, f"output_dir={tmp_path / 'mlruns'}", "num_trials=4", "trainer.max_epochs=1", "data.num_val=140"]
    assert cli.main(["sweep", "demo", *options, "sampler=random", "scheduler=none"]) == 0
    shown = capsys.readouterr().out
    assert "Corrected for the choice among 4 complete trials, the best val_acc is" in shown
    sweep = load_sweep("demo", tmp_path / "mlruns")
    found, why = corrected_best(sweep, sweep.trials())
    assert why == ""
    assert found.num_trials == 4
    assert found.low < found.corrected < found.high
    assert sum(share for _, share in found.likely) == pytest.approx(1)
    from ferhpo.tracking.store import connect

    client = connect(sweep.tracking)
    (experiment,) = [each for each in client.search_experiments() if each.name == "ferhpo"]
    assert np.isfinite(found.corrected)
    runs = client.search_runs([experiment.experiment_id])
    corrected = [
        run.data.metrics["best_val_acc_corrected"] for run in runs if "best_val_acc_corrected" in run.data.metrics
    ]
    assert corrected == [pytest.approx(found.corrected, abs=1e-3)]
    page = ferhpo.report("demo", output_dir=str(tmp_path / "mlruns")).read_text()
    assert "How sure the choice is" in page
