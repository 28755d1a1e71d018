"""The CPU threads of a trial are those that its sweep began with, whatever a resume has."""

import json

import pytest

from ferhpo.errors import SweepError
from ferhpo.storage.meta import META
from ferhpo.storage.sweep import load_sweep
from ferhpo.tuning.fixed_cpu import fixed_cpu
from tests.reports.made_sweeps import made_sweep


def test_a_resume_on_other_cores_keeps_the_threads_and_says_so(tmp_path, caplog):
    made = made_sweep(tmp_path, [])
    assert fixed_cpu(made, 4).num_threads == 4
    assert caplog.messages == []
    assert fixed_cpu(load_sweep("made", tmp_path), 16).num_threads == 4
    assert caplog.messages == [
        "threads: the trials keep the 4 CPU threads that the sweep began with; here each would have 16"
    ]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [(["cpu (2 threads)"] * 2, 2), (["NVIDIA H100"], 8), (["cpu (2 threads)", "cpu (4 threads)"], 8), ([None], 8)],
)
def test_a_sweep_of_an_earlier_version_has_them_in_its_trials(tmp_path, devices, expected):
    made = made_sweep(tmp_path, ["COMPLETE"] * len(devices), extra=lambda number: {"device": devices[number]})
    assert fixed_cpu(made, 8).num_threads == expected
    assert json.loads((made.folder / META).read_text())["num_threads"] == expected


@pytest.mark.parametrize("value", [0, -1, "4", None, 2.5])
def test_a_damaged_number_of_threads_is_named(tmp_path, value):
    made = made_sweep(tmp_path, [])
    meta = json.loads((made.folder / META).read_text())
    (made.folder / META).write_text(json.dumps({**meta, "num_threads": value}))
    with pytest.raises(SweepError, match=r"sweep\.json is damaged \(num_threads is"):
        load_sweep("made", tmp_path)
