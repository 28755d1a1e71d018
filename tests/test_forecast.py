"""The forecast of `ferhpo plan`: from short trainings, kept until the sweep says how far it was off."""

import json

import pytest

import ferhpo
from ferhpo.cli.results import result_dict
from ferhpo.errors import FerhpoError
from ferhpo.states import TrialState
from ferhpo.storage.trial_record import TrialRecord
from ferhpo.training.settings import Hardware
from ferhpo.trial.load_data import load_data
from ferhpo.tuning import plan as planning
from ferhpo.tuning.planning import forecast as forecasts
from ferhpo.tuning.planning.costs import Network
from ferhpo.tuning.planning.forecast import Forecast
from ferhpo.tuning.planning.timing import NUM_EPOCHS, Timing, _subset, time_networks

SMALL = ["data.num_train=300", "data.num_val=60", "data.num_test=7", "model.width_multiplier=0.02"]
TWO = Forecast((1e6, 3e6), (2.0, 4.0), (0.1, 0.3), 15.0, 2)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FERHPO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(planning, "NUM_SAMPLES", 8)
    return tmp_path / "cache"


def test_an_epoch_lies_on_the_line_through_the_timed_networks():
    assert TWO.epoch(1e6) == 2.0
    assert TWO.epoch(2e6) == pytest.approx(3.0)
    assert TWO.epoch(5e6) == pytest.approx(6.0)
    steep = Forecast((2e6, 3e6), (2.0, 6.0), (0.1,), 15.0, 2)  # at 1e6 the line is below zero
    assert steep.epoch(1e6) == 1.0
    falling = Forecast((1e6, 3e6), (2.0, 1.0), (0.1,), 15.0, 2)  # noise
    assert falling.epoch(3e6) == 2.0
    assert Forecast((1e6,), (2.0,), (0.1,), 15.0, 2).epoch(4e6) == 2.0


def test_a_sweep_takes_its_start_and_the_trials_of_all_slots():
    assert TWO.sweep([(1e6, 3), (3e6, 1)]) == pytest.approx(15 + (0.2 + 6 + 0.2 + 4) / 2)


def test_a_step_on_a_gpu_takes_at_least_as_long_as_its_operations_take_to_start():
    network = Network({}, {}, 390_000, 60, 33_000_000, 0)
    rate = 350e12
    assert forecasts.untimed(network, 28_709, 128, rate, False) == pytest.approx(28_709 * 33e6 * 3 / (rate * 0.5))
    floor = 28_709 / 128 * 60 * 6.3 * 7e-6
    assert forecasts.untimed(network, 28_709, 128, rate, True) == pytest.approx(floor)
    assert forecasts.untimed(network, 28_709, 128, 1e9, True) == forecasts.untimed(network, 28_709, 128, 1e9, False)


@pytest.mark.parametrize(
    "changed", [{}, {"num_slots": 0}, {"macs": [0.0]}, {"macs": "x"}, {"epoch_seconds": [1, 2, 3]}]
)
def test_what_is_no_forecast_is_none(changed):
    values = {"macs": [1e6], "epoch_seconds": [2], "trial_seconds": [0.1], "start_seconds": 1, "num_slots": 2}
    assert (forecasts.from_dict({**values, **changed}) is None) == bool(changed)
    assert forecasts.from_dict([1]) is None


def trial(number, macs, num_epochs):
    return TrialRecord(number, TrialState.COMPLETE, {}, 0, epochs=[{}] * num_epochs, extra={"macs": macs})


def test_the_comparison_counts_what_was_trained():
    trials = [trial(0, 1e6, 3), trial(1, 3e6, 1)]
    assert forecasts.comparison(TWO, trials, 22.2) == (
        "`ferhpo plan` forecast 20 s for these networks and epochs; the sweep took 22 s (+10 %)"
    )
    assert forecasts.comparison(TWO, [*trials, TrialRecord(2, TrialState.FAILED, {}, 0)], 22.2) == ""
    assert forecasts.comparison(TWO, [], 22.2) == ""


def test_timed_images_are_those_of_the_data_in_their_share():
    data = load_data(ferhpo.compose("demo", SMALL))
    part = _subset(data, 100)
    assert (part.split == 0).sum() == 100
    assert (part.split == 1).sum() == 20
    assert (part.images[0] == data.images[(data.split == 0).argmax()]).all()
    assert (_subset(data, 10**9).split == 0).sum() == 300
    assert (_subset(data, 0.1).split == 0).sum() == 8


def test_networks_are_timed_in_processes_and_the_plan_is_kept_for_the_sweep(cache, monkeypatch):
    monkeypatch.setattr("ferhpo.tuning.planning.timing.EPOCH_SECONDS", 0.05)
    options = [*SMALL, "compute.num_cpus=2", "compute.num_gpus=0"]
    plan = ferhpo.plan("demo", options)
    assert plan.warnings == []
    assert plan.epoch_seconds.low > 0
    (file,) = (cache / "forecasts").iterdir()
    forecast = forecasts.from_dict(json.loads(file.read_text()))
    assert forecast.num_slots == 2
    assert forecast.start_seconds > forecasts.RAY_SECONDS
    networks_of_sweep = ferhpo.compose("demo", [*options, "num_trials=3", "name=other"])
    absolute = planning._absolute(networks_of_sweep.config)
    assert forecasts.load(absolute) == forecast
    changed = ferhpo.compose("demo", [*options, "trainer.batch_size=16"])
    assert forecasts.load(planning._absolute(changed.config)) is None


def test_a_plan_without_timing_starts_no_process_and_keeps_nothing(cache):
    plan = ferhpo.plan("demo", SMALL, timed=False)
    assert plan.epoch_seconds is None
    assert plan.seconds > 0
    assert not (cache / "forecasts").exists()


def test_a_network_that_cannot_be_trained_says_why(cache, monkeypatch):
    composed = ferhpo.compose("demo", [*SMALL, "model.num_blocks=9"])
    data = load_data(ferhpo.compose("demo", SMALL))
    with pytest.raises(FerhpoError, match="too small"):
        time_networks([composed.config], data, [100], Hardware(1, num_gpus=0), 1)


def test_a_timing_is_the_mean_of_the_processes():
    assert Timing.mean([Timing(1, 2, 3, 4), Timing(3, 4, 5, 6)]) == Timing(2, 3, 4, 5)
    assert NUM_EPOCHS > 2


@pytest.mark.full
def test_a_sweep_says_how_far_the_forecast_was_off(cache, tiny, warm):
    options = [*tiny, "num_trials=3", "compute.num_cpus=2", "compute.num_gpus=0"]
    assert ferhpo.sweep("demo", [*options, "name=before"]).forecast == ""
    ferhpo.plan("demo", options)
    result = ferhpo.sweep("demo", options)
    assert result.forecast.startswith("`ferhpo plan` forecast ")
    assert result_dict(result)["forecast"] == result.forecast
    assert ferhpo.sweep("demo", ["num_trials=4", options[-4]], resume=True).forecast == ""
