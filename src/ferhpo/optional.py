"""What a sweep does not depend on: figures, notes, views, tables, the display. If it fails, the sweep only warns."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ferhpo.errors import StorageError, first_line

log = logging.getLogger("ferhpo.sweep")
_warned: set[str] = set()


@contextmanager
def optional(what: str, warnings: list[str] | None = None) -> Iterator[None]:
    """Run a block whose errors become a warning, which begins with `what`; e.g. "the figures of trial 3 are missing".

    warnings: appended to, if given; otherwise each text is logged once
    Note: StorageError passes, because a sweep cannot continue on a full disk.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        text = f"{what}: {first_line(error)}"
        if warnings is not None:
            warnings.append(text)
        elif text not in _warned:
            _warned.add(text)
            log.warning("%s", text)
