"""`compute.gpus_per_trial=auto` and NVIDIA's Multi-Process Service, without a GPU: times and the service are stand-ins."""

import os
import stat
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import ferhpo
from ferhpo.config import ComputeSettings
from ferhpo.driver import ray_cluster
from ferhpo.driver.processes import mps
from ferhpo.driver.processes.mps import CONTROL, Mps
from ferhpo.errors import ConfigError, FerhpoError
from ferhpo.storage.sweep import Sweep
from ferhpo.trial.load_data import load_data
from ferhpo.tuning.planning import gpu_share
from ferhpo.tuning.planning.gpu_share import most_productive, with_share
from ferhpo.tuning.planning.timing import Timing

SMALL = ["data.num_train=70", "data.num_val=14", "data.num_test=7"]


def test_auto_is_a_setting():
    auto = ComputeSettings(gpus_per_trial="auto")
    assert (auto.share, auto.uses_gpu) == (None, True)
    assert replace(auto, gpus_per_trial=0.25).share == 0.25
    ferhpo.check("demo", ["compute.gpus_per_trial=auto"])
    with pytest.raises(ConfigError, match="gpus_per_trial"):
        ferhpo.check("demo", ["compute.gpus_per_trial=most"])


@pytest.mark.parametrize(
    ("rates", "most", "count"),
    [
        ({1: 1, 2: 1.9, 4: 3.5, 8: 3.6}, 8, 4),
        ({1: 1, 2: 1.9, 4: 3.5, 8: 7}, 8, 8),
        ({1: 1, 2: 1.9, 4: 3.5, 8: 7}, 5, 4),
        ({1: 1, 2: 1.05}, 8, 1),
        ({1: 1}, 1, 1),
        ({1: 1, 2: 0.0}, 8, 1),
    ],
)
def test_more_trials_share_a_card_while_that_is_worth_it(rates, most, count):
    assert most_productive(rates.__getitem__, most) == count


@pytest.fixture
def card(monkeypatch):
    """A machine with a card of 80 GB and 16 cores, which four trials use up; the numbers of processes that were timed."""
    timed = []

    def time_networks(configs, data, images_per_second, hardware, num_processes):
        timed.append(num_processes)
        assert hardware.num_gpus == 1 / num_processes
        if num_processes > 4:
            raise FerhpoError("no memory")
        return 5.0, [Timing(1e-4, 1e-4, 0.0, 0.1)]

    monkeypatch.setattr(gpu_share, "time_networks", time_networks)
    monkeypatch.setattr(gpu_share, "job_cpus", lambda: 16)
    monkeypatch.setattr(gpu_share, "NUM_SAMPLES", 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    properties = SimpleNamespace(name="H100", total_memory=80e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return SimpleNamespace(timed=timed, properties=properties)


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path, "id", ferhpo.compose("demo", SMALL), {})


@pytest.fixture(scope="module")
def data():
    return load_data(ferhpo.compose("demo", SMALL))


AUTO = ComputeSettings(gpus_per_trial="auto")


def test_the_share_is_measured_once_for_a_kind_of_card(card, sweep, data):
    assert with_share(sweep, data, AUTO).gpus_per_trial == 0.25
    assert card.timed == [1, 2, 4, 8]
    assert sweep.meta["gpu_share"] == {"card": "H100", "num_trials": 4}
    assert with_share(sweep, data, AUTO).gpus_per_trial == 0.25
    assert card.timed == [1, 2, 4, 8], "a resume keeps it"
    card.properties.name = "A100"
    with_share(sweep, data, AUTO)
    assert card.timed == [1, 2, 4, 8] * 2


def test_the_largest_network_fits_its_share(card, sweep, data):
    card.properties.total_memory = 2e9
    assert with_share(sweep, data, AUTO).gpus_per_trial == 0.5
    assert card.timed == [1, 2]


def test_a_number_is_kept_and_a_machine_without_cards_has_none(sweep, data, monkeypatch):
    number = ComputeSettings(gpus_per_trial=0.5)
    assert with_share(sweep, data, number) is number
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert with_share(sweep, data, AUTO) is AUTO
    with pytest.raises(ConfigError, match="gpus_per_trial is auto"):
        with_share(sweep, data, ComputeSettings(gpus_per_trial="auto", address="auto"))


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A stand-in for NVIDIA's program: it notes its arguments, its input and its folder of pipes."""
    program, log = tmp_path / CONTROL, tmp_path / "calls"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = -d ] || input=$(cat)\necho "$1|$input|$CUDA_MPS_PIPE_DIRECTORY" >> {log}\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    for name in mps.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return log


def test_trials_that_share_a_card_use_the_service(service):
    started = Mps(ComputeSettings(gpus_per_trial=0.25))
    folder = os.environ["CUDA_MPS_PIPE_DIRECTORY"]
    assert ray_cluster.worker_environment()["CUDA_MPS_PIPE_DIRECTORY"] == folder
    started.close()
    started.close()
    assert service.read_text().splitlines() == [f"-d||{folder}", f"|quit|{folder}"]
    assert "CUDA_MPS_PIPE_DIRECTORY" not in ray_cluster.worker_environment()
    assert not os.path.exists(folder)  # noqa: PTH110


@pytest.mark.parametrize("settings", [{}, {"gpus_per_trial": 1}, {"gpus_per_trial": 0.5, "address": "auto"}])
def test_others_do_not(service, settings):
    Mps(ComputeSettings(**settings)).close()
    assert not service.exists()


def test_a_service_of_the_users_own_is_left_alone(service, monkeypatch):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/run/mine")
    Mps(AUTO).close()
    assert not service.exists()
    assert os.environ["CUDA_MPS_PIPE_DIRECTORY"] == "/run/mine"


def test_a_service_that_does_not_start_is_no_fault(service, tmp_path, caplog):
    (tmp_path / CONTROL).write_text("#!/bin/sh\necho 'no GPU here' >&2\nexit 1\n")
    with caplog.at_level("INFO"):
        Mps(AUTO).close()
    assert "take turns" in caplog.text
    assert "no GPU here" in caplog.text
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
