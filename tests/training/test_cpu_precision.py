"""`precision: auto` on a CPU: what is measured to be faster, kept for the machine, and fixed for a sweep."""

import json

import pytest
import torch

from ferhpo.errors import SweepError
from ferhpo.storage.meta import META
from ferhpo.storage.sweep import load_sweep
from ferhpo.training.hardware import cpu_precision as module
from ferhpo.training.hardware.cpu_precision import Timings, cpu_precision, measure
from ferhpo.training.hardware.device import precision_of
from ferhpo.training.settings import TrainerSettings
from ferhpo.tuning.fixed_cpu import fixed_cpu
from tests.reports.made_sweeps import made_sweep

FASTER, SLOWER = Timings(0.366, 0.190), Timings(0.100, 0.090)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with instructions for bf16, whose measurements are counted; set `found` to what they say."""

    class Machine:
        found, num_measured = FASTER, 0

    def measured(num_threads):
        Machine.num_measured += 1
        return Machine.found

    monkeypatch.setenv("FERHPO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_capabilities", lambda: {"avx512_bf16": True, "cpu_name": "a CPU"})
    monkeypatch.setattr(module, "measure", measured)
    return Machine


def test_bf16_must_be_clearly_faster():
    assert FASTER.precision == "bf16"
    assert SLOWER.precision == "32", "10 % are not worth the rounding"
    assert Timings(0.1, 0.3).precision == "32"


def test_a_measurement_is_kept_for_the_machine_and_the_threads(machine, monkeypatch):
    expected = ("bf16", "a step took 366.0 ms in float32, 190.0 ms in bf16")
    assert [cpu_precision(2), cpu_precision(2)] == [expected] * 2
    assert machine.num_measured == 1
    cpu_precision(4)
    assert machine.num_measured == 2, "of other threads nothing is known"
    monkeypatch.setattr(module, "_capabilities", lambda: {"amx_bf16": True, "cpu_name": "another CPU"})
    cpu_precision(2)
    assert machine.num_measured == 3


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"a": 1', "5", '{"KEY": {"float32": 0, "bf16": 0}}', '{"KEY": 7}']
)
def test_a_damaged_file_is_measured_again(machine, tmp_path, content):
    file = tmp_path / "cache" / "cpu_precision.json"
    file.parent.mkdir()
    file.write_text(content.replace("KEY", module._machine(2)))
    assert cpu_precision(2)[0] == "bf16"
    assert json.loads(file.read_text())[module._machine(2)] == {"float32": 0.366, "bf16": 0.190}


def test_a_cache_that_cannot_be_written_costs_a_measurement(machine, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert [cpu_precision(2)[0], cpu_precision(2)[0]] == ["bf16"] * 2
    assert machine.num_measured == 2


def test_a_cpu_without_instructions_is_not_measured(machine, monkeypatch):
    monkeypatch.setattr(module, "_capabilities", lambda: {"avx2": True, "avx512_f": True})
    assert cpu_precision(2) == ("32", "this CPU has no instructions for bf16")
    assert machine.num_measured == 0


def test_the_measurement_is_real_and_changes_nothing():
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    timings = measure(1)
    assert timings.float32 > 1e-4
    assert timings.bf16 > 1e-4
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_a_training_asks(machine):
    cpu = torch.device("cpu")
    assert precision_of(TrainerSettings(), cpu) == "bf16"
    assert precision_of(TrainerSettings(precision="32"), cpu) == "32"
    assert machine.num_measured == 1


def test_a_sweep_keeps_the_precision_that_it_began_with(machine, tmp_path):
    """Also on another machine: its trials must be comparable."""
    made = made_sweep(tmp_path, [])
    assert fixed_cpu(made, 2).cpu_precision == "bf16"
    machine.found = SLOWER
    assert fixed_cpu(load_sweep("made", tmp_path), 4).cpu_precision == "bf16"


def test_a_sweep_with_a_chosen_precision_or_gpus_measures_nothing(machine, tmp_path):
    assert fixed_cpu(made_sweep(tmp_path / "a", []), 2, has_gpu=True).cpu_precision is None
    assert fixed_cpu(made_sweep(tmp_path / "b", [], overrides=["trainer.precision=32"]), 2).cpu_precision is None
    assert machine.num_measured == 0


@pytest.mark.parametrize(("has_amx", "precision"), [(True, "bf16"), (False, "32")])
def test_a_sweep_of_an_earlier_version_goes_by_amx_as_it_did(machine, monkeypatch, tmp_path, has_amx, precision):
    made = made_sweep(tmp_path, ["COMPLETE"])
    monkeypatch.setattr(module, "has_amx", lambda: has_amx)
    assert fixed_cpu(made, 2).cpu_precision == precision
    assert machine.num_measured == 0


def test_a_damaged_precision_is_named(tmp_path):
    made = made_sweep(tmp_path, [])
    meta = json.loads((made.folder / META).read_text())
    (made.folder / META).write_text(json.dumps({**meta, "cpu_precision": "fast"}))
    with pytest.raises(SweepError, match=r"sweep\.json is damaged \(cpu_precision is 'fast'\)"):
        load_sweep("made", tmp_path)
