"""The file of readings of the test split, and what is said of it."""

import json

import numpy as np
import pytest

from ferhpo.data.dataset import TEST, TRAIN, VAL, face_data
from ferhpo.errors import StorageError, SweepError
from ferhpo.storage import test_log

LINE = {"n": 2, "acc": 0.5, "macro_f1": 0.25, "loss": 1.5}
SCORES = {"one_view": {"published": LINE, "clean": {**LINE, "n": 1, "acc": 1.0}}, "ten_crop": None}


@pytest.fixture
def data():
    split = np.array([TRAIN, VAL, TEST, TEST], np.uint8)
    return face_data(np.zeros((4, 2, 2), np.uint8), np.zeros(4, np.int64), split, ("a",), "made", "published")


def test_readings_are_kept_in_their_order(tmp_path, data):
    assert test_log.read_all(tmp_path) == []
    first = test_log.note(tmp_path, test_log.new_reading("evaluate", "demo/7", data, SCORES))
    both = test_log.note(tmp_path, test_log.new_reading("confirm", "demo-confirm", data, SCORES, confirmation_id="c"))
    assert both == test_log.read_all(tmp_path)
    assert both[:1] == first
    assert [reading["verb"] for reading in both] == ["evaluate", "confirm"]
    assert {
        key: both[1][key] for key in ("model", "split", "split_name", "data_digest", "confirmation_id", "scores")
    } == {
        "model": "demo-confirm",
        "split": "test",
        "split_name": "published",
        "data_digest": data.digest,
        "confirmation_id": "c",
        "scores": SCORES,
    }
    assert [json.loads(line) for line in (tmp_path / "test_readings.jsonl").read_text().splitlines()] == both


def test_the_second_reading_is_told(data):
    noted = [{**test_log.new_reading("evaluate", f"demo/{n}", data, SCORES), "when": f"day {n}"} for n in (1, 2)]
    assert test_log.repeated("demo", noted[:1]) == []
    assert test_log.repeated("demo", noted) == [
        "test has been read 2 times for this sweep, demo: day 1 evaluate demo/1; day 2 evaluate demo/2. "
        "What was chosen by earlier readings makes later ones too good"
    ]


def test_what_the_run_is_told(data):
    reading = test_log.new_reading("evaluate", "demo/1", data, SCORES)
    tags = test_log.tags(reading, 2)
    assert tags["ferhpo.test_readings"] == "2"
    assert json.loads(tags["ferhpo.test_reading.2"]) == {k: v for k, v in reading.items() if k != "scores"}
    assert test_log.metrics({**SCORES, "ten_crop": {"published": LINE, "clean": None}}) == {
        "test_n": 2.0,
        "test_acc": 0.5,
        "test_macro_f1": 0.25,
        "test_loss": 1.5,
        "test_n_clean": 1.0,
        "test_acc_clean": 1.0,
        "test_macro_f1_clean": 0.25,
        "test_loss_clean": 1.5,
        "test_n_ten_crop": 2.0,
        "test_acc_ten_crop": 0.5,
        "test_macro_f1_ten_crop": 0.25,
        "test_loss_ten_crop": 1.5,
    }


def test_a_line_that_is_no_reading_is_named(tmp_path):
    (tmp_path / "test_readings.jsonl").write_text('{"when": "now"}\n{"whe')
    with pytest.raises(SweepError) as caught:
        test_log.read_all(tmp_path)
    assert str(caught.value) == f"{tmp_path}/test_readings.jsonl: line 2 is no reading; delete that line"


def test_a_disk_that_refuses_keeps_the_file_as_it_was(tmp_path, data, monkeypatch):
    test_log.note(tmp_path, test_log.new_reading("evaluate", "demo/7", data, SCORES))
    before = (tmp_path / "test_readings.jsonl").read_bytes()
    monkeypatch.setattr(test_log.os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageError) as caught:
        test_log.note(tmp_path, test_log.new_reading("evaluate", "demo/8", data, SCORES))
    assert str(caught.value) == (
        f"{tmp_path}/test_readings.jsonl cannot be written (No space left on device); free some space there"
    )
    assert (tmp_path / "test_readings.jsonl").read_bytes() == before
