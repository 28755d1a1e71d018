"""Keys of the runs of a sweep: "" is the parent run, "7" that of trial 7, "7/fold0" that of its first fold."""

PARENT = ""


def key_of(number: int | None) -> str:
    """Return the key of a trial's run, or of the parent run for None."""
    return PARENT if number is None else str(number)
