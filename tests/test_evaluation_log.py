"""The log of test evaluations, its warnings, tags and metrics."""

import json

import numpy as np
import pytest

from ferhpo.data.dataset import TEST, TRAIN, VAL, face_data
from ferhpo.errors import StorageError, SweepError
from ferhpo.storage import evaluation_log

SCORE = {"n": 2, "acc": 0.5, "macro_f1": 0.25, "loss": 1.5}
SCORES = {"one_view": {"all": SCORE, "dedup": {**SCORE, "n": 1, "acc": 1.0}}, "ten_crop": None}


@pytest.fixture
def data():
    split = np.array([TRAIN, VAL, TEST, TEST], np.uint8)
    return face_data(np.zeros((4, 2, 2), np.uint8), np.zeros(4, np.int64), split, ("a",), "made", "published")


def test_evaluations_are_kept_in_their_order(tmp_path, data):
    assert evaluation_log.read_all(tmp_path) == []
    first = evaluation_log.append(tmp_path, evaluation_log.new_entry("evaluate", "demo/7", data, SCORES))
    both = evaluation_log.append(
        tmp_path, evaluation_log.new_entry("confirm", "demo-confirm", data, SCORES, confirmation_id="c")
    )
    assert both == evaluation_log.read_all(tmp_path)
    assert both[:1] == first
    assert [entry["verb"] for entry in both] == ["evaluate", "confirm"]
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


def test_a_log_of_an_earlier_version_has_todays_variants(tmp_path, data):
    old = {"one_view": {"published": SCORE, "clean": None}, "ten_crop": None}
    evaluation_log.append(tmp_path, evaluation_log.new_entry("evaluate", "demo/7", data, old))
    (entry,) = evaluation_log.read_all(tmp_path)
    assert entry["scores"] == {"one_view": {"all": SCORE, "dedup": None}, "ten_crop": None}


def test_the_second_evaluation_gives_a_warning(data):
    log = [{**evaluation_log.new_entry("evaluate", f"demo/{n}", data, SCORES), "when": f"day {n}"} for n in (1, 2)]
    assert evaluation_log.repeat_warnings("demo", log[:1]) == []
    assert evaluation_log.repeat_warnings("demo", log) == [
        "sweep demo has been evaluated on test 2 times: day 1 evaluate demo/1; day 2 evaluate demo/2. "
        "Test scores are optimistic if earlier ones influenced what was evaluated later"
    ]


def test_tags_and_metrics_of_the_run(data):
    entry = evaluation_log.new_entry("evaluate", "demo/1", data, SCORES)
    tags = evaluation_log.tags(entry, 2)
    assert tags["ferhpo.test_readings"] == "2"
    assert json.loads(tags["ferhpo.test_reading.2"]) == {k: v for k, v in entry.items() if k != "scores"}
    assert evaluation_log.metrics({**SCORES, "ten_crop": {"all": SCORE, "dedup": None}}) == {
        "test_n": 2.0,
        "test_acc": 0.5,
        "test_macro_f1": 0.25,
        "test_loss": 1.5,
        "test_n_dedup": 1.0,
        "test_acc_dedup": 1.0,
        "test_macro_f1_dedup": 0.25,
        "test_loss_dedup": 1.5,
        "test_n_ten_crop": 2.0,
        "test_acc_ten_crop": 0.5,
        "test_macro_f1_ten_crop": 0.25,
        "test_loss_ten_crop": 1.5,
    }


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "test_readings.jsonl").write_text('{"when": "now"}\n{"whe')
    with pytest.raises(SweepError) as caught:
        evaluation_log.read_all(tmp_path)
    assert str(caught.value) == f"{tmp_path}/test_readings.jsonl: line 2 is not a test evaluation; delete that line"


def test_a_disk_that_refuses_keeps_the_file_as_it_was(tmp_path, data, monkeypatch):
    evaluation_log.append(tmp_path, evaluation_log.new_entry("evaluate", "demo/7", data, SCORES))
    before = (tmp_path / "test_readings.jsonl").read_bytes()
    monkeypatch.setattr(
        evaluation_log.os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(StorageError) as caught:
        evaluation_log.append(tmp_path, evaluation_log.new_entry("evaluate", "demo/8", data, SCORES))
    assert str(caught.value) == (
        f"{tmp_path}/test_readings.jsonl cannot be written (No space left on device); free some space there"
    )
    assert (tmp_path / "test_readings.jsonl").read_bytes() == before
