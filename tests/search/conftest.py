"""SQLite without waiting for the disk: a crash of the process, which is what is tested, loses nothing by it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import optuna
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine


@pytest.fixture(autouse=True, scope="session")
def _fast_sqlite() -> Iterator[None]:
    def no_sync(connection, record):
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", no_sync)
    optuna.logging.set_verbosity(logging.WARNING)
    yield
    event.remove(Engine, "connect", no_sync)


@pytest.fixture
def storage(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"
