"""The right to write a study: one process has it at a time, on whatever host, until it ends."""

from __future__ import annotations

import hashlib
import os
import socket
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from urllib.parse import quote

from autolora.files import FileLock, LockHeldError
from autolora.study import filesystem
from autolora.study.storage import ConnectionLost, Storage, StudyError, engine, resolved, shown, sqlite_file

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection


CLOSING_SECONDS = 5.0
"""Longest wait for a database server to end a session that this process has closed."""


class StudyInUseError(StudyError):
    """Another process writes the study, or another search of this process has taken it over."""


class _Occupied(Exception):
    """Somebody else has the lock; says who, as far as that is known."""


class Ownership:
    """The right to write a study.

    PostgreSQL: an advisory lock of the session on a connection of its own, which ends with the process, however that
    ends; after the loss of its whole host the server notices within about two minutes. SQLite: a
    :class:`autolora.files.FileLock` on a file beside the database. Neither is inherited by children. On other databases
    there is no lock, and another writer is noticed only by the numbers of its trials.

    It belongs to the process: a later search of the same process takes it over, since what is left of an earlier one,
    such as that of a notebook's cell that is run again, is not used any more. It is given up when the object goes.

    Args:
        storage: as the user wrote it.
        name: of the study.

    Raises:
        StudyInUseError: another process has it.
    """

    _held: ClassVar[weakref.WeakValueDictionary[str, Ownership]] = weakref.WeakValueDictionary()

    def __init__(self, storage: Storage, name: str) -> None:
        self._study = f"the study {name!r} in {shown(storage)}"
        self._lock = _lock(resolved(storage), name)
        self.release = weakref.finalize(self, self._lock.release)
        earlier = self._held.get(self._lock.key)
        if earlier is not None:
            earlier.release()
        self._await_own_release()
        self.ensure()
        if self._lock.key:
            self._held[self._lock.key] = self

    def _await_own_release(self) -> None:
        """Wait while the lock is held by a session that this process has closed, which the server has yet to notice."""
        deadline = time.monotonic() + CLOSING_SECONDS
        while time.monotonic() < deadline:
            try:
                return self._lock.take()
            except _Occupied as owner:
                if not _ourselves().startswith(str(owner)):
                    return  # ensure() says whose it is
            time.sleep(0.02)

    def ensure(self) -> None:
        """Make sure of it before a write; a lock that went with its connection is taken again.

        Raises:
            StudyInUseError: it is gone.
            ConnectionLost: the database does not answer.
        """
        if not self.release.alive:
            raise StudyInUseError(f"{self._study} was closed, or another search of this process goes on with it")
        try:
            self._lock.take()
        except _Occupied as owner:
            raise StudyInUseError(
                f"{self._study} is in use by another process ({owner}): wait for it, stop it, or choose another storage"
            ) from None

    def abandon(self) -> None:
        """In a forked child: it stays with the parent, and must end when that does."""
        self.release.detach()
        self._lock.abandon()


def _abandon_all() -> None:
    for owned in list(Ownership._held.values()):
        owned.abandon()


if hasattr(os, "register_at_fork"):  # nothing forks on Windows
    os.register_at_fork(after_in_child=_abandon_all)


def _ourselves() -> str:
    return f"pid {os.getpid()} on {socket.gethostname()}"


class _Lock(Protocol):
    key: str
    """Identifier of the locked resource; empty if there is no lock."""

    def take(self) -> None:
        """Take it, or make sure that it is held.

        Raises:
            _Occupied: by another process.
            ConnectionLost: the database server is out of reach.
        """

    def release(self) -> None: ...

    def abandon(self) -> None:
        """Forget it in a forked child, which shares what the lock hangs on."""


def _lock(url: URL, name: str) -> _Lock:
    kind = url.get_backend_name()
    if kind == "postgresql":
        return _AdvisoryLock(url, name)
    path = sqlite_file(url)
    if path is not None:
        return _FileLock(path.with_name(f"{path.name}.{quote(name, safe='')[:100]}.lock"))
    return _NoLock()


class _NoLock:
    key = ""

    def take(self) -> None: ...

    def release(self) -> None: ...

    def abandon(self) -> None: ...


class _FileLock:
    def __init__(self, path: Path) -> None:
        self.key = str(path.resolve())
        self._lock = FileLock(path.resolve())
        self.release = self._lock.release
        self.abandon = self._lock.release  # the parent's descriptor holds it still

    def take(self) -> None:
        try:
            self._lock.acquire(_ourselves())
        except LockHeldError as held:
            raise _Occupied(held.owner or "unknown") from None
        except OSError as error:
            if filesystem.lacks_locks(error):
                raise StudyError(filesystem.without_locks(self._lock.path.parent, "the study")) from None
            raise StudyError(f"the study's storage does not work: {error}") from None


# A session may take its own lock any number of times: the same statement takes it and makes sure of it.
_TAKE = "SELECT pg_try_advisory_lock(:key) AS taken, pg_backend_pid() AS backend"
_HOLDER = """
    SELECT pid, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = :key
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
# The server must notice that this host died, and not end the session for being idle; older ones lack some settings.
_SET = "SELECT set_config(name, :value, false) FROM pg_settings WHERE name = :name"
_SETTINGS = {
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
    "idle_session_timeout": "0",
}


class _AdvisoryLock:
    def __init__(self, url: URL, name: str) -> None:
        from sqlalchemy import NullPool

        digest = hashlib.sha256(f"autolora:{name}".encode()).digest()
        self.key = f"{name} in {url}"
        self._key = {"key": int.from_bytes(digest[:8], "big", signed=True)}
        self._application = f"autolora, {_ourselves()}"[:63]  # no longer, or the server cuts it
        self._engine = engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._connection: Connection | None = None
        self._backend: int | None = None

    def take(self) -> None:
        from sqlalchemy import text

        try:
            connection = self._connection or self._connected()
            self._connection = connection
            answer = connection.execute(text(_TAKE), self._key).one()
            if not answer.taken:
                self._refuse(connection)
            self._backend = answer.backend
        except (ConnectionLost, _Occupied):
            self.release()
            raise

    def _connected(self) -> Connection:
        from sqlalchemy import text

        connection = self._engine.connect()
        for name, value in {**_SETTINGS, "application_name": self._application}.items():
            connection.execute(text(_SET), {"name": name, "value": value})
        return connection

    def _refuse(self, connection: Connection) -> None:
        from sqlalchemy import text

        holder = connection.execute(text(_HOLDER), self._key).first()
        if holder is not None and tuple(holder) == (self._backend, self._application):
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": self._backend})
            raise ConnectionLost("the server has yet to notice that the former connection is gone")
        owner = holder.application_name.removeprefix("autolora, ") if holder is not None else ""
        raise _Occupied(owner or "unknown")

    def release(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abandon(self) -> None:
        if self._connection is not None:
            # Closing would end the parent's session; that of the copy alone goes unnoticed by the server.
            driver: Any = self._connection.connection.dbapi_connection
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(null, driver.fileno(), inheritable=False)
            os.close(null)
            self._connection = None
