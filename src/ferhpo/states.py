"""The states of trials and of MLflow runs.

A trial            stored in the study as    its MLflow run
-----------------  ------------------------  ------------------------------------------------
running            RUNNING                   RUNNING
interrupted        RUNNING, with no driver   KILLED, tag ferhpo.state=STOPPED; a resume continues it
complete           COMPLETE                  FINISHED
pruned             PRUNED                    FINISHED, tag ferhpo.state=PRUNED
infeasible         INFEASIBLE                FAILED: the network cannot be built, or does not fit in memory
diverged           DIVERGED                  FAILED: the loss is not finite
failed             FAILED                    FAILED: an error, or its worker was lost too often

A trial is *over* in every state but RUNNING. A sweep's parent run is RUNNING, COMPLETE, STOPPED (the user interrupted
it, or its driver was killed) or FAILED.
"""

from enum import StrEnum


class TrialState(StrEnum):
    """The state of a trial in the study."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    INFEASIBLE = "INFEASIBLE"
    DIVERGED = "DIVERGED"
    FAILED = "FAILED"

    @property
    def is_over(self) -> bool:
        """Whether the trial never continues."""
        return self is not TrialState.RUNNING

    @property
    def has_result(self) -> bool:
        """Whether the trial ended as trials are meant to, so that its value may be compared with others'."""
        return self in (TrialState.COMPLETE, TrialState.PRUNED)

    @property
    def is_failure(self) -> bool:
        """Whether the trial ended without a result."""
        return self.is_over and not self.has_result


def shown_state(state: TrialState, is_running: bool) -> str:
    """Return the word for a trial's state. is_running: whether a driver runs its sweep; if not, it was interrupted."""
    return "interrupted" if state is TrialState.RUNNING and not is_running else state.lower()


class RunState(StrEnum):
    """The state of an MLflow run, its tag ferhpo.state: a trial's, or STOPPED."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    INFEASIBLE = "INFEASIBLE"
    DIVERGED = "DIVERGED"
    FAILED = "FAILED"

    @property
    def is_over(self) -> bool:
        """Whether a resume leaves the run as it is."""
        return self not in (RunState.RUNNING, RunState.STOPPED)

    @property
    def mlflow_status(self) -> str:
        """MLflow's own status for the state."""
        if self is RunState.RUNNING:
            return "RUNNING"
        if self is RunState.STOPPED:
            return "KILLED"
        return "FINISHED" if self in (RunState.COMPLETE, RunState.PRUNED) else "FAILED"
