"""Keys of the runs of a sweep: "" is the parent run, "7" that of trial 7, "7/fold0" that of its first fold."""

PARENT = ""


def key_of(number: int | None) -> str:
    """Return the key of a trial's run, or of the parent run for None."""
    return PARENT if number is None else str(number)


def name_of(sweep_name: str | None, run: str) -> str:
    """Return the name of a run in MLflow, e.g. demo-007."""
    number, _, fold = run.partition("/")
    return "-".join(part for part in (sweep_name, f"{int(number):03d}" if number else "", fold) if part)


def mark_of(sweep_id: str | None, run: str) -> str:
    """Return the value of the tag `ferhpo.trial` of a run, which identifies it in the store."""
    return f"{sweep_id}/{run or 'parent'}"
