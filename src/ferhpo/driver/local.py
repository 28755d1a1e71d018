"""Run trials in this process, one after the other, without Ray."""

from ferhpo.data.dataset import FaceData
from ferhpo.driver.ledger import CONTINUE, Ledger
from ferhpo.driver.signals import StopNotice
from ferhpo.errors import FerhpoError
from ferhpo.states import TrialState
from ferhpo.training.settings import Hardware
from ferhpo.trial.cross_validation import runner_of
from ferhpo.trial.run import failure


def run(ledger: Ledger, data: FaceData, hardware: Hardware) -> bool:
    """Run every trial of a sweep. Returns False if the user interrupted it.

    hardware: what each trial may use; the threads of this process are as before afterwards
    Raises FerhpoError if the disk or a checkpoint cannot be used; what is recorded by then is kept.
    """
    import torch

    before = torch.get_num_threads()
    try:
        while (trial := ledger.next_trial()) is not None:
            _run_trial(ledger, trial.number, data, hardware)
    except KeyboardInterrupt:
        return False
    finally:
        torch.set_num_threads(before)
    return True


def _run_trial(ledger: Ledger, number: int, data: FaceData, hardware: Hardware) -> None:
    ledger.start(number)
    trial = ledger.study.trial(number)

    def report(count: int, metrics: dict[str, float], fold_epochs: list[dict[str, float]] | None = None) -> None:
        ledger.report(number, count, metrics, lambda: CONTINUE, fold_epochs)
        ledger.check_budget()
        if (notice.is_given or ledger.is_stopping) and count < ledger.num_reports:
            raise KeyboardInterrupt

    try:
        with StopNotice(ledger.compute.stop_grace_seconds) as notice:
            outcome = runner_of(trial.config)(
                trial.config,
                data,
                ledger.sweep.trial_folder(number),
                trial.seed,
                report,
                on_start=lambda facts: ledger.report_facts(number, facts),
                hardware=hardware,
            )
        ledger.ended(number, outcome.state, outcome.reason)
    except FerhpoError:
        raise
    except Exception as error:  # the trial's boundary
        ledger.ended(number, TrialState.FAILED, failure(error))
