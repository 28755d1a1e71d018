"""A journal or sweep.json that was cut or garbled: the sweep resumes consistently, or the error names the place."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ferhpo.cli import main
from ferhpo.errors import StorageError, SweepError
from ferhpo.storage.listing import list_sweeps
from ferhpo.storage.lock import LOCK, FolderLock
from ferhpo.storage.meta import META
from ferhpo.storage.study.journal import JOURNAL
from ferhpo.storage.sweep import load_sweep
from ferhpo.storage.trial_record import read_trials
from tests.reports.made_sweeps import made_sweep
from tests.test_study import OBJECTIVE, open_study, state, step

NUM_TRIALS = 6


def run_to_the_end(study) -> None:
    while study.num_asked < NUM_TRIALS or study.interrupted():
        step(study)
    study.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """For each sampler, the journal of an undamaged sweep and the state of its trials."""
    result = {}
    for name in ("random", "tpe", "cmaes", "grid"):
        folder = tmp_path_factory.mktemp(name)
        run_to_the_end(open_study(folder, name))
        result[name] = (folder / JOURNAL).read_bytes(), [row[:-1] for row in state(folder)]
    return result


def examples(usual: int) -> settings:
    """Return settings for this many examples, or $FERHPO_FUZZ if it is set."""
    number = int(os.environ.get("FERHPO_FUZZ", usual))
    return settings(max_examples=number, deadline=None, suppress_health_check=list(HealthCheck))


@examples(25)
@given(name=st.sampled_from(["random", "tpe", "cmaes", "grid"]), cut=st.floats(0, 1), tail=st.binary(max_size=40))
def test_a_journal_cut_at_any_byte_goes_on_to_the_same_end(tmp_path_factory, whole, name, cut, tail):
    """Also if a power loss left bytes in the last line that belong to no line."""
    journal, expected = whole[name]
    folder = tmp_path_factory.mktemp("cut")
    (folder / JOURNAL).write_bytes(journal[: int(cut * len(journal))] + tail.replace(b"\n", b"\0"))
    run_to_the_end(open_study(folder, name))
    assert [row[:-1] for row in state(folder)] == expected


@pytest.mark.full
@pytest.mark.parametrize("name", ["random", "cmaes"])
def test_a_journal_cut_at_every_byte_of_its_lines_opens(tmp_path, whole, name):
    journal, _ = whole[name]
    for size in range(0, len(journal), 7):
        (tmp_path / JOURNAL).write_bytes(journal[:size])
        study = open_study(tmp_path, name)
        assert [trial.number for trial in study.trials()] == list(range(study.num_asked))
        study.close()


def assert_damaged_line_named(folder, name, number) -> None:
    with pytest.raises(
        SweepError,
        match=rf"{JOURNAL}: line {number} is damaged; restore the file from a copy, or keep the lines before",
    ):
        open_study(folder, name)
    FolderLock(folder).release()  # the folder is not locked


@examples(20)
@given(garbage=st.binary(max_size=30).filter(lambda data: b"\n" not in data), place=st.floats(0, 1))
def test_a_broken_line_is_named(tmp_path_factory, whole, garbage, place):
    try:
        if isinstance(json.loads(garbage), dict):
            return
    except ValueError:
        pass
    journal, _ = whole["random"]
    lines = journal.splitlines(keepends=True)
    number = int(place * (len(lines) - 1))
    folder = tmp_path_factory.mktemp("broken")
    (folder / JOURNAL).write_bytes(b"".join([*lines[:number], garbage + b"\n", *lines[number + 1 :]]))
    assert_damaged_line_named(folder, "random", number + 1)


@pytest.mark.parametrize("text", ['{"op_code":99,"worker_id":""}', '{"op_code":4}', "[]", "5"])
def test_a_line_of_something_else_is_named(tmp_path, whole, text):
    journal, _ = whole["tpe"]
    lines = journal.splitlines(keepends=True)
    (tmp_path / JOURNAL).write_bytes(b"".join([*lines[:4], text.encode() + b"\n", *lines[4:]]))
    assert_damaged_line_named(tmp_path, "tpe", 5)
    with pytest.raises(SweepError, match="line 5 is damaged"):
        read_trials(tmp_path, OBJECTIVE)


def test_the_remedy_for_a_broken_line_works(tmp_path, whole):
    """The lines before it are kept; the sweep then ends as without the damage."""
    journal, expected = whole["tpe"]
    lines = journal.splitlines(keepends=True)
    (tmp_path / JOURNAL).write_bytes(b"".join(lines[:9]))
    run_to_the_end(open_study(tmp_path, "tpe"))
    assert [row[:-1] for row in state(tmp_path)] == expected


def test_a_trial_without_its_sample_is_told(tmp_path, whole):
    journal, _ = whole["random"]
    (tmp_path / JOURNAL).write_bytes(journal.replace(b'"sample"', b'"simple"'))
    with pytest.raises(SweepError, match=r"study\.jsonl is damaged: a trial in it lacks data that ferhpo writes"):
        open_study(tmp_path, "random")


def test_what_is_no_file_is_told(tmp_path):
    for name in (LOCK, JOURNAL):
        (tmp_path / name).mkdir()
        with pytest.raises((SweepError, StorageError), match=name):
            open_study(tmp_path, "random")
        (tmp_path / name).rmdir()
    os.mkfifo(tmp_path / JOURNAL)
    with pytest.raises(SweepError, match=r"study\.jsonl is not a regular file; restore the study"):
        read_trials(tmp_path, OBJECTIVE)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"pid": null}'])
def test_a_garbled_lock_is_still_a_lock(tmp_path, content):
    lock = FolderLock(tmp_path)
    (tmp_path / LOCK).write_bytes(content)
    with pytest.raises(SweepError, match="is being run by process"):
        FolderLock(tmp_path)
    lock.release()
    FolderLock(tmp_path).release()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b'{"id": "x", "com', "Unterminated string"),
        (b"\xff\xfe{", "can't decode byte"),
        (b"[]", "it must be an object"),
        (b"{}", "id is missing"),
        (b'{"id": 5, "kind": "sweep", "created": "", "composed": {}}', "id is 5"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_sweep_json_is_told(tmp_path, capsys, content, reason):
    made_sweep(tmp_path, ["COMPLETE"])
    made_sweep(tmp_path, ["COMPLETE"], name="other")
    (tmp_path / "made" / META).write_bytes(content)
    with pytest.raises(
        SweepError, match=rf"made/sweep\.json is damaged \(.*{reason}.*\); restore it from a copy, or start another"
    ):
        load_sweep("made", tmp_path)
    rows = list_sweeps(str(tmp_path))
    assert [row["name"] for row in rows] == ["made", "other"], "one damaged sweep hides none of the others"
    assert "is damaged" in rows[0]["error"]
    for verb in (["runs", "made"], ["sync", "made"], ["report", "made"], ["evaluate", "made"], ["promote", "made"]):
        assert main([*verb, "--output-dir", str(tmp_path)]) == 2
        assert "sweep.json is damaged" in capsys.readouterr().err
    assert main(["runs", "--output-dir", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("config", 5, "composed.config is 5"),
        ("groups", None, "composed.groups is None"),
        ("more", {}, "composed.more is an unknown field"),
        ("config", {}, "data is missing"),
    ],
)
def test_a_sweep_json_of_another_shape_is_told(tmp_path, key, value, reason):
    made_sweep(tmp_path, [])
    path = tmp_path / "made" / META
    meta = json.loads(path.read_text())
    meta["composed"][key] = value
    path.write_text(json.dumps(meta))
    with pytest.raises(SweepError, match=reason):
        load_sweep("made", tmp_path)
