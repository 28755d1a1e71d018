"""`ferhpo evaluate` on a small training: both lines, ten-crop, other data, what is noted, what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

import ferhpo
from ferhpo import cli
from ferhpo.errors import ConfigError, DataError, FerhpoError, StillRunning, SweepError
from ferhpo.storage import test_log
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


def test_validation_is_what_the_trial_had_in_both_lines(place, evaluate):
    (trial,) = ferhpo.load_sweep("once", place / "mlruns").trials()
    kept = trial.epochs[trial.best_epoch - 1]
    found = evaluate("once")
    assert (found.scores.published.n, found.scores.clean.n) == (28, 25)
    assert found.scores.published.acc == kept["val_acc"] == trial.value
    assert found.scores.clean.acc == kept["val_acc_clean"] == trial.clean_acc
    assert found.scores.published.macro_f1 == pytest.approx(kept["val_macro_f1"])
    assert found.scores.published.loss == pytest.approx(kept["val_loss"], rel=1e-5)
    assert found.class_names == CLASSES
    assert np.sum(found.confusion) == 28
    assert sum(np.diagonal(found.confusion)) / 28 == found.scores.published.acc
    assert [c.n for c in found.classes] == [4] * 7
    assert (found.split, found.num_readings, found.warnings, found.ten_crop) == ("val", 0, [], None)
    assert evaluate("once/0").scores == found.scores
    assert evaluate(str(place / "mlruns" / "once")).scores == found.scores
    assert not (place / "mlruns" / "once" / test_log.FILE).exists(), "validation images may be looked at"


def test_the_leaderboard_has_the_second_line(place):
    record = ferhpo.load_sweep("once", place / "mlruns")
    from ferhpo.reports.sweep.leaderboard import leaderboard_csv

    heading, row = (line.split(",") for line in leaderboard_csv(record.trials(), "val_acc").splitlines())
    assert float(row[heading.index("val_acc_clean")]) == record.trials()[0].clean_acc


def test_each_reading_of_test_images_is_noted_and_the_second_is_told(place, evaluate, capsys):
    path = place / "mlruns" / "once" / test_log.FILE
    path.unlink(missing_ok=True)
    first = evaluate("once", split="test", ten_crop=True)
    assert (first.scores.published.n, first.scores.clean.n) == (21, 19)
    assert (first.ten_crop.published.n, first.ten_crop.clean.n) == (21, 19)
    assert (first.num_readings, first.warnings) == (1, [])
    arguments = ["evaluate", "once/0", "--split", "test", "--output-dir", str(place / "mlruns")]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "warning: test has been read 2 times for this sweep, once: " in out
    assert "without overlap" in out
    assert "surprise" in out
    one, two = test_log.read_all(path.parent)
    assert (one["verb"], one["model"], one["split"], one["split_name"]) == ("evaluate", "once/0", "test", "published")
    assert one["data_digest"] == first.data_digest
    assert one["scores"]["one_view"]["clean"]["acc"] == first.scores.clean.acc
    assert one["scores"]["ten_crop"]["published"]["acc"] == first.ten_crop.published.acc
    assert two["scores"]["ten_crop"] is None


def test_a_reading_is_told_also_while_a_sync_holds_the_records(place, evaluate, monkeypatch):
    def held(*arguments):
        raise StillRunning("a running sweep, or ferhpo sync, holds these records")

    monkeypatch.setattr("ferhpo.evaluation.evaluate.add_to_run", held)
    before = len(test_log.read_all(place / "mlruns" / "once"))
    found = evaluate("once", split="test")
    assert found.num_readings == before + 1
    assert found.warnings[-1] == (
        "MLflow is not told of this reading: a running sweep, or ferhpo sync, holds these records"
    )


def test_test_images_are_not_read_while_a_driver_runs_the_sweep(place, evaluate):
    lock = FolderLock(place / "mlruns" / "once")
    try:
        before = test_log.read_all(place / "mlruns" / "once")
        with pytest.raises(SweepError, match="sweep once is being run by process"):
            evaluate("once", split="test")
        assert test_log.read_all(place / "mlruns" / "once") == before
        evaluate("once")
    finally:
        lock.release()


def test_another_data_set_with_its_classes_in_another_order(place, evaluate, tmp_path):
    """The overlap is with what the model was trained on; labels follow the names."""
    draw_faces(tmp_path / "other" / "val", 7, 2)
    draw_faces(tmp_path / "other" / "train", 8, 1)
    for name in CLASSES[:4]:
        source = place / "faces" / "train" / name / "1.png"
        (tmp_path / "other" / "val" / name / "0.png").write_bytes(source.read_bytes())
    options = ["data=image_folder", f"data.path={tmp_path / 'other'}", f"data.cache_dir={place / 'cache'}"]
    found = evaluate("once", *options)
    assert (found.scores.published.n, found.scores.clean.n) == (14, 10)
    assert found.source == "other (image folder)"

    drawn = evaluate("once", "data=synthetic", "data.num_train=7", "data.num_val=70", "data.num_test=7")
    assert drawn.class_names == CLASSES
    assert drawn.scores.clean == drawn.scores.published
    data = ferhpo.describe_data("synthetic", ["num_train=7", "num_val=70", "num_test=7"])
    assert {c.name: c.n for c in drawn.classes} == data["counts"]["val"]


def test_a_file_that_moved_stands_for_the_models_own(place, evaluate, tmp_path):
    (place / "faces").rename(tmp_path / "moved")
    try:
        with pytest.raises(DataError, match="faces: there is no such file"):
            evaluate("once")
        found = evaluate("once", f"data.path={tmp_path / 'moved'}")
    finally:
        (tmp_path / "moved").rename(place / "faces")
    assert (found.scores.published.n, found.scores.clean.n) == (28, 25)
    assert found.warnings == [
        "the model's own data cannot be read; the training images of moved (image folder) stand for it"
    ]


def test_a_random_splits_own_test_images_are_read_and_never_the_published_ones(place, evaluate):
    found = evaluate("mixed", split="test")
    assert (found.split_name, found.num_readings) == ("random", 1)
    with pytest.raises(ConfigError) as caught:
        evaluate("mixed", "data.split=published", split="test")
    assert str(caught.value) == (
        "evaluate: data.split is published, and mixed/0 was trained under data.split=random: its training or its "
        "selection may have seen these test images; leave data.split as it was, or train under data.split=published"
    )
    with pytest.raises(ConfigError, match=r"data\.split is random, and once/0 was trained under data\.split=published"):
        evaluate("once", "data.split=random", split="test")
    with pytest.raises(ConfigError, match=r"data\.split is random, and mixed/0 was trained under data\.split=random"):
        evaluate("mixed", "data.split_seed=1", split="test")
    assert len(test_log.read_all(place / "mlruns" / "mixed")) == 1
    clean = evaluate("mixed", "data.split=published").scores.clean
    assert clean is None or clean.n < 28, "validation images that it was trained on are left out of the second line"


def test_pixels_in_common_are_found_in_another_form(place, evaluate, tmp_path):
    """The same test images as another reader's: what they are called does not matter."""
    for name in CLASSES:
        for split in ("train", "val", "test"):
            (tmp_path / "copy" / split / name).mkdir(parents=True)
            for path in (place / "faces" / "test" / name).iterdir():
                (tmp_path / "copy" / split / name / path.name).write_bytes(path.read_bytes())
    from ferhpo.data import image_folder, synthetic
    from ferhpo.evaluation.evaluate import _may_have_seen
    from ferhpo.evaluation.load import find_model

    options = {"cache_dir": str(place / "cache")}
    training = image_folder.load(place / "faces", split="random", **options)
    copied = image_folder.load(tmp_path / "copy", **options)
    drawn = synthetic.load(num_train=7, num_test=7)
    mixed, once = (find_model(name, place / "mlruns") for name in ("mixed", "once"))
    other = {"_target_": "ferhpo.data.other.load"}
    assert _may_have_seen(mixed, other, copied, training)
    assert not _may_have_seen(mixed, other, drawn, training)
    assert not _may_have_seen(once, other, copied, image_folder.load(place / "faces", **options))


REFUSED = [
    (["nothing"], {}, SweepError, "there is no sweep nothing in {folder}/mlruns; there are: mixed, once"),
    (["once/3"], {}, SweepError, "sweep once has no trial 3; it has trials 0 to 0"),
    (["models:once"], {}, SweepError, "models:once names no model; write models:/NAME@ALIAS or models:/NAME/VERSION"),
    (["once", "optim.lr=1"], {}, ConfigError, "evaluate: optim.lr is no setting of an evaluation; data=... and data.key=... choose what is evaluated"),
    (["once", "data.spilt=random"], {}, ConfigError, "evaluate: data.spilt matches no key; did you mean data.split?"),
    (["once"], {"split": "train"}, ConfigError, "evaluate: --split is train; it is val or test"),
    (["once", "data.split=folder"], {"split": "test"}, ConfigError, "evaluate: data.split is folder, which leaves no test images in faces (image folder)"),
    (["once", "data=synthetic", "data.image_size=32", "data.num_train=7", "data.num_val=7", "data.num_test=7"], {}, ConfigError, "evaluate: data has images of 32 pixels a side, and the model takes 48; add data.image_size=48"),
    (["once", "data.channels=3"], {}, ConfigError, "evaluate: data has 3 channels, and the model takes 1; add data.channels=1"),
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


def test_a_mistake_ends_with_exit_status_2(place, capsys):
    assert cli.main(["evaluate", "once", "--json", "optim.lr=1", "--output-dir", str(place / "mlruns")]) == 2
    assert json.loads(capsys.readouterr().out)["faults"]


def test_json_of_evaluate(place, capsys):
    assert cli.main(["evaluate", "once", "--ten-crop", "--json", "--output-dir", str(place / "mlruns")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["scores"]["published"]) == {"n", "acc", "macro_f1", "loss"}
    assert found["ten_crop"]["clean"]["n"] == 25


def test_a_sweep_without_a_complete_trial_names_none(place):
    from dataclasses import replace

    from ferhpo.storage.sweep import create_sweep

    composed = ferhpo.load_sweep("once", place / "mlruns").composed
    create_sweep(replace(composed, config={**composed.config, "name": "empty"}))
    with pytest.raises(FerhpoError) as caught:
        ferhpo.evaluate("empty", output_dir=place / "mlruns")
    assert str(caught.value) == "sweep empty has no complete trial to evaluate; name one of its trials, as empty/0"
