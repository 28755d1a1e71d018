"""Open SQLite files that may come from anyone: views, triggers and expressions in them run when they are used."""

import re
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ferhpo.disk import fault_of_file

MOST_SECONDS = 60.0
BESIDE = ("-journal", "-wal", "-shm")  # what SQLite reads and writes beside a database
_MOST_BYTES = 100_000_000  # of one value; MLflow's are smaller
_STEPS = 10_000  # of SQLite's machine, between two looks at the clock
# SQLite deletes the file that is named before this end of a journal. It makes such journals only for several databases.
_NAMES_A_FILE = bytes.fromhex("d9d505f920a163d7")
# The statements of a database that MLflow made, in any version. No expression in them is longer than these.
_CONSTANT = r"(?:'[\w -]*'|\d+)"
_HARMLESS = re.compile(
    rf"CHECK \(\w+ IN \({_CONSTANT}(?:, {_CONSTANT})*\)\)|DEFAULT {_CONSTANT}"
    r"|GENERATED ALWAYS AS \(\w+ - \w+\) STORED",
    re.ASCII,
)
_EXPRESSION = re.compile(r"(?i)\b(?:CHECK|DEFAULT|AS|WHERE)\b|--|/\*", re.ASCII)
_NAME = r'(?:\w+|"\w+")'
_INDEX = re.compile(
    rf"CREATE (?:UNIQUE )?INDEX {_NAME} ON {_NAME} \({_NAME}(?: DESC)?(?:, {_NAME}(?: DESC)?)*\)", re.ASCII
)
_TRIGGER = (
    "CREATE TRIGGER prevent_secrets_aad_mutation BEFORE UPDATE ON secrets FOR EACH ROW "
    "WHEN OLD.secret_id != NEW.secret_id OR OLD.secret_name != NEW.secret_name BEGIN "
    "SELECT RAISE(ABORT, 'secret_id and secret_name are immutable (used as AAD in encryption)'); END"
)


@contextmanager
def opened_sqlite(
    path: Path, wait_seconds: float, read_only: bool = True, most_seconds: float = MOST_SECONDS
) -> Iterator[sqlite3.Connection]:
    """Yield a connection that is closed at the end, and whose statements end with sqlite3.OperationalError in time.

    wait_seconds: for the lock of another process; most_seconds: for all statements together
    Raises sqlite3.OperationalError for files that SQLite must not open (see `files_fault`).
    """
    if fault := files_fault(path):
        raise sqlite3.OperationalError(fault)
    mode = "ro" if read_only else "rw"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=wait_seconds)
    deadline = time.monotonic() + most_seconds
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
    try:
        yield connection
    finally:
        connection.close()


def files_fault(path: Path) -> str:
    """Return why SQLite must not open a database or the files beside it, with the remedy; empty if it may.

    It would wait for a pipe, follow a link, and delete the file that a journal names.
    """
    try:
        if path.exists() and (fault := fault_of_file(path)):
            return f"{fault}; restore it from a copy, or remove it"
        real = path.resolve()
        for end in BESIDE:
            beside = real.with_name(real.name + end)
            # Another process may just have ended its transaction. What is above a file is said by whoever opens it.
            with suppress(FileNotFoundError, NotADirectoryError):
                if not stat.S_ISREG(beside.lstat().st_mode):
                    return f"{beside.name} beside it is not a regular file; remove it"
                if end == "-journal" and _end_of(beside) == _NAMES_A_FILE:
                    return f"{beside.name} beside it names a file that SQLite would delete; remove this journal"
    except PermissionError:  # SQLite cannot read them either, and whoever opens the database says so
        return ""
    except (OSError, RuntimeError) as error:
        return f"it cannot be read ({error}); correct its folder"
    return ""


def _end_of(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_NAMES_A_FILE)))
        return file.read(len(_NAMES_A_FILE))


def content_fault(path: Path) -> str:
    """Return what a SQLite file has that MLflow does not make, because it could run forever; empty if nothing.

    MLflow makes tables and indexes, whose only expressions are lists of constants. A file that is no database, is
    locked, or does not exist, has nothing; whoever opens it says so.
    """
    try:
        if not path.is_file() or not path.stat().st_size:
            return ""
        # Not read-only: SQLite refuses to read a file that a kill left half written, but repairs it for MLflow.
        with opened_sqlite(path, wait_seconds=5, read_only=False, most_seconds=5) as database:
            database.text_factory = lambda content: content.decode(errors="replace")
            # The column `type` says nothing: SQLite takes what the statement says.
            statements = database.execute("SELECT CAST(sql AS TEXT) FROM sqlite_master WHERE sql IS NOT NULL")
            found = next(filter(None, (_foreign_part(sql) for (sql,) in statements)), "")
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        is_said = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB)
        return "" if is_said else f"it cannot be read ({error})"
    except OSError:
        return ""
    return f"it has {found}, which MLflow does not make and which could run forever" if found else ""


def _foreign_part(sql: str) -> str:
    """Return what a statement of a schema has that none of MLflow's has; empty if nothing."""
    text = " ".join(sql.split())
    if _INDEX.fullmatch(text) or text == _TRIGGER:
        return ""
    if not text.startswith("CREATE TABLE "):
        return repr(text[:80])
    rest = _HARMLESS.sub(" ", text)
    found = _EXPRESSION.search(rest)
    return f"{rest[found.start() : found.start() + 60]!r} in {text[:50]!r}" if found else ""
