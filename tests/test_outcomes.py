"""How a sweep handles trials that go wrong: each gets its state and reason, and the sweep continues."""

import contextlib
import io
import json
import re
import shutil
import time

import pytest

import ferhpo
from ferhpo.cli import main
from ferhpo.errors import FailuresError, SweepError
from ferhpo.reports.sweep import outcomes
from ferhpo.storage.study.sweep_study import SweepStudy

pytestmark = [pytest.mark.full, pytest.mark.timeout(600), pytest.mark.usefixtures("warm")]


WELL = "{optim: {lr: {low: 0.001, high: 0.01}}}"  # a space without faults


def faults(*names):
    return f"{{model: {{fault: {{choices: [{', '.join(names)}]}}}}}}"


def faulty(folder, space, *overrides, seconds=0.0):
    """Return the arguments of a sweep of networks that may have a fault; a batch takes `seconds`."""
    marks = folder / "marks"
    marks.mkdir(exist_ok=True)
    model = f"{{_target_: tests.faulty.Faulty, fault: none, marks: {marks}, seconds: {seconds}}}"
    return [
        "demo",
        f"output_dir={folder / 'mlruns'}",
        "name=faulty",
        "~model",
        f"+model={model}",
        "~space",
        f"+space={space}",
        "allowed_targets=[tests.faulty]",
        "scheduler=none",
        "data.num_train=140",
        "data.num_val=70",
        "data.num_test=14",
        "trainer.max_epochs=2",
        "trainer.batch_size=32",
        "compute.num_cpus=2",
        "compute.gpus_per_trial=0",
        "compute.stop_after_failures=null",
        "tracking.models=none",
        "tracking.report=false",
        *overrides,
    ]


def by_fault(folder):
    return {trial.sample["model.fault"]: trial for trial in ferhpo.load_sweep("faulty", folder / "mlruns").trials()}


EXPECTED = {  # state, and the start of the reason
    "none": ("COMPLETE", ""),
    "cuda": ("INFEASIBLE", "out of memory: CUDA out of memory. Tried to allocate 20.00 GiB."),
    "cuda_validation": ("INFEASIBLE", "out of memory: CUDA out of memory. Tried to allocate 20.00 GiB."),
    "crowded": (
        "FAILED",
        "worker lost 2 times: other processes hold the GPU memory of this trial: CUDA out of memory.",
    ),
    "crowded_once": ("COMPLETE", ""),
    "host": ("INFEASIBLE", "out of memory: "),
    "diverges": ("DIVERGED", "train_loss is nan at epoch 1"),
    "error": ("FAILED", "KeyError: 'a mistake in user code'"),
    "killed": ("FAILED", "worker lost 2 times: its worker process has died. "),
    "killed_once": ("COMPLETE", ""),
    "hang": ("FAILED", "no epoch finished for 40 s (compute.trial_timeout); last stack trace:"),
    "stopped": ("FAILED", "no epoch finished for 40 s (compute.trial_timeout)"),
}
HANGING = ("hang", "stopped")


@pytest.fixture(scope="module")
def ended(warm, tmp_path_factory):
    """Run one sweep in which everything goes wrong, as a user does; return folder, exit status and output."""
    folder = tmp_path_factory.mktemp("outcomes")
    names = [fault for fault in EXPECTED if fault not in HANGING]
    status, output = run_faults(folder, names, "compute.max_retries=1")
    return folder, status, output


@pytest.fixture(scope="module")
def hanging(warm, tmp_path_factory):
    """Run another sweep with trials that hang: its short time limit could hit the other trials on a busy machine."""
    folder = tmp_path_factory.mktemp("hanging")
    status, output = run_faults(folder, HANGING, "compute.trial_timeout=40")
    return folder, status, output


def run_faults(folder, names, *overrides):
    """Run a sweep with one trial per fault; return its exit status and output."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        status = main(["sweep", *faulty(folder, faults(*names), "sampler=grid", "num_trials=null", *overrides)])
    return status, output.getvalue()


@pytest.mark.parametrize("fault", EXPECTED)
def test_each_ends_in_its_state_with_its_reason(ended, hanging, fault):
    trial = by_fault((hanging if fault in HANGING else ended)[0])[fault]
    state, reason = EXPECTED[fault]
    assert (trial.state, trial.reason[: len(reason)]) == (state, reason)


@pytest.mark.parametrize("sweep", ["ended", "hanging"])
def test_mlflow_says_the_same(sweep, request):
    from mlflow import MlflowClient

    folder, _, _ = request.getfixturevalue(sweep)
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    runs = client.search_runs(["1"], "tags.`mlflow.parentRunId` != ''")
    trials = by_fault(folder)
    assert len(runs) == len(trials) == (len(HANGING) if sweep == "hanging" else len(EXPECTED) - len(HANGING))
    for run in runs:
        trial = trials[run.data.params["model.fault"]]
        assert run.data.tags["ferhpo.state"] == trial.state
        assert run.data.tags["ferhpo.reason"] == trial.reason
        assert run.info.status == ("FINISHED" if trial.state == "COMPLETE" else "FAILED")


def test_the_sweep_ends_with_a_sentence_for_each_reason_and_status_3(ended):
    _, status, said = ended
    assert status == 3
    trials = by_fault(ended[0])
    infeasible = sorted(trials[fault].number for fault in ("cuda", "cuda_validation"))
    assert f"2 trials infeasible ({infeasible[0]}, {infeasible[1]}): out of memory: CUDA out of memory" in said
    for fault in ("diverges", "error", "killed"):
        (sentence,) = outcomes.sentences([trials[fault]])
        assert sentence in said


def test_out_of_memory_is_found_before_an_epoch_and_not_tried_again(ended):
    called = {fault: (ended[0] / "marks" / fault).read_text().split() for fault in ("cuda", "cuda_validation", "host")}
    halved = ["val"] * 10  # 512 images, 256, ..., 1
    assert called == {"cuda": ["train"], "cuda_validation": ["train", *halved], "host": ["train"]}


def test_a_hanging_trial_says_where_it_stood(hanging):
    folder, status, said = hanging
    trial = by_fault(folder)["hang"]
    assert 'faulty.py", line' in trial.reason
    assert "in _hang" in trial.reason
    assert "in worker_trial" in trial.reason
    assert status == 3
    assert outcomes.sentences([trial])[0] in said


def test_samplers_learn_of_what_cannot_be(ended, hanging):
    """Infeasible and diverged samples violate a constraint; failures of the machine or the code do not count."""
    constraints = constraints_by_fault(ended[0])
    assert {constraints[fault] for fault in ("cuda", "host", "diverges")} == {1.0}
    assert {constraints[fault] for fault in ("none", "killed_once", "crowded_once")} == {0.0}
    assert {constraints[fault] for fault in ("error", "killed", "crowded")} == {None}
    assert constraints_by_fault(hanging[0]) == {"hang": None, "stopped": None}


def constraints_by_fault(folder):
    sweep = ferhpo.load_sweep("faulty", folder / "mlruns")
    config = sweep.config
    study = SweepStudy(sweep.folder, sweep.space(), config["sampler"], config["seed"], sweep.objective)
    try:
        return {
            trial.params["model.fault"]: trial.system_attrs.get("constraints:infeasible") for trial in study._frozen()
        }
    finally:
        study.close()


def test_a_sweep_whose_first_trials_all_fail_alike_stops_and_says_it_once(tmp_path, capsys):
    arguments = faulty(tmp_path, faults("error", "error_too"), "num_trials=40", "compute.stop_after_failures=2")
    assert main(["sweep", *arguments]) == 3
    message = capsys.readouterr().err
    assert message.count("a mistake in user code") == 1
    assert message.startswith("the first 2 trials all failed: KeyError: 'a mistake in user code' (faulty.py, line ")
    sweep = ferhpo.load_sweep("faulty", tmp_path / "mlruns")
    num_trials = len(sweep.trials())
    assert 2 <= num_trials <= 4
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    assert {run.info.status for run in client.search_runs(["1"])} == {"FAILED"}
    with pytest.raises(FailuresError):  # a resume tries again and counts its own first trials
        ferhpo.sweep("faulty", [f"output_dir={tmp_path / 'mlruns'}"], resume=True)
    assert len(sweep.trials()) > num_trials


def wait_for(holds, driver, log):
    deadline = time.monotonic() + 300
    while not holds():
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def running(folder):
    """Return the trials of a sweep that may not exist yet."""
    try:
        return ferhpo.load_sweep("faulty", folder / "mlruns").trials()
    except SweepError:
        return []


def test_a_lost_node_costs_no_trial(warm, tmp_path):
    """Two nodes with one slot each; one dies with its worker. Its trial resumes from its checkpoint on the other."""
    from ray.cluster_utils import Cluster

    log = tmp_path / "log.txt"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    overrides = ["num_trials=4", "trainer.max_epochs=4", f"compute.address={cluster.address}", "compute.num_cpus=null"]
    driver = warm.start("sweep", *faulty(tmp_path, WELL, *overrides, seconds=0.4), log=log)
    try:
        wait_for(lambda: sum(bool(trial.epochs) for trial in running(tmp_path)) == 2, driver, log)
        cluster.remove_node(node, allow_graceful=False)
        assert driver.wait(300) == 0, log.read_text()
    finally:
        driver.kill()
        cluster.shutdown()
    trials = running(tmp_path)
    assert [trial.state for trial in trials] == ["COMPLETE"] * 4
    for trial in trials:
        assert [row["epoch"] for row in trial.epochs] == [1, 2, 3, 4]
    # Each start opens the trial's run; the lost trial started twice.
    spool = [json.loads(line) for line in (tmp_path / "mlruns" / "faulty" / "spool.jsonl").read_text().splitlines()]
    opened = [record["number"] for record in spool if record["op"] == "open_trial"]
    assert sorted(opened) in ([0, 0, 1, 2, 3], [0, 1, 1, 2, 3])


def test_workers_that_the_machine_kills_for_their_memory_are_infeasible_in_the_end(warm, tmp_path):
    """Ray's memory monitor, with a threshold close to zero."""
    log = tmp_path / "log.txt"
    arguments = faulty(tmp_path, WELL, "compute.max_retries=1", "num_trials=1", seconds=2.0)
    allowed = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "200"}
    driver = warm.start("sweep", *arguments, log=log, **allowed)
    try:
        assert driver.wait(300) == 0, log.read_text()
    finally:
        driver.kill()
    (trial,) = running(tmp_path)
    assert trial.state == "INFEASIBLE"
    assert re.fullmatch(r"out of host memory 2 times: the node ran low on memory \(.+ used / .+ limit\)", trial.reason)


def test_data_that_vanish_in_mid_sweep_cost_nothing_until_a_resume_says_where_they_were(warm, tmp_path, capsys):
    """The pixels are in memory by that time."""
    pixels = " ".join(["7"] * 48 * 48)
    data, log = tmp_path / "fer2013.csv", tmp_path / "log.txt"
    rows = [f"{i % 7},{' '.join(str((i * 37 + p) % 256) for p in range(48 * 48))},Training" for i in range(70)]
    rows += [f"{i % 7},{' '.join(str((i * 41 + p + 5) % 256) for p in range(48 * 48))},PublicTest" for i in range(14)]
    data.write_text("\n".join(["emotion,pixels,Usage", *rows, f"0,{pixels},PrivateTest", ""]))
    arguments = faulty(tmp_path, WELL, "num_trials=2", seconds=0.2)
    arguments = [text for text in arguments if not text.startswith("data.num")]
    changes = ["data=fer2013", f"data.path={data}", f"data.cache_dir={tmp_path / 'cache'}"]
    driver = warm.start("sweep", *arguments, *changes, log=log)
    try:
        wait_for(lambda: any(trial.epochs for trial in running(tmp_path)), driver, log)
        data.unlink()
        shutil.rmtree(tmp_path / "cache")
        assert driver.wait(300) == 0, log.read_text()
    finally:
        driver.kill()
    assert [trial.state for trial in running(tmp_path)] == ["COMPLETE"] * 2
    assert (
        main(
            [
                "sweep",
                "--resume",
                "faulty",
                f"output_dir={tmp_path / 'mlruns'}",
                "num_trials=3",
                "allowed_targets=[tests.faulty]",
            ]
        )
        == 2
    )
    assert str(data) in capsys.readouterr().err
