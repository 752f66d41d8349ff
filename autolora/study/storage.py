"""Where a study is kept: a URL whose secrets stay out of sight, and a connection that may be lost for a while."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from autolora import files
from autolora.errors import AutoloraError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy import URL, Engine

logger = logging.getLogger(__name__)

PATIENCE = 300.0
"""Seconds for which a write waits for a lost connection to come back."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0

HIDDEN = "***"
_REFERENCE = re.compile(r"\$\{(\w+)\}")
_NOT_A_REFERENCE = r"(?!\$\{\w+\}(?:[@&\s]|$))"
# To the last @: one that belongs to the password should be written %40, and often is not.
_SECRETS = re.compile(rf"(://[^:/@]*:){_NOT_A_REFERENCE}.+(?=@)|(\b\w*password=){_NOT_A_REFERENCE}[^&\s]+", re.DOTALL)

# Of libpq: what keeps an idle connection open through firewalls also shows within minutes that the other end died.
_LIBPQ = {"connect_timeout": 10, "keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6}
_LIBPQ["tcp_user_timeout"] = 60_000


class StudyError(AutoloraError, ValueError):
    """The storage holds another search, or cannot be used."""


class ConnectionLost(Exception):
    """The database server is out of reach. Internal: trying again helps, or a :class:`StudyError` says that it did not.

    Not an error of SQLAlchemy's on purpose: when creating a trial Optuna tries again after any of these, although the
    trial may have been committed and only the answer lost; the study would then hold it twice.
    """


def shown(storage: str) -> str:
    """The URL as it may be printed and recorded: passwords are ``***``, references to variables stay."""
    return _SECRETS.sub(lambda match: (match[1] or match[2]) + HIDDEN, storage)


def resolved(storage: str) -> URL:
    """The URL to connect to.

    ``${NAME}`` is the environment variable of that name, written for the whole URL or for its user, password, host or
    database, where it needs no percent-encoding. Without a password, or with one that :func:`shown` has hidden, the
    driver looks for it: PostgreSQL's in PGPASSWORD and ~/.pgpass.

    Raises:
        StudyError: it is no URL, or a variable is not set.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    whole = _REFERENCE.fullmatch(storage.strip())
    text = _variable(whole) if whole else storage
    try:
        url = make_url(text.replace(f":{HIDDEN}@", "@"))
    except (ArgumentError, ValueError):  # whose message may hold a part of the password
        raise StudyError(
            f"{shown(storage)!r} is no storage URL, as are sqlite:///study.db and "
            "postgresql+psycopg://user:${PGPASSWORD}@host/database; in a user or password written out, @ is %40, "
            "/ is %2F and : is %3A"
        ) from None

    def expanded(part: str | None) -> str | None:
        return _REFERENCE.sub(_variable, part) if part else None

    database = expanded(url.database)
    if database and url.get_backend_name() == "sqlite":
        database = str(files.expanded(database))
    return url.set(
        username=expanded(url.username),
        password=expanded(url.password),
        host=expanded(url.host),
        database=database,
    )


def _variable(reference: re.Match[str]) -> str:
    try:
        return os.environ[reference[1]]
    except KeyError:
        raise StudyError(
            f"the storage URL refers to the environment variable {reference[1]}, which is not set"
        ) from None


def connect(storage: str) -> RDBStorage:
    """Optuna's storage at the URL, whose operations raise :class:`ConnectionLost` from now on.

    Raises:
        StudyError: it cannot be opened. This is not waited for: a wrong host or password looks like a server that is
            down.
    """
    with failures(storage):
        opened = _opened(resolved(storage))
    _tell_lost_connections(opened.engine)
    return opened


def _opened(url: URL) -> RDBStorage:
    """Optuna's storage, where another process may be making its tables at this moment."""
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    for pause in (0.1, 0.2, 0.4, 0.8, None):
        try:
            return RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=_engine_options(url))
        except (IntegrityError, ProgrammingError):  # what it was about to make exists by now
            if pause is None:
                raise
            time.sleep(pause)
    raise AssertionError


def engine(url: URL, **options: Any) -> Engine:
    """For connections beside Optuna's."""
    import sqlalchemy

    made = sqlalchemy.create_engine(url, **(_engine_options(url) | options))
    _tell_lost_connections(made)
    return made


def _engine_options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {}
    options: dict[str, object] = {"pool_pre_ping": True}
    if url.get_dialect().driver in ("psycopg", "psycopg2"):
        options["connect_args"] = {name: value for name, value in _LIBPQ.items() if name not in url.query}
    return options


def _tell_lost_connections(made: Engine) -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import ExceptionContext

    def replaced(context: ExceptionContext) -> Exception | None:
        if context.is_pre_ping:
            return None  # the pool makes a new connection at once
        failed = context.connection is None and isinstance(
            context.original_exception, context.dialect.loaded_dbapi.OperationalError
        )
        return ConnectionLost(_one_line(context.original_exception)) if context.is_disconnect or failed else None

    if made.dialect.name != "sqlite":
        event.listen(made, "handle_error", replaced)


@contextmanager
def failures(storage: str) -> Iterator[None]:
    """Say in one line that a storage fails, for instance on a full disk.

    Raises:
        StudyError: instead of what SQLAlchemy, Optuna and the database's driver raise.
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
    except (StorageInternalError, SQLAlchemyError, ConnectionLost) as error:
        cause = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
        raise StudyError(
            f"the study's storage {shown(storage)} does not work: {_one_line(cause)}. Completed work is saved. "
            "Fix the storage (a full disk? a wrong URL? it looks like sqlite:///study.db) and rerun the same command."
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")


def patiently(attempt: Callable[[bool], None], storage: str) -> None:
    """Call ``attempt(False)``; where it loses the connection, ``attempt(True)`` until it no longer does.

    Raises:
        ConnectionLost: for :data:`PATIENCE` seconds there was none.
    """
    pause, deadline = FIRST_PAUSE, None
    while True:
        try:
            return attempt(deadline is not None)
        except ConnectionLost as lost:
            if deadline is None:
                deadline = time.monotonic() + PATIENCE
                logger.warning(
                    "the connection to %s is lost (%s): trying again for %g seconds", shown(storage), lost, PATIENCE
                )
            elif time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
