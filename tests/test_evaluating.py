"""`ferhpo evaluate` on a small training: both variants, ten-crop, other data, the test log, refused arguments."""

import json

import numpy as np
import pytest
from PIL import Image

import ferhpo
from ferhpo import cli
from ferhpo.errors import ConfigError, DataError, FerhpoError, StillRunning, SweepError
from ferhpo.evaluation.load import load_subject
from ferhpo.scoring.metrics import CHOSEN
from ferhpo.storage import evaluation_log
from ferhpo.storage.lock import FolderLock
from tests.conftest import TINY

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


def draw_faces(folder, seed, per_class, names=CLASSES):
    """<class>/<number>.png of noise, brighter for later classes."""
    rng = np.random.default_rng(seed)
    for bright, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 100, (48, 48), dtype=np.uint8) + np.uint8(20 * bright)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with faces in train/, val/ and test/, where 3 of val and 2 of test are copies of training images, and
    two trainings on it: `once` under the published split, `mixed` under a random one."""
    folder = tmp_path_factory.mktemp("evaluating")
    for seed, (split, per_class) in enumerate((("train", 9), ("val", 4), ("test", 3))):
        draw_faces(folder / "faces" / split, seed, per_class)
    for split, count in (("val", 3), ("test", 2)):
        for name in CLASSES[:count]:
            (folder / "faces" / split / name / "0.png").write_bytes(
                (folder / "faces/train" / name / "0.png").read_bytes()
            )
    options = [*(text for text in TINY if not text.startswith("data.")), f"output_dir={folder / 'mlruns'}"]
    options += ["data=image_folder", f"data.path={folder / 'faces'}", f"data.cache_dir={folder / 'cache'}"]
    options += ["tracking=none", "trainer.max_epochs=2", "trainer.batch_size=16"]
    ferhpo.train("demo", [*options, "name=once"])
    ferhpo.train("demo", [*options, "name=mixed", "data.split=random", "trainer.max_epochs=1"])
    return folder


@pytest.fixture
def evaluate(place):
    def run(model, *overrides, **options):
        return ferhpo.evaluate(model, overrides, output_dir=place / "mlruns", **options)

    return run


def test_validation_scores_are_those_of_the_trial_in_both_variants(place, evaluate):
    (trial,) = ferhpo.load_sweep("once", place / "mlruns").trials()
    kept = trial.epochs[trial.best_epoch - 1]
    found = evaluate("once")
    assert (found.scores.all.n, found.scores.dedup.n) == (28, 25)
    assert found.scores.all.acc == kept["val_acc"] == trial.value
    assert found.scores.dedup.acc == kept["val_acc_dedup"] == trial.dedup_acc
    assert found.scores.all.macro_f1 == pytest.approx(kept["val_macro_f1"])
    assert found.scores.all.loss == pytest.approx(kept["val_loss"], rel=1e-5)
    assert found.class_names == CLASSES
    assert np.sum(found.confusion) == 28
    assert sum(np.diagonal(found.confusion)) / 28 == found.scores.all.acc
    assert [c.n for c in found.classes] == [4] * 7
    assert (found.split, found.num_test_evaluations, found.warnings, found.ten_crop) == ("val", 0, [], None)
    assert evaluate("once/0").scores == found.scores
    assert evaluate(str(place / "mlruns" / "once")).scores == found.scores
    assert not (place / "mlruns" / "once" / evaluation_log.FILE).exists(), "evaluations on validation are not logged"


def test_the_leaderboard_has_the_dedup_scores(place):
    sweep = ferhpo.load_sweep("once", place / "mlruns")
    from ferhpo.reports.sweep.leaderboard import leaderboard_csv

    heading, row = (line.split(",") for line in leaderboard_csv(sweep.trials(), "val_acc").splitlines())
    assert float(row[heading.index("val_acc_dedup")]) == sweep.trials()[0].dedup_acc


def test_each_test_evaluation_is_logged_and_the_second_gives_a_warning(place, evaluate, capsys):
    path = place / "mlruns" / "once" / evaluation_log.FILE
    path.unlink(missing_ok=True)
    first = evaluate("once", split="test", ten_crop=True)
    assert (first.scores.all.n, first.scores.dedup.n) == (21, 19)
    assert (first.ten_crop.all.n, first.ten_crop.dedup.n) == (21, 19)
    assert (first.num_test_evaluations, first.warnings) == (1, [])
    arguments = ["evaluate", "once/0", "--split", "test", "--output-dir", str(place / "mlruns")]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "warning: sweep once has been evaluated on test 2 times: " in out
    assert "all images " in out
    assert "dedup " in out
    assert "true \\ predicted" in out
    assert "surprise" in out
    one, two = evaluation_log.read_all(path.parent)
    assert (one["verb"], one["model"], one["split"], one["split_name"]) == ("evaluate", "once/0", "test", "published")
    assert one["data_digest"] == first.data_digest
    assert one["scores"]["one_view"]["dedup"]["acc"] == first.scores.dedup.acc
    assert one["scores"]["ten_crop"]["all"]["acc"] == first.ten_crop.all.acc
    assert two["scores"]["ten_crop"] is None


def test_an_evaluation_counts_also_while_a_sync_holds_the_records(place, evaluate, monkeypatch):
    def held(*arguments):
        raise StillRunning("a running sweep, or ferhpo sync, holds these records")

    monkeypatch.setattr("ferhpo.evaluation.model_scores.add_to_run", held)
    before = len(evaluation_log.read_all(place / "mlruns" / "once"))
    found = evaluate("once", split="test")
    assert found.num_test_evaluations == before + 1
    assert found.warnings[-1] == (
        "this test evaluation is not recorded in MLflow: a running sweep, or ferhpo sync, holds these records"
    )


def test_test_images_are_not_evaluated_while_a_driver_runs_the_sweep(place, evaluate):
    lock = FolderLock(place / "mlruns" / "once")
    try:
        before = evaluation_log.read_all(place / "mlruns" / "once")
        with pytest.raises(SweepError, match="sweep once is being run by process"):
            evaluate("once", split="test")
        assert evaluation_log.read_all(place / "mlruns" / "once") == before
        evaluate("once")
    finally:
        lock.release()


@pytest.mark.full
def test_another_data_set_with_its_classes_in_another_order(place, evaluate, tmp_path):
    """dedup leaves out what the model was trained on; labels follow the names."""
    draw_faces(tmp_path / "other" / "val", 7, 2)
    draw_faces(tmp_path / "other" / "train", 8, 1)
    for name in CLASSES[:4]:
        source = place / "faces" / "train" / name / "1.png"
        (tmp_path / "other" / "val" / name / "0.png").write_bytes(source.read_bytes())
    options = ["data=image_folder", f"data.path={tmp_path / 'other'}", f"data.cache_dir={place / 'cache'}"]
    found = evaluate("once", *options)
    assert (found.scores.all.n, found.scores.dedup.n) == (14, 10)
    assert found.source == "other (image folder)"

    drawn = evaluate("once", "data=synthetic", "data.num_train=7", "data.num_val=70", "data.num_test=7")
    assert drawn.class_names == CLASSES
    assert drawn.scores.dedup == drawn.scores.all
    data = ferhpo.describe_data("synthetic", ["num_train=7", "num_val=70", "num_test=7"])
    assert {c.name: c.n for c in drawn.classes} == data["counts"]["val"]


def test_data_that_moved_replace_the_models_own(place, evaluate, tmp_path):
    (place / "faces").rename(tmp_path / "moved")
    try:
        with pytest.raises(DataError, match="faces: there is no such file"):
            evaluate("once")
        found = evaluate("once", f"data.path={tmp_path / 'moved'}")
    finally:
        (tmp_path / "moved").rename(place / "faces")
    assert (found.scores.all.n, found.scores.dedup.n) == (28, 25)
    assert found.warnings == [
        "the model's own data cannot be read; dedup scores leave out the training images of moved (image folder) instead"
    ]


def test_a_random_splits_own_test_images_are_evaluated_and_never_the_published_ones(place, evaluate):
    found = evaluate("mixed", split="test")
    assert (found.split_name, found.num_test_evaluations) == ("random", 1)
    with pytest.raises(ConfigError) as caught:
        evaluate("mixed", "data.split=published", split="test")
    assert str(caught.value) == (
        "evaluate: data.split is published; mixed/0 was trained under data.split=random, so these test images may have been "
        "used for training or selection; evaluate on the split of the training, or train under data.split=published"
    )
    with pytest.raises(ConfigError, match=r"data\.split is random; once/0 was trained under data\.split=published"):
        evaluate("once", "data.split=random", split="test")
    with pytest.raises(ConfigError, match=r"data\.split is random; mixed/0 was trained under data\.split=random"):
        evaluate("mixed", "data.split_seed=1", split="test")
    assert len(evaluation_log.read_all(place / "mlruns" / "mixed")) == 1
    dedup = evaluate("mixed", "data.split=published").scores.dedup
    assert dedup is None or dedup.n < 28, "validation images that it was trained on are left out"


def test_pixels_in_common_are_found_in_another_form(place, evaluate, tmp_path):
    """The same test images in another data set: names do not matter."""
    for name in CLASSES:
        for split in ("train", "val", "test"):
            (tmp_path / "copy" / split / name).mkdir(parents=True)
            for path in (place / "faces" / "test" / name).iterdir():
                (tmp_path / "copy" / split / name / path.name).write_bytes(path.read_bytes())
    from ferhpo.data import image_folder, synthetic
    from ferhpo.evaluation.evaluate import _may_have_used
    from ferhpo.evaluation.load import find_model

    options = {"cache_dir": str(place / "cache")}
    training = image_folder.load(place / "faces", split="random", **options)
    copied = image_folder.load(tmp_path / "copy", **options)
    drawn = synthetic.load(num_train=7, num_test=7)
    mixed, once = (find_model(name, place / "mlruns") for name in ("mixed", "once"))
    other = {"_target_": "ferhpo.data.other.load"}
    assert _may_have_used(mixed, other, copied, training)
    assert not _may_have_used(mixed, other, drawn, training)
    assert not _may_have_used(once, other, copied, image_folder.load(place / "faces", **options))


REFUSED = [
    (["nothing"], {}, SweepError, "there is no sweep nothing in {folder}/mlruns; choose from: mixed, once"),
    (["once/3"], {}, SweepError, "sweep once has no trial 3; it has trials 0 to 0"),
    (["models:once"], {}, SweepError, "models:once is not the name of a model; write models:/NAME@ALIAS or models:/NAME/VERSION"),
    (["once", "optim.lr=1"], {}, ConfigError, "evaluate: optim.lr cannot be overridden in an evaluation; select the data set with data=... and data.KEY=..."),
    (["once", "data.spilt=random"], {}, ConfigError, "evaluate: data.spilt matches no key; did you mean data.split?"),
    (["once"], {"split": "train"}, ConfigError, "evaluate: --split is train; it must be val or test"),
    (["once", "data.split=folder"], {"split": "test"}, ConfigError, "evaluate: data.split is folder; faces (image folder) then has no test images; choose another split"),
    (["once", "data=synthetic", "data.image_size=32", "data.num_train=7", "data.num_val=7", "data.num_test=7"], {}, ConfigError, "evaluate: data.image_size is 32; the model takes 48; add data.image_size=48"),
    (["once", "data.channels=3"], {}, ConfigError, "evaluate: data.channels is 3; the model takes 1; add data.channels=1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"), REFUSED, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_what_cannot_be_evaluated_is_refused(place, evaluate, arguments, options, error, message):
    with pytest.raises(error) as caught:
        evaluate(*arguments, **options)
    assert str(caught.value).startswith(message.format(folder=place))


def test_other_classes_are_refused(evaluate, tmp_path):
    draw_faces(tmp_path / "ck", 1, 20, names=("anger", "happy"))
    with pytest.raises(
        DataError,
        match=r"ck \(image folder\): it has anger, which the model does not predict; it does not have angry, disg",
    ):
        evaluate("once", f"data.path={tmp_path / 'ck'}", "data.split=random")


def test_calibration_and_robustness(place, evaluate, capsys):
    found = evaluate("once", calibration=True, robustness=True)
    assert found.calibration.n == found.scores.all.n
    assert 0.05 <= found.calibration.temperature <= 20
    assert found.calibration.nll_after <= found.calibration.nll + 1e-9
    assert sum(each.count for each in found.calibration.bins) == found.scores.all.n
    whole, *others = found.robustness
    assert (whole.severity, whole.acc) == (0, found.scores.all.acc)
    assert len(others) == 45
    command = ["evaluate", "once", "--output-dir", str(place / "mlruns"), "--calibration", "--robustness"]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "expected calibration error" in shown
    assert "low resolution" in shown
    assert cli.main([*command, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["robustness"]) == 46


def test_the_temperature_for_test_images_is_fitted_to_validation_images(evaluate):
    val, test = (evaluate("once", split=split, calibration=True).calibration for split in ("val", "test"))
    assert test.temperature == pytest.approx(val.temperature)


def test_a_mistake_ends_with_exit_status_2(place, capsys):
    assert cli.main(["evaluate", "once", "--json", "optim.lr=1", "--output-dir", str(place / "mlruns")]) == 2
    assert json.loads(capsys.readouterr().out)["faults"]


def test_json_of_evaluate(place, capsys):
    assert cli.main(["evaluate", "once", "--ten-crop", "--json", "--output-dir", str(place / "mlruns")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["scores"]["all"]) == {"n", "acc", "macro_f1", "loss", "metrics"}
    assert set(found["scores"]["all"]["metrics"]) == set(CHOSEN)
    assert found["ten_crop"]["dedup"]["n"] == 25


def test_a_subject_is_loaded_with_its_data_by_number_or_as_the_best(place):
    sweep = ferhpo.load_sweep("once", place / "mlruns")
    subject = load_subject(sweep)
    assert subject.predictions.acc == sweep.best().value
    assert subject.data.class_names == CLASSES
    assert load_subject(sweep, 0, subject.data).predictions.acc == subject.predictions.acc
    with pytest.raises(SweepError, match="sweep once has no trial 3; it has trials 0 to 0"):
        load_subject(sweep, 3)


def test_a_sweep_without_a_complete_trial_names_none(place):
    from dataclasses import replace

    from ferhpo.storage.sweep import create_sweep

    composed = ferhpo.load_sweep("once", place / "mlruns").composed
    empty = create_sweep(replace(composed, config={**composed.config, "name": "empty"}))
    with pytest.raises(FerhpoError) as caught:
        ferhpo.evaluate("empty", output_dir=place / "mlruns")
    assert str(caught.value) == "sweep empty has no complete trial to evaluate; name one of its trials, e.g. empty/0"
    with pytest.raises(SweepError, match="sweep empty has no complete trial; give the number of a trial"):
        load_subject(empty)
