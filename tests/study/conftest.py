"""A server for all tests of storages."""

from __future__ import annotations

import logging

import optuna
import pytest

from tests.support.postgres import postgres, storage  # noqa: F401


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(logging.WARNING)
