"""The state of CMA-ES is stored as numbers: exactly, and no pickle in a journal runs code or is believed."""

import json
import os
import pickle
import subprocess
import tracemalloc

import cmaes
import numpy as np
import pytest

from ferhpo.errors import SweepError
from ferhpo.storage.study.journal import JOURNAL
from ferhpo.storage.study.sampler_state import with_pickle, without_pickle
from tests.test_study import SAMPLERS, open_study, state, step

BOUNDS = np.array([[0.0, 1.0]] * 3)
COMMON = {"mean": np.full(3, 0.5), "sigma": 0.1, "bounds": BOUNDS, "seed": 1}
OPTIMIZERS = {
    "cma": lambda: cmaes.CMA(**COMMON),
    "lr_adapt": lambda: cmaes.CMA(**COMMON, lr_adapt=True),
    "separable": lambda: cmaes.SepCMA(**COMMON),
    "margin": lambda: cmaes.CMAwM(**COMMON, steps=np.array([0.1, 0.0, 0.2])),
    "margin_continuous": lambda: cmaes.CMAwM(**COMMON, steps=np.zeros(3)),
}


class Evil:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def attrs_of(optimizer, protocol=4) -> dict:
    """Return the attributes in which Optuna stores an optimizer: its pickle, in pieces."""
    text = pickle.dumps(optimizer, protocol=protocol).hex()
    return {"cma:optimizer:0": text[:2045], "cma:optimizer:1": text[2045:], "cma:generation": 3}


def advance(optimizer) -> None:
    rng = np.random.RandomState(0)
    points = [optimizer.ask() for _ in range(optimizer.population_size)]
    points = [point[1] if isinstance(point, tuple) else point for point in points]
    optimizer.tell([(point, rng.rand()) for point in points])


def assert_same(one, other) -> None:
    assert vars(one).keys() == vars(other).keys()
    for key in vars(one).keys() - {"_rng"}:
        a, b = getattr(one, key), getattr(other, key)
        assert type(a) is type(b), key
        if isinstance(a, cmaes.CMA):
            assert_same(a, b)
        elif isinstance(a, np.ndarray):
            facts = [(x.dtype, x.shape, x.flags.f_contiguous, x.tobytes()) for x in (a, b)]
            assert facts[0] == facts[1], key
        else:
            assert a == b, key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_from_its_numbers_is_bit_by_bit_the_one_from_its_pickle(name):
    optimizer = OPTIMIZERS[name]()
    for _ in range(3):
        advance(optimizer)
        stored = without_pickle(attrs_of(optimizer))
        assert stored == without_pickle(attrs_of(optimizer, protocol=5)), "Python 3.14 pickles by protocol 5"
        read = with_pickle(json.loads(json.dumps(stored, allow_nan=False)))
        optimizer = pickle.loads(pickle.dumps(optimizer))
        assert_same(optimizer, pickle.loads(bytes.fromhex(read["cma:optimizer:0"])))
        assert read["cma:generation"] == stored["cma:generation"] == 3


def run(folder, num_trials, name="cmaes") -> None:
    study = open_study(folder, name)
    while study.num_asked < num_trials or study.interrupted():
        step(study)
    study.close()


def test_the_journal_of_a_sweep_with_cma_es_contains_no_pickle(tmp_path):
    run(tmp_path / "s", 25)
    journal = (tmp_path / "s" / JOURNAL).read_text()
    assert "cma:state" in journal
    assert "optimizer" not in journal
    assert "800495" not in journal, "the start of a pickle in hexadecimal"


@pytest.mark.parametrize("options", [{}, {"use_separable_cma": True}, {"with_margin": True}, {"lr_adapt": True}])
def test_every_kind_of_cma_es_resumes_exactly(tmp_path, monkeypatch, options):
    sampler, space = SAMPLERS["cmaes"]
    monkeypatch.setitem(SAMPLERS, "kind", ({**sampler, **options}, space))
    run(tmp_path / "whole", 20, "kind")
    for count in range(1, 21):
        run(tmp_path / "pieces", count, "kind")
    assert state(tmp_path / "pieces") == state(tmp_path / "whole")
    assert "state" in (tmp_path / "whole" / JOURNAL).read_text()


def with_pickles(path) -> None:
    """Rewrite a journal as earlier versions wrote it."""
    lines = []
    for line in path.read_text().splitlines():
        log = json.loads(line)
        if log.get("system_attrs"):
            attrs = with_pickle(log["system_attrs"])
            whole = attrs.pop("cma:optimizer:0", "")
            pieces = [whole[start : start + 2045] for start in range(0, len(whole), 2045)]
            log["system_attrs"] = {**attrs, **{f"cma:optimizer:{n}": piece for n, piece in enumerate(pieces)}}
        lines.append(json.dumps(log))
    path.write_text("\n".join(lines) + "\n")


def test_a_sweep_of_an_earlier_version_resumes_exactly_and_its_pickle_is_not_loaded(tmp_path, monkeypatch):
    run(tmp_path / "whole", 25)
    run(tmp_path / "old", 17)
    with_pickles(tmp_path / "old" / JOURNAL)
    assert "cma:optimizer:1" in (tmp_path / "old" / JOURNAL).read_text()
    run(tmp_path / "old", 25)
    assert state(tmp_path / "old") == state(tmp_path / "whole")


def evil_pickles(marker):
    command = f"mkdir {marker}"
    return {
        "system": Evil(os.system, command),
        "popen": Evil(subprocess.Popen, command),
        "eval": Evil(eval, f"__import__('os').mkdir({str(marker)!r})"),
        "inside the state": {"_mean": Evil(os.mkdir, str(marker))},
        "another class": cmaes.CMA(**COMMON)._rng,
        "not an object": 5,
    }


@pytest.mark.parametrize("name", evil_pickles(""))
def test_a_pickle_of_a_stranger_is_refused_and_runs_nothing(tmp_path, name):
    marker = tmp_path / "code-has-run"
    run(tmp_path / "s", 12)
    path = tmp_path / "s" / JOURNAL
    with_pickles(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = [log for log in lines if "cma:optimizer:0" in (log.get("system_attrs") or {})]
    for log in found:
        log["system_attrs"] = {"cma:optimizer:0": pickle.dumps(evil_pickles(marker)[name]).hex()}
    path.write_text("".join(json.dumps(log) + "\n" for log in lines))
    with pytest.raises(SweepError, match=r"study\.jsonl: trial \d+: .*; restore the file from a copy, or start"):
        open_study(tmp_path / "s", "cmaes")
    assert found
    assert not marker.exists()


@pytest.mark.parametrize("key", ["optimizer", "pycma:optimizer:0", "own:optimizer", "cma:optimizer:x"])
def test_the_pickle_of_another_sampler_is_refused(key):
    with pytest.raises(ValueError, match=r"as a pickle, which could run code"):
        with_pickle({key: "80049500"})


@pytest.mark.parametrize(
    "change",
    [
        {"_mean": 5},
        {"_mean": {"dtype": "float64", "shape": [2], "order": "C", "values": [0.1, 0.2]}},
        {"_mean": {"dtype": "object", "shape": [1], "order": "C", "values": ["x"]}},
        {"_sigma": "wide"},
        {"_sigma": None},
        {"_sigma": [1]},
        {"_popsize": 10**9},
        {"_n_max_resampling": 10**15},
        {"_cma": {"class": "CMA", "values": {}}},
        {"ask": 3},
        {"_C": 3},
    ],
    ids=str,
)
def test_changed_numbers_are_refused(change):
    stored = without_pickle(attrs_of(OPTIMIZERS["cma"]()))
    stored["cma:state"]["values"].update(change)
    with pytest.raises(ValueError, match=r"CMA-ES|could not convert"):
        with_pickle(stored)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_dimensions_of_a_state_are_those_of_its_numbers(name):
    """An optimizer of n dimensions has n * n numbers: 78 kB would become 7 GB."""
    stored = without_pickle(attrs_of(OPTIMIZERS[name]()))
    values = stored["cma:state"]["values"]
    values = values.get("_cma", {"values": values})["values"]
    values["_mean"] = {"dtype": "float64", "shape": [20_000], "order": "C", "values": [0] * 20_000}
    values["_n_dim"] = 20_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="the state of CMA-ES has"):
        with_pickle(stored)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def same_array_often(count):
    optimizer = OPTIMIZERS["cma"]()
    vars(optimizer).update(dict.fromkeys(map(str, range(count)), np.zeros(10_000)))
    return pickle.dumps(optimizer)


def nested_optimizers(levels):
    """Each contains the next one twice."""
    made = OPTIMIZERS["cma"]()
    for _ in range(levels):
        outer = OPTIMIZERS["margin"]()
        vars(outer).update(_cma=made, margin=made)
        made = outer
    return pickle.dumps(made)


@pytest.mark.parametrize(
    "data",
    [
        same_array_often(2000),
        nested_optimizers(40),
        pickle.PROTO + b"\x05" + pickle.BYTEARRAY8 + (4_000_000_000).to_bytes(8, "little"),
        pickle.PROTO
        + b"\x05}("
        + b"".join(pickle.dumps(1 + n * (2**61 - 1))[2:-1] + b"N" for n in range(1, 500))
        + b"u.",
        pickle.dumps({(1, 2): 3}),
        pickle.dumps(frozenset([1])),
    ],
    ids=["shared", "nested", "bytearray", "colliding", "tuple", "frozenset"],
)
def test_a_small_pickle_of_an_earlier_version_makes_nothing_large(data):
    tracemalloc.start()
    with pytest.raises(ValueError, match="the state of CMA-ES"):
        without_pickle({"cma:optimizer:0": data.hex()})
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
