"""A PostgreSQL server that tests can crash: a throw-away cluster, gone when the tests end."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = "s3cret"
SETTINGS = {  # a crash of the server, not of the machine, loses nothing by them
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}

# The server ends with whoever holds the other end of the pipe, however that ends.
TIED = '"$@" & read how; kill -${how:-QUIT} $!; wait'


class Postgres:
    """A running server with password authentication, in a folder of its own.

    Raises:
        pytest.skip.Exception: there are no server binaries, or no user to run them as.
    """

    def __init__(self) -> None:
        pytest.importorskip("psycopg")
        self._binaries = _binaries()
        self._identity = _identity()
        # In memory where there is room: every database is 300 files.
        memory = Path("/dev/shm")
        roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 << 30
        self._folder = Path(tempfile.mkdtemp(prefix="autolora-postgres-", dir=memory if roomy else None))
        atexit.register(self.remove)
        if self._identity:
            shutil.chown(self._folder, self._identity["user"])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._server: subprocess.Popen | None = None
        self._names = (f"test_{number}" for number in itertools.count())
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        initdb = ["initdb", "-D", str(self._folder / "data"), "-U", "me", "-A", "scram-sha-256", "--pwfile", password]
        self._run(*initdb, "--no-sync", "-E", "UTF8", "--locale", "C")
        self.start()

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        self._server = subprocess.Popen(
            [
                "sh",
                "-c",
                TIED,
                "sh",
                self._binaries / "postgres",
                "-D",
                self._folder / "data",
                "-p",
                str(self.port),
                *settings,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "log").open("ab"),
            **self._identity,
        )
        deadline = time.monotonic() + 30
        while not self.answers():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start:\n{(self._folder / 'log').read_text()}")
            time.sleep(0.02)

    def answers(self) -> bool:
        import psycopg

        try:
            self._admin().close()
        except psycopg.OperationalError:
            return False
        return True

    def crash(self) -> None:
        """As if the power went: sessions end at once, and the next start recovers."""
        self._stop("QUIT")

    def stop(self) -> None:
        """Fast shutdown."""
        self._stop("INT")

    def _stop(self, how: str) -> None:
        if self._server is not None:
            self._server.communicate(f"{how}\n".encode(), timeout=30)
            self._server = None

    def remove(self) -> None:
        try:
            self._stop("QUIT")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def execute(self, statement: str) -> list[tuple]:
        """In the database ``postgres``, as its superuser."""
        with self._admin() as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _admin(self):
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="me", password=PASSWORD, dbname="postgres", autocommit=True
        )

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql+psycopg://me:{password}@127.0.0.1:{self.port}/{database}"

    @functools.cached_property
    def _template(self) -> str:
        """A database with Optuna's tables, which take longer to make than to copy."""
        from optuna.storages import RDBStorage

        self.execute("CREATE DATABASE template")
        RDBStorage(self.url("template")).engine.dispose()
        return "template"

    def new_database(self, empty: bool = False) -> str:
        """URL of a database of its own."""
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name}" + ("" if empty else f" TEMPLATE {self._template}"))
        return self.url(name)

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._binaries / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._folder, **self._identity)
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")


def _binaries() -> Path:
    """The folder with the newest server's binaries: on the path, or where Debian has them."""
    found = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return Path(os.path.realpath(found)).parent
    if not debian:
        pytest.skip("no PostgreSQL server is installed: initdb is not found")
    return debian[-1].parent


def _identity() -> dict:
    """Of the process that runs the server, which refuses to run as root."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL refuses to run as root, and there is neither a user 'postgres' nor 'nobody'")


@functools.cache
def _cluster() -> Postgres:
    return Postgres()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One for the whole session, in however many files this fixture is imported."""
    yield _cluster()
    _cluster().remove()


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request, tmp_path) -> str:
    """URL of an empty storage of each kind."""
    return new_storage(request, tmp_path)


def new_storage(request: pytest.FixtureRequest, folder: Path) -> str:
    """As a fixture's parameter, "sqlite" or "postgres", asks for."""
    if request.param == "sqlite":
        return f"sqlite:///{folder / 'study.db'}"
    return request.getfixturevalue("postgres").new_database()
