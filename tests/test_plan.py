"""`ferhpo plan`: its numbers against formulas by hand and against the networks themselves."""

import statistics

import pytest
import yaml

import ferhpo
from ferhpo.cli.tables import plan_table
from ferhpo.errors import ConfigError
from ferhpo.models.count import count_macs, count_parameters, training_memory_bytes
from ferhpo.seeds import derive_seed
from ferhpo.storage.study.sweep_study import random_sample
from ferhpo.trial.run import build_network
from ferhpo.tuning import plan as planning
from ferhpo.tuning.plan import Spread, make_plan
from ferhpo.tuning.planning.forecast import PASSES, SHARE_OF_RATE
from ferhpo.tuning.planning.machine import find_slots
from tests.test_faults import small_disk

NUM_TRAIN, IMAGE = 28_709, (48, 1, 7)  # pixels a side, channels, classes
NUM_SAMPLES = 12


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr(planning, "NUM_SAMPLES", NUM_SAMPLES)


def plan_of(name, *overrides):
    composed = ferhpo.compose(name, overrides)
    return composed, make_plan(composed, NUM_TRAIN, *IMAGE)


def samples_of(composed):
    """The samples that the plan looks at."""
    seed = composed.config["seed"]
    return [random_sample(composed.space(), derive_seed(seed, number, "plan")) for number in range(NUM_SAMPLES)]


def vulpe_widths(sample):
    return [sample[f"model.block_channels.{i}"] for i in range(sample["model.num_blocks"])]


def vulpe_macs(sample):
    """Multiply-accumulates of vulpe2021's network, by hand: 3x3 convolutions at 48, 48, 24, 12, 6 pixels, two dense."""
    channels, side = sample["model.stem_channels"], 48
    macs = side**2 * 9 * channels
    for width in vulpe_widths(sample):
        macs += side**2 * 9 * channels * width
        channels, side = width, side // 2
    return macs + side**2 * channels * 256 + 256 * 7


def vulpe_parameters(sample):
    """Its trainable parameters, by hand: a bias everywhere, two numbers a channel for batch normalisation."""
    channels, side = sample["model.stem_channels"], 48
    parameters = 10 * channels
    for width in vulpe_widths(sample):
        parameters += (9 * channels + 1) * width + 2 * width
        channels, side = width, side // 2
    return parameters + (side**2 * channels + 1) * 256 + 2 * 256 + 257 * 7


def test_plan_of_vulpe2021_is_what_its_networks_cost_by_hand():
    composed, plan = plan_of("vulpe2021", "data.path=fer2013.csv")
    assert (plan.num_points, plan.num_continuous) == (599_040, 0)
    samples = samples_of(composed)
    macs = [vulpe_macs(sample) for sample in samples]
    parameters = [vulpe_parameters(sample) for sample in samples]
    assert plan.macs == Spread(min(macs), statistics.median(macs), max(macs))
    assert plan.mean_macs == pytest.approx(statistics.fmean(macs))
    assert plan.parameters == Spread(min(parameters), statistics.median(parameters), max(parameters))
    assert vulpe_parameters(plan.largest) == plan.parameters.high
    assert plan.num_infeasible == 0


def test_mean_cost_of_vulpe2021_is_about_1_3_gmac():
    """The formulas above give the document's winner, and the mean over the space: draws are independent and uniform."""
    winner = {"model.stem_channels": 256, "model.num_blocks": 4}
    winner |= {f"model.block_channels.{i}": width for i, width in enumerate([512, 384, 192, 384])}
    assert (vulpe_parameters(winner), round(vulpe_macs(winner) / 1e9, 2)) == (5_170_503, 3.86)

    stem, width = statistics.fmean(range(32, 257, 32)), statistics.fmean(range(64, 513, 64))
    sides = [24, 12, 6, 3]
    dense = statistics.fmean(side**2 for side in sides) * width * 256 + 256 * 7
    blocks = 48**2 * stem * width + sum(side**2 * width**2 * (3 - i) / 4 for i, side in enumerate(sides[:3]))
    mean = 48**2 * 9 * stem + 9 * blocks + dense
    assert round(mean / 1e9, 1) == 1.3

    space = ferhpo.compose("vulpe2021", ["data.path=fer2013.csv"]).space()
    drawn = [vulpe_macs(random_sample(space, seed)) for seed in range(600)]
    error = statistics.stdev(drawn) / len(drawn) ** 0.5
    assert abs(statistics.fmean(drawn) - mean) < 4 * error


def test_plan_of_demo_is_what_its_networks_have():
    composed, plan = plan_of("demo", "compute.num_cpus=2", "compute.num_gpus=0")
    rows = []
    for sample in samples_of(composed):
        config = composed.space().apply(sample)
        network = build_network(config, 1, 7, 48)
        memory = training_memory_bytes(network, (1, 48, 48), config["trainer"]["batch_size"], 2)
        rows.append((count_parameters(network), count_macs(network, (1, 48, 48)), memory))
    parameters, macs, memory = ([row[i] for row in rows] for i in range(3))
    assert plan.parameters == Spread.of(parameters)
    assert plan.macs == Spread.of(macs)
    assert plan.memory_bytes == Spread.of(memory)
    # By hand: best.ckpt has the weights, last.ckpt those and Adam's two numbers for each, MLflow a copy of the best.
    weights = 4 * statistics.fmean(parameters)
    assert plan.checkpoint_bytes == pytest.approx(4 * weights)
    assert plan.disk_bytes == pytest.approx(8 * 5 * weights)
    epochs = composed.config["trainer"]["max_epochs"]
    macs_in_all = 8 * epochs * NUM_TRAIN * statistics.fmean(macs) * PASSES
    assert plan.seconds == pytest.approx(macs_in_all / (plan.macs_per_second * SHARE_OF_RATE))
    assert (plan.num_trials, plan.num_slots, plan.where) == (8, 2, "CPU: 2 cores, 1 per trial")
    assert plan.warnings == []


@pytest.mark.parametrize(
    ("compute", "num_slots", "where"),
    [
        (["num_cpus=8", "num_gpus=0", "max_concurrent=3"], 3, "CPU: 8 cores, 2 per trial"),
        (["num_cpus=8", "num_gpus=0"], 8, "CPU: 8 cores, 1 per trial"),
        (["num_cpus=8", "num_gpus=0", "cpus_per_trial=4"], 2, "CPU: 8 cores, 4 per trial"),
        (["num_cpus=8", "num_gpus=2"], 2, "GPU: 2 ("),
        (["num_cpus=8", "num_gpus=2", "gpus_per_trial=0.5"], 4, "GPU: 2 ("),
        (["num_cpus=2", "num_gpus=2", "gpus_per_trial=0.1"], 2, "GPU: 2 ("),
    ],
)
def test_slots_are_those_that_the_driver_would_find(compute, num_slots, where, monkeypatch):
    """Against the driver's own count, in a Ray that says it has these resources."""
    from ferhpo.config import ComputeSettings
    from ferhpo.driver import ray_cluster

    settings = ComputeSettings(**{key: yaml.safe_load(value) for key, value in (text.split("=") for text in compute)})
    node = {"Alive": True, "Resources": {"CPU": settings.num_cpus, "GPU": settings.num_gpus}}
    monkeypatch.setattr(ray_cluster.ray, "nodes", lambda: [node])
    found = find_slots(settings)
    assert found[0] == num_slots == ray_cluster.find_slots(settings).num_slots
    assert found[1].startswith(where)


HEAD, GPU_NODE, TWO = {"CPU": 8.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "compute", "slots"),
    [
        ([HEAD, GPU_NODE], {}, (1, 8, 1)),  # 16 CPUs in all, and no node has them
        ([HEAD, *[GPU_NODE] * 3], {}, (3, 8, 1)),
        ([GPU_NODE] * 2, {"max_concurrent": 1}, (1, 8, 1)),
        ([GPU_NODE, TWO], {"gpus_per_trial": 0.5}, (6, 2, 0.5)),
        ([HEAD, HEAD], {"cpus_per_trial": 3}, (4, 3, 0)),
        ([HEAD, HEAD], {"max_concurrent": 3}, (3, 4, 0)),
        ([TWO], {"cpus_per_trial": 0.5}, (2, 0.5, 1)),
    ],
)
def test_a_trial_fits_on_one_node(nodes, compute, slots):
    from ferhpo.config import ComputeSettings
    from ferhpo.driver.ray_cluster import share_out

    found = share_out(nodes, ComputeSettings(**compute))
    assert (found.num_slots, found.cpus, found.gpus) == slots


def test_what_fits_on_no_node_is_refused():
    from ferhpo.config import ComputeSettings
    from ferhpo.driver.ray_cluster import share_out

    with pytest.raises(
        ConfigError, match="needs 9 CPUs and 1 GPUs, available: 8 CPUs and 0 GPUs, or 8 CPUs and 1 GPUs per node"
    ):
        share_out([HEAD, GPU_NODE], ComputeSettings(cpus_per_trial=9))


def test_samples_that_make_no_network_are_counted():
    _, plan = plan_of("demo", "space.model.num_blocks={low: 2, high: 7}")
    assert 0 < plan.num_infeasible < NUM_SAMPLES
    assert plan.warnings == [f"{plan.num_infeasible} of {NUM_SAMPLES} sampled networks cannot be built"]


def test_a_space_of_impossible_networks_is_said_to_be_one():
    _, plan = plan_of("demo", "space.model.num_blocks={low: 7, high: 8}")
    assert (plan.num_infeasible, plan.parameters, plan.largest) == (NUM_SAMPLES, None, {})
    assert "no sampled network can be built" in [str(value) for _, value in plan_table(plan).rows]


@pytest.mark.full
def test_a_disk_that_will_not_do_is_a_warning(tmp_path):
    with small_disk(tmp_path / "disk", 2**20) as disk:
        _, plan = plan_of("demo", f"output_dir={disk}/mlruns")
    assert plan.free_bytes <= 2**20
    assert plan.warnings == [
        f"checkpoints may take {plan.disk_bytes / 1e9:.1f} GB, but only {plan.free_bytes / 1e9:.1f} GB are free"
    ]


@pytest.mark.full
def test_the_disk_holds_the_best_trials_and_a_copy_of_each_in_mlflow():
    small = ["num_trials=1000", "compute.num_cpus=2", "compute.num_gpus=0"]
    _, plan = plan_of("demo", *small)
    weights = plan.checkpoint_bytes / 4
    # The ten best and the two that run, each of them the largest there is: weights in best.ckpt and, with Adam's two
    # numbers for each, in last.ckpt.
    most = (10 + 2) * 4 * 4 * plan.parameters.high
    assert plan.disk_bytes == pytest.approx(most + 1000 * weights)
    assert plan_of("demo", *small, "tracking=none")[1].disk_bytes == pytest.approx(most)
    assert plan_of("demo", *small, "keep_checkpoints=all")[1].disk_bytes == pytest.approx(1000 * 5 * weights)


@pytest.mark.full
def test_a_grid_is_planned_to_its_end():
    space = ["~space.optim", "~space.model", "+space={model: {num_blocks: {low: 2, high: 4}}}"]
    _, plan = plan_of("demo", "sampler=grid", "num_trials=null", *space)
    assert (plan.num_points, plan.num_continuous, plan.num_trials) == (3, 0, None)
    assert plan.disk_bytes == pytest.approx(3 * plan.checkpoint_bytes * 5 / 4)


@pytest.mark.full
def test_folds_are_counted_in_time_and_disk():
    once, folded = plan_of("demo")[1], plan_of("demo", "data.folds=5")[1]
    assert (once.num_folds, folded.num_folds) == (None, 5)
    assert folded.disk_bytes == pytest.approx(5 * once.disk_bytes)
    # The same images each epoch: the callers say how many of a fold's train.
    assert folded.seconds * folded.macs_per_second == pytest.approx(5 * once.seconds * once.macs_per_second)
    cells = rows_of(folded).values()
    assert "8 trials of 5 folds, 2 at a time" in cells


def rows_of(plan):
    """The table of a plan as a dictionary."""
    return {key: str(value) for key, value in plan_table(plan).rows}


def test_plan_of_a_training_is_the_cost_of_its_network_by_hand():
    composed, plan = plan_of("vulpe2021_winner", "data.path=fer2013.csv", "tracking=none")
    assert (plan.kind, plan.model, plan.num_trials, plan.num_slots, plan.num_samples) == ("training", "cnn", 1, 1, 1)
    winner = {"model.stem_channels": 256, "model.num_blocks": 4}
    winner |= {f"model.block_channels.{i}": width for i, width in enumerate([512, 384, 192, 384])}
    assert plan.parameters == Spread.of([vulpe_parameters(winner)]) == Spread.of([5_170_503])
    assert plan.macs == Spread.of([vulpe_macs(winner)])
    network = build_network(composed.config, 1, 7, 48)
    assert plan.memory_bytes == Spread.of([training_memory_bytes(network, (1, 48, 48), 128, 2)])
    assert plan.disk_bytes == plan.checkpoint_bytes == 4 * 4 * 5_170_503
    macs_in_all = 30 * NUM_TRAIN * vulpe_macs(winner) * PASSES
    assert plan.seconds == pytest.approx(macs_in_all / (plan.macs_per_second * SHARE_OF_RATE))
    assert (plan.largest, plan.warnings) == ({}, [])
    rows = rows_of(plan)
    assert rows["training"] == "cnn: 30 epochs of 28,709 images"
    assert (rows["parameters"], rows["MACs per image"]) == ("5,170,503", "3.86G")
    assert set(rows) == {"training", "device", "parameters", "MACs per image", "memory", "disk", "time"}


@pytest.mark.full
def test_a_sweep_without_its_space_is_planned_as_train_would_run_it():
    _, sweep = plan_of("demo", "compute.num_gpus=0")
    for overrides in (
        ["space=null"],
        ["space={}", "~space.model", "~space.optim"],
        ["space.model=null", "~space.optim"],
    ):
        composed, plan = plan_of("demo", *overrides)
        assert (plan.kind, plan.num_trials, plan.num_points) == ("training", 1, 1)
        assert plan.parameters.high == count_parameters(build_network(composed.config, 1, 7, 48))
        assert plan.disk_bytes == pytest.approx(plan.checkpoint_bytes * 5 / 4), "with the copy in MLflow"
    assert sweep.kind == "sweep"
    assert "training" not in rows_of(sweep)


@pytest.mark.full
def test_folds_of_a_training_are_counted():
    once, folded = plan_of("demo", "space=null")[1], plan_of("demo", "space=null", "data.folds=5")[1]
    assert folded.disk_bytes == pytest.approx(5 * once.disk_bytes)
    assert folded.seconds * folded.macs_per_second == pytest.approx(5 * once.seconds * once.macs_per_second)
    assert rows_of(folded)["training"] == "cnn: 5 folds, each with 6 epochs of 28,709 images"


def test_plan_of_an_estimator_says_in_one_sentence_that_its_cost_is_not_known():
    _, plan = plan_of("riaz2024_decision_tree", "data.path=fer2013")
    assert (plan.kind, plan.parameters, plan.macs, plan.memory_bytes, plan.seconds) == ("training", None, None, None, 0)
    assert plan.warnings == [
        "decision_tree is a scikit-learn estimator, fitted once; its parameters, memory and time are known only after "
        "fitting and are not estimated"
    ]
    assert rows_of(plan)["training"] == "decision_tree: 1 epoch of 28,709 images"
    assert set(rows_of(plan)) == {"training", "device", "disk"}


@pytest.mark.full
def test_plan_of_a_training_from_python_reads_the_data(monkeypatch):
    monkeypatch.setattr(planning, "measure_macs_per_second", lambda seconds=0.5: 1e9)
    small = ["data.num_train=70", "data.num_val=14", "data.num_test=7"]
    plan = ferhpo.plan("demo", ["space=null", *small], timed=False)
    assert (plan.kind, plan.num_train, plan.to_dict()["model"]) == ("training", 70, "cnn")
    folded = ferhpo.plan("demo", ["space=null", "data.folds=4", *small], timed=False)
    assert abs(folded.num_train - 84 * 3 / 4) <= 2, "of train and val together, three quarters"


def test_a_training_whose_network_cannot_be_built_is_refused():
    with pytest.raises(ConfigError, match="model"):
        ferhpo.plan("demo", ["space=null", "model.num_blocks=8"])
