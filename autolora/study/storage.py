"""Where a study is kept: a URL whose secrets stay out of sight, and a connection that may be lost for a while."""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from autolora import files, urls
from autolora.errors import AutoloraError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy import URL, Engine, Pool

logger = logging.getLogger(__name__)

Storage = str | Path
"""A URL as the user wrote it, or the path of an SQLite file, whatever its name."""
Returned = TypeVar("Returned")

PATIENCE = 300.0
"""Seconds for which a write waits for a lost connection to come back, and everything for a lock of SQLite."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
LOCK_SECONDS = 5.0
"""Wait of SQLite itself for a lock, which Ctrl-C does not interrupt."""

# Of libpq: what keeps an idle connection open through firewalls also shows within minutes that the other end died.
_LIBPQ = {"connect_timeout": 10, "keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6}
_LIBPQ["tcp_user_timeout"] = 60_000


class StudyError(AutoloraError, ValueError):
    """The storage holds another search, or cannot be used."""


class OtherTermsError(StudyError):
    """A study was made on other terms."""


class ConnectionLost(Exception):
    """The database server is out of reach. Internal: trying again helps, or a :class:`StudyError` says that it did not.

    Not an error of SQLAlchemy's on purpose: when creating a trial Optuna tries again after any of these, although the
    trial may have been committed and only the answer lost; the study would then hold it twice.
    """


class Locked(ConnectionLost):
    """Another process reads or writes an SQLite file. Internal, as its base class is."""


def shown(storage: Storage) -> str:
    """The storage as it may be printed and recorded: secrets are hidden, references to variables stay."""
    return files.shown(storage) if isinstance(storage, Path) else urls.shown(storage)


def resolved(storage: Storage) -> URL:
    """The URL to connect to.

    ``${NAME}`` is the environment variable of that name, written for the whole URL or for its user, password, host or
    database, where it needs no percent-encoding. Without a password, or with one that :func:`shown` has hidden, the
    driver looks for it: PostgreSQL's in PGPASSWORD and ~/.pgpass. In a path nothing stands for anything else.

    Raises:
        StudyError: it is no URL, or a variable is not set.
    """
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError

    if isinstance(storage, Path):
        return URL.create("sqlite", database=str(storage.absolute()))
    whole = urls.REFERENCE.fullmatch(storage.strip())
    text = _variable(whole[1]) if whole else storage
    try:
        url = make_url(text.replace(f":{urls.HIDDEN}@", "@"))
    except (ArgumentError, ValueError):  # whose message may hold a part of the password
        raise StudyError(
            f"storage: {_outline(storage)!r} is no storage URL, as are sqlite:///study.db and "
            "postgresql+psycopg://user:${PGPASSWORD}@host/database; in a user or password written out, @ is %40, "
            "/ is %2F and : is %3A"
        ) from None

    def expanded(part: str | None) -> str | None:
        return urls.REFERENCE.sub(lambda reference: _variable(reference[1]), part) if part else None

    parameters = {
        name: tuple(map(str, map(expanded, value))) if isinstance(value, tuple) else str(expanded(value))
        for name, value in url.query.items()
        if value != urls.HIDDEN
    }
    database = expanded(url.database)
    if database and url.get_backend_name() == "sqlite":
        database = str(files.expanded(database))
    return url.set(
        username=expanded(url.username),
        password=expanded(url.password),
        host=expanded(url.host),
        database=database,
        query=parameters,
    )


def _outline(storage: str) -> str:
    """What may be shown of text that is no URL: any part of it may be a password."""
    known = shown(storage)
    if known != storage or not set(storage) & set("@:"):
        return known
    return f"{re.split('[:@]', storage)[0]}:{urls.HIDDEN}"


def _variable(name: str) -> str:
    try:
        return urls.variable(name)
    except urls.VariableError as error:
        raise StudyError(f"the storage URL refers to {error}") from None


def located(storage: str) -> str:
    """The URL from any folder: that of an SQLite file with its whole path, others unchanged."""
    scheme, separator, rest = storage.partition(":///")
    relative = rest and not rest.startswith(("/", "${", ":memory:", "file:"))
    if scheme.partition("+")[0] != "sqlite" or not separator or not relative:
        return storage
    path, question, query = rest.partition("?")
    return f"{scheme}:///{files.absolute(path)}{question}{query}"


def sqlite_file(url: URL) -> Path | None:
    """The file of a resolved URL, which need not exist; None if the storage is not an SQLite file."""
    in_memory = url.database in (None, "", ":memory:") or url.query.get("mode") == "memory"
    if url.get_backend_name() != "sqlite" or in_memory:
        return None
    return Path(f"{url.database}".removeprefix("file:"))


def connect(storage: Storage) -> RDBStorage:
    """Optuna's storage at the URL, whose operations raise :class:`ConnectionLost` from now on.

    Raises:
        StudyError: it cannot be opened. This is not waited for: a wrong host or password looks like a server that is
            down.
        Locked: another process has locked the SQLite file.
    """
    with failures(storage):
        url = resolved(storage)
        opened = _opened(url)
    _tell_lost_connections(opened.engine)
    return opened


def _opened(url: URL) -> RDBStorage:
    """Optuna's storage, where another process may be making its tables at this moment."""
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    options = _engine_options(url)
    # Optuna takes text, formats it and has it parsed: a file of any name is opened beside that.
    text = "sqlite://" if "creator" in options else url.render_as_string(hide_password=False)
    for pause in (0.1, 0.2, 0.4, 0.8, None):
        try:
            return RDBStorage(text.replace("{", "{{").replace("}", "}}"), engine_kwargs=options)
        except OperationalError as error:
            if _is_locked(error.orig):
                raise Locked(str(error.orig)) from None
            if pause is None or not _exists_already(error.orig):
                raise
        except RuntimeError as error:  # its tables are of another version of Optuna
            raise StudyError(f"the study's storage cannot be used with this Optuna: {_one_line(error)}") from None
        except (IntegrityError, ProgrammingError):  # what it was about to make exists by now
            if pause is None:
                raise
        time.sleep(pause)
    raise AssertionError


def _is_locked(error: object) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "is locked" in str(error)


def _exists_already(error: object) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "already exists" in str(error)


def engine(url: URL, **options: Any) -> Engine:
    """For connections beside Optuna's."""
    import sqlalchemy

    made = sqlalchemy.create_engine(url, **(_engine_options(url) | options))
    _tell_lost_connections(made)
    return made


def _engine_options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        path = sqlite_file(url)
        if path is None or url.query or str(url.database).startswith("file:"):
            return {}
        return {"creator": partial(_sqlite, path), "poolclass": _file_pool()}
    options: dict[str, object] = {"pool_pre_ping": True}
    if url.get_dialect().driver in ("psycopg", "psycopg2"):
        options["connect_args"] = {name: value for name, value in _LIBPQ.items() if name not in url.query}
    return options


def _sqlite(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path.absolute(), timeout=LOCK_SECONDS, check_same_thread=False)


def _file_pool() -> type[Pool]:
    from sqlalchemy import QueuePool

    return QueuePool


def _tell_lost_connections(made: Engine) -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import ExceptionContext

    # None refers to the engine, which would then stay, with its connections, until garbage is collected.
    def locked(context: ExceptionContext) -> Exception | None:
        return Locked(str(context.original_exception)) if _is_locked(context.original_exception) else None

    def lost(context: ExceptionContext) -> Exception | None:
        if context.is_pre_ping:
            return None  # the pool makes a new connection at once
        failed = context.connection is None and isinstance(
            context.original_exception, context.dialect.loaded_dbapi.OperationalError
        )
        return ConnectionLost(_one_line(context.original_exception)) if context.is_disconnect or failed else None

    event.listen(made, "handle_error", locked if made.dialect.name == "sqlite" else lost)


@contextmanager
def failures(storage: Storage) -> Iterator[None]:
    """Say in one line that a storage fails, for instance on a full disk.

    Raises:
        StudyError: instead of what SQLAlchemy, Optuna and the database's driver raise.
        Locked: as it is, for :func:`unlocked`.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:
        raise StudyError(
            f"the database driver of {shown(storage)} is not installed ({error.__cause__ or error}); for PostgreSQL: "
            'pip install "autolora-tune[postgres]", and a URL that begins with postgresql+psycopg://'
        ) from error
    except Locked:
        raise
    except (StorageInternalError, SQLAlchemyError, ConnectionLost) as error:
        cause = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
        reason = _scrubbed(_one_line(cause), storage)
        said = (
            f"the study's storage {shown(storage)} does not work: {reason}. Completed work is saved. "
            "Fix the storage (a full disk? a wrong URL? it looks like sqlite:///study.db) and rerun the same command."
        )
        if reason != _one_line(cause):
            raise StudyError(said) from None  # a traceback would show the driver's message
        raise StudyError(said) from error


def _scrubbed(text: str, storage: Storage) -> str:
    return text if isinstance(storage, Path) else urls.scrubbed(text, storage)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")


def patiently(attempt: Callable[[bool], Returned], storage: Storage) -> Returned:
    """Call ``attempt(False)``; where it loses the connection, ``attempt(True)`` until it no longer does.

    Raises:
        ConnectionLost: for :data:`PATIENCE` seconds there was none.
        StudyError: for as long another process held a lock on the SQLite file.
    """
    pause, deadline = FIRST_PAUSE, None
    while True:
        try:
            return attempt(deadline is not None)
        except ConnectionLost as lost:
            if deadline is None:
                deadline = time.monotonic() + PATIENCE
                logger.warning(_waiting(lost, storage))
            elif time.monotonic() + pause > deadline:
                if isinstance(lost, Locked):
                    raise StudyError(
                        f"another process has kept {_file_of(storage)} locked for {PATIENCE:g} seconds. Completed work "
                        f"is saved. Close what reads it, such as optuna-dashboard, and rerun the "
                        "same command."
                    ) from None
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def unlocked(attempt: Callable[[], Returned], storage: Storage) -> Returned:
    """What an operation returns that may be repeated, as soon as no other process locks the SQLite file.

    Raises:
        StudyError: for :data:`PATIENCE` seconds one did.
    """
    return patiently(lambda again: attempt(), storage)


def _waiting(lost: ConnectionLost, storage: Storage) -> str:
    if not isinstance(lost, Locked):
        reason = _scrubbed(str(lost), storage)
        return f"the connection to {shown(storage)} is lost ({reason}): trying again for {PATIENCE:g} seconds"
    return (
        f"another process reads or writes {_file_of(storage)} and keeps it locked: waiting up to {PATIENCE:g} seconds "
        "for its transaction to end"
    )


def _file_of(storage: Storage) -> str:
    path = sqlite_file(resolved(storage))
    return shown(storage) if path is None else files.shown(path)
