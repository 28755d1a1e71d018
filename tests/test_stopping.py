"""A request to stop: the first signal waits for running epochs, the second does not. Real signals to this process."""

import os
import signal
import threading
import time

import pytest

import ferhpo
from ferhpo.driver.signals import SIGNALS, StopNotice


class AtOnce(Exception):  # noqa: N818
    """Raised by `at_once`."""


def stop():
    raise AtOnce


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_a_notice_and_the_second_stops(number, capfd):
    before = [signal.getsignal(each) for each in SIGNALS]
    notices = []
    with StopNotice(60, lambda: notices.append(1), stop) as notice:
        assert not notice.is_given
        send(number)
        assert notice.is_given
        assert notices == [1]
        with pytest.raises(AtOnce):
            send(number)
        with pytest.raises(KeyboardInterrupt):
            send(number)
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert capfd.readouterr().err == (
        "stopping: waiting up to 60 s for running epochs; press Ctrl-C again to stop now\n"
    )


def test_the_end_of_the_grace_stops():
    with StopNotice(0.05, at_once=stop) as notice:
        send()
        assert notice.is_given
        with pytest.raises(AtOnce):
            time.sleep(10)


def test_without_a_grace_the_first_signal_stops():
    with StopNotice(0, at_once=stop), pytest.raises(AtOnce):
        send()


def test_a_notice_that_was_in_time_leaves_no_timer():
    late_signals = []
    before = signal.signal(signal.SIGTERM, lambda *_: late_signals.append("signal"))
    try:
        with StopNotice(0.05, at_once=stop) as notice:
            send()
        time.sleep(0.1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (notice.num_heard, late_signals) == (1, []), "the timer of the grace period was canceled"


def test_in_another_thread_it_handles_no_signals():
    before, inside = signal.getsignal(signal.SIGTERM), []

    def work():
        with StopNotice(1):
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]


@pytest.mark.full
@pytest.mark.parametrize("grace_seconds", [20, 0])
def test_a_training_ends_its_epoch_before_it_stops(tiny, tmp_path, monkeypatch, grace_seconds):
    """The signal comes during the first epoch: that epoch is checkpointed and recorded, and no other starts."""
    from ferhpo.training.steps import module

    original, calls = module.Classifier.training_step, []

    def step(self, *arguments):
        if not calls:
            calls.append(1)
            send()
        return original(self, *arguments)

    monkeypatch.setattr(module.Classifier, "training_step", step)
    options = [*tiny, "tracking=none", f"compute.stop_grace_seconds={grace_seconds}"]
    result = ferhpo.train("demo", options)
    (trial,) = result.sweep.trials()
    assert (result.finished, trial.state, len(trial.epochs)) == (False, "RUNNING", 1 if grace_seconds else 0)
    assert (result.sweep.trial_folder(0) / "last.ckpt").exists() == bool(grace_seconds)
    again = ferhpo.train("demo", [f"output_dir={tmp_path / 'mlruns'}"], resume=True)
    (after,) = again.sweep.trials()
    assert (again.finished, after.state, len(after.epochs)) == (True, "COMPLETE", 3)
    assert after.epochs[: len(trial.epochs)] == trial.epochs


def test_a_notice_during_the_probe_lets_the_first_epoch_end(tiny, monkeypatch):
    monkeypatch.setattr("ferhpo.training.epoch_end.probe", lambda *arguments, **settings: send())
    result = ferhpo.train("demo", [*tiny, "tracking=none"])
    (trial,) = result.sweep.trials()
    assert (result.finished, trial.state, len(trial.epochs)) == (False, "RUNNING", 1)
