"""Storages of both kinds that do not wait for the disk: a crash of a process, which is tested, loses nothing by it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator

import optuna
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.storage.postgres import postgres, storage  # noqa: F401


@pytest.fixture(autouse=True, scope="session")
def _fast_sqlite() -> Iterator[None]:
    def no_sync(connection, record):
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", no_sync)
    optuna.logging.set_verbosity(logging.WARNING)
    yield
    event.remove(Engine, "connect", no_sync)
