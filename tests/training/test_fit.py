"""fit: its reports and checkpoints, how it ends, and that nothing stays in memory."""

import contextlib
import gc
import logging
import math
import re
import threading
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import make_data, make_network

from ferhpo.data.dataset import VAL, FaceData, array_digest
from ferhpo.errors import Diverged, StorageError, SweepError
from ferhpo.scoring.predict import evaluate
from ferhpo.scoring.preprocess import Preprocess
from ferhpo.training import schedules
from ferhpo.training.augment import Augment
from ferhpo.training.checkpoint import epoch_file, kept_epochs, load_network
from ferhpo.training.hardware.usage import NAMES
from ferhpo.training.steps.parameters import parameter_groups

METRICS = [
    "train_loss",
    "train_acc",
    "val_loss",
    "val_acc",
    "val_macro_f1",
    "val_acc_dedup",
    "lr",
    "epoch_seconds",
    "images_per_second",
    "device_memory_mb",
    *NAMES[:3],
]
MEASURED = ("epoch_seconds", "images_per_second", "device_memory_mb", *NAMES)
RunFit = Callable[..., Any]


def exact(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in epoch.items() if key not in MEASURED} for epoch in history]


def test_reports_each_epoch_and_learns(run_fit: RunFit) -> None:
    reports: list[tuple[int, dict[str, float]]] = []
    result = run_fit(report=lambda epoch, metrics: reports.append((epoch, metrics)), trainer={"max_epochs": 6})
    assert [epoch for epoch, _ in reports] == [1, 2, 3, 4, 5, 6]
    assert all(list(metrics) == METRICS and all(map(math.isfinite, metrics.values())) for _, metrics in reports)
    assert result.history == [{"epoch": epoch, **metrics} for epoch, metrics in reports]
    assert reports[-1][1]["val_acc"] > 0.9
    assert reports[-1][1]["train_loss"] < reports[0][1]["train_loss"]
    assert (result.epochs_done, result.stopped_early) == (6, False)


def test_best_is_the_first_of_the_best_epochs_and_its_confusion_is_kept(run_fit: RunFit, data: FaceData) -> None:
    result = run_fit(trainer={"max_epochs": 5})
    values = [epoch["val_acc"] for epoch in result.history]
    assert result.best_epoch == values.index(max(values)) + 1
    assert result.best_value == max(values)
    confusion = np.array(result.confusion)
    assert confusion.sum(1).tolist() == np.bincount(data.labels[data.split == VAL], minlength=3).tolist()
    assert confusion.trace() / confusion.sum() == result.best_value


def test_objective_may_be_a_loss(run_fit: RunFit) -> None:
    result = run_fit(metric="val_loss", mode="min", trainer={"max_epochs": 4})
    assert result.best_value == min(epoch["val_loss"] for epoch in result.history)


@pytest.mark.parametrize("averaging", [None, "ema", "swa"])
def test_best_checkpoint_scores_what_was_reported(
    run_fit: RunFit, data: FaceData, tmp_path: Path, averaging: str | None
) -> None:
    result = run_fit(
        network=make_network(size=20),
        augment=Augment(crop=20, flip=0.5),
        trainer={"max_epochs": 4, "weight_averaging": averaging, "swa_start": 0.5, "label_smoothing": 0.1},
    )
    network = make_network(seed=9, size=20)
    checkpoint = load_network(tmp_path / "best.ckpt", network)
    scores = evaluate(network, data, "val", Preprocess.from_dict(checkpoint["preprocess"]))
    best = result.history[result.best_epoch - 1]
    assert checkpoint["epoch"] == result.best_epoch
    assert checkpoint["metrics"] == {key: best[key] for key in METRICS}
    assert checkpoint["class_names"] == ["a", "b", "c"]
    assert scores.acc == best["val_acc"]
    assert scores.macro_f1 == best["val_macro_f1"]
    assert scores.loss == pytest.approx(best["val_loss"], rel=1e-6)
    assert scores.confusion.tolist() == checkpoint["confusion"].tolist() == result.confusion


@pytest.mark.parametrize("averaging", [None, "ema"])
def test_epochs_that_are_asked_for_are_kept(
    run_fit: RunFit, data: FaceData, tmp_path: Path, averaging: str | None
) -> None:
    """Each kept network has the reported scores of its epoch, in a complete file of its own."""
    result = run_fit(trainer={"max_epochs": 4, "keep_epochs": [1, 3], "weight_averaging": averaging})
    assert kept_epochs(tmp_path) == [1, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.ckpt",
        "epoch_0001.ckpt",
        "epoch_0003.ckpt",
        "last.ckpt",
        "val_predictions",
    ]
    for epoch in (1, 3):
        network = make_network(seed=9)
        checkpoint = load_network(epoch_file(tmp_path, epoch), network)
        scores = evaluate(network, data, "val", Preprocess.from_dict(checkpoint["preprocess"]))
        reported = result.history[epoch - 1]
        assert checkpoint["epoch"] == epoch
        assert checkpoint["metrics"] == {key: reported[key] for key in METRICS}
        assert scores.acc == reported["val_acc"]
        assert scores.loss == pytest.approx(reported["val_loss"], rel=1e-6)


def test_averaged_weights_are_kept_and_the_network_ends_with_its_own(run_fit: RunFit, tmp_path: Path) -> None:
    network = make_network()
    run_fit(network=network, trainer={"weight_averaging": "ema", "max_epochs": 1})
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)["network"]
    assert not torch.equal(kept["classifier.output.weight"], network.state_dict()["classifier.output.weight"])


def test_the_last_checkpoint_of_a_training_that_is_over_is_its_history(run_fit: RunFit, tmp_path: Path) -> None:
    """Nobody continues from it, so weights and states of the optimizer are not written."""

    def keys(**changes: Any) -> set[str]:
        with contextlib.suppress(StopError):
            run_fit(**changes)
        return set(torch.load(tmp_path / "last.ckpt", weights_only=True))

    history = {"format", "history", "best_epoch", "confusion", "class_names"}
    state = {"network", "average", "optimizer", "schedule", "precision", "callbacks"}
    assert keys(report=stop) == history | state
    result = run_fit()
    assert keys() == history
    again = run_fit()
    assert again.history == result.history
    with pytest.raises(SweepError, match=r"last\.ckpt is of a training that has ended after 2 epochs"):
        run_fit(trainer={"max_epochs": 3})
    (tmp_path / "last.ckpt").unlink()
    assert keys(trainer={"max_epochs": 50, "early_stopping_patience": 2}) == history


class StopError(Exception):
    pass


def stop(epoch: int, metrics: dict[str, float]) -> None:
    raise StopError


@pytest.mark.full
def test_same_seed_gives_the_same_numbers_and_another_seed_others(run_fit: RunFit, tmp_path: Path) -> None:
    def history(seed: int, name: str) -> list[dict[str, float]]:
        folder = tmp_path / name
        folder.mkdir()
        network = make_network(conv_dropout=0.3)
        return exact(run_fit(network=network, seed=seed, folder=folder, augment=Augment(flip=0.5, shift=0.1)).history)

    torch.rand(3)  # the random state that a previous trial left does not matter
    assert history(1, "a") == history(1, "b")
    assert history(1, "c") != history(2, "d")


def test_first_epoch_is_a_hand_written_loop(run_fit: RunFit, data: FaceData, tmp_path: Path) -> None:
    from ferhpo.scoring.device_data import to_device
    from ferhpo.scoring.preprocess import preprocess_of
    from ferhpo.training.batches import TrainBatches

    augment, cpu = Augment(flip=0.5, rotation=10, mixup=0.3), torch.device("cpu")
    network = make_network(conv_dropout=0.0, dense_dropout=0.0)
    run_fit(network=network, augment=augment, trainer={"max_epochs": 1, "gradient_clip_norm": 0.5})

    expected = make_network(conv_dropout=0.0, dense_dropout=0.0)
    expected.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.05, momentum=0.9)
    batches = TrainBatches(
        data,
        to_device(data, cpu),
        preprocess_of(data, 24, "dataset"),
        augment,
        batch_size=20,
        sampling="shuffle",
        seed=3,
        memory_format=torch.channels_last,
    )
    for inputs, targets in batches:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(expected(*inputs), targets).backward()
        torch.nn.utils.clip_grad_norm_(expected.parameters(), 0.5)
        optimizer.step()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[name], msg=name)


@pytest.mark.parametrize(
    "trainer",
    [
        {"precision": "bf16"},
        {"class_weights": "balanced", "sampling": "balanced", "label_smoothing": 0.1},
        {"normalise": "image", "channels_last": False, "deterministic": False},
        {"decay_norm_and_bias": False, "gradient_clip_norm": 1.0},
    ],
    ids=str,
)
def test_settings_train(run_fit: RunFit, trainer: dict[str, Any]) -> None:
    optimizer = partial(torch.optim.AdamW, lr=0.02, weight_decay=0.01)
    assert run_fit(optimizer=optimizer, trainer={"max_epochs": 5, **trainer}).best_value > 0.8


@pytest.mark.full
@pytest.mark.timeout(600)  # it compiles C++
def test_a_compiled_network_trains_as_the_plain_one_and_keeps_its_names(run_fit: RunFit, tmp_path: Path) -> None:
    histories = []
    for is_compiled in (False, True):
        network = make_network(conv_dropout=0.0, dense_dropout=0.0)
        folder = tmp_path / str(is_compiled)
        folder.mkdir()
        histories.append(
            run_fit(network=network, folder=folder, trainer={"compile": is_compiled, "max_epochs": 1}).history
        )
    plain, compiled = ([row["train_loss"] for row in history] for history in histories)
    assert compiled == pytest.approx(plain, rel=1e-3)
    load_network(tmp_path / "True" / "best.ckpt", make_network())


def test_soft_targets_and_color_train(run_fit: RunFit) -> None:
    data = make_data(channels=3, soft=True)
    network = make_network(channels=3)
    assert run_fit(network=network, data=data, augment=Augment(mixup=0.2), trainer={"max_epochs": 5}).best_value > 0.8


def test_norm_and_bias_are_left_out_of_weight_decay() -> None:
    decayed, free = parameter_groups(make_network(), decay_norm_and_bias=False)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in free["params"]} == {1}
    assert free["weight_decay"] == 0
    (group,) = parameter_groups(make_network(), decay_norm_and_bias=True)
    assert len(group["params"]) == len(decayed["params"]) + len(free["params"])


def test_early_stopping(run_fit: RunFit, tmp_path: Path) -> None:
    settings = {"max_epochs": 50, "early_stopping_patience": 2}
    result = run_fit(trainer=settings)
    assert result.stopped_early
    assert result.epochs_done == result.best_epoch + 2 < 50
    again = run_fit(trainer=settings)
    assert again == result


def test_plateau_gets_the_objective(run_fit: RunFit) -> None:
    result = run_fit(
        lr_schedule=partial(schedules.plateau, patience=0, factor=0.5), metric="lr", trainer={"max_epochs": 4}
    )
    assert [epoch["lr"] for epoch in result.history] == [0.05, 0.05, 0.025, 0.0125]


@pytest.mark.parametrize("lr", [1e30])
def test_divergence_is_named(run_fit: RunFit, lr: float, tmp_path: Path) -> None:
    reports: list[int] = []
    with pytest.raises(Diverged, match=r"^(train|val)_loss is (nan|inf) at epoch 1 \(lr 1e\+30\)$"):
        run_fit(
            optimizer=partial(torch.optim.SGD, lr=lr),
            network=make_network(norm="none"),
            report=lambda epoch, metrics: reports.append(epoch),
        )
    assert reports == []
    assert list(tmp_path.glob("*.ckpt")) == []


def test_stop_by_system_exit_in_a_thread_frees_everything_and_says_nothing(
    run_fit: RunFit, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caught: list[BaseException] = []
    optimizers: list[weakref.ref[torch.optim.Optimizer]] = []
    network = make_network()
    alive = weakref.ref(network)

    def optimizer(params: Any) -> torch.optim.Optimizer:
        made = torch.optim.Adam(params)
        optimizers.append(weakref.ref(made))
        return made

    def stop(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 2:
            assert torch.load(tmp_path / "last.ckpt", weights_only=True)["history"][-1] == {"epoch": 2, **metrics}
            raise SystemExit(0)

    def trial(network: torch.nn.Module) -> None:
        try:
            run_fit(network=network, optimizer=optimizer, report=stop, trainer={"max_epochs": 5})
        except SystemExit as error:
            caught.append(error)  # with its traceback, as a calling program may keep it

    with warnings.catch_warnings(record=True) as shown, caplog.at_level(logging.INFO):
        warnings.simplefilter("always")
        thread = threading.Thread(target=trial, args=(network,))
        thread.start()
        thread.join()
    assert [type(error) for error in caught] == [SystemExit]
    assert optimizers[0]() is None
    assert [str(warning.message) for warning in shown] == []
    assert (caplog.text, *capfd.readouterr()) == ("", "", "")
    caught[0].with_traceback(None)  # only its frames, those of the caller, still refer to the network
    del network, thread
    gc.collect()
    assert alive() is None


def test_network_is_freed_after_a_fit(run_fit: RunFit) -> None:
    network = make_network()
    alive = weakref.ref(network)
    run_fit(network=network, trainer={"weight_averaging": "ema"})
    del network
    gc.collect()
    assert alive() is None


def test_other_errors_of_a_report_pass_through(run_fit: RunFit) -> None:
    def fail(epoch: int, metrics: dict[str, float]) -> None:
        raise torch.OutOfMemoryError("none left")

    with pytest.raises(torch.OutOfMemoryError, match="none left"):
        run_fit(report=fail)


def test_ctrl_c_is_a_keyboard_interrupt_and_works_again_after(run_fit: RunFit) -> None:
    import signal

    handler = signal.getsignal(signal.SIGINT)

    def interrupt(epoch: int, metrics: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_fit(report=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler


def test_torch_is_left_as_it_was(run_fit: RunFit) -> None:
    threads = torch.get_num_threads()
    torch.backends.cudnn.benchmark = False
    run_fit(trainer={"num_threads": 1, "deterministic": False, "max_epochs": 1})
    assert torch.get_num_threads() == threads
    assert not torch.backends.cudnn.benchmark
    assert torch.is_grad_enabled()


def test_shared_images_stay_as_they_are(run_fit: RunFit, data: FaceData) -> None:
    before = array_digest(data.images)
    run_fit(data=data, augment=Augment(flip=0.5, shift=0.1, brightness=0.3, erasing=0.5), trainer={"max_epochs": 1})
    assert array_digest(data.images) == before


def test_full_disk_is_named(run_fit: RunFit, tmp_path: Path) -> None:
    (tmp_path / "half_next_best.ckpt").symlink_to("/dev/full")
    message = f"{tmp_path / 'next_best.ckpt'} cannot be written: No space left on device"
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
        run_fit()


def test_precision_16_needs_a_gpu(run_fit: RunFit) -> None:
    with pytest.raises(ValueError, match=re.escape("trainer.precision is 16; it must be 32, bf16 or auto on a CPU")):
        run_fit(trainer={"precision": "16"})


def test_damaged_checkpoint_is_named(run_fit: RunFit, tmp_path: Path) -> None:
    run_fit(trainer={"max_epochs": 1})
    whole = (tmp_path / "last.ckpt").read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"not a checkpoint at all", whole[:200] + bytes(300) + whole[500:]):
        (tmp_path / "last.ckpt").write_bytes(broken)
        with pytest.raises(SweepError, match=rf"^{re.escape(str(tmp_path / 'last.ckpt'))} is damaged \(.+\)$"):
            run_fit(trainer={"max_epochs": 2})


@pytest.mark.full
def test_checkpoint_of_another_network_or_optimizer_is_named(run_fit: RunFit) -> None:
    with pytest.raises(StopError):
        run_fit(report=stop)
    with pytest.raises(SweepError, match=r"last\.ckpt has the weights of another network: size mismatch"):
        run_fit(network=make_network(dense_units=16))
    with pytest.raises(SweepError, match=r"last\.ckpt was written with another trainer\.weight_averaging"):
        run_fit(trainer={"weight_averaging": "ema"})
    with pytest.raises(SweepError, match=r"last\.ckpt has the state of another optimizer"):
        run_fit(trainer={"decay_norm_and_bias": False})
