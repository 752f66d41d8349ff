"""Storages of both kinds, and trials without a line each."""

from __future__ import annotations

import logging

import optuna
import pytest

from tests.support.postgres import postgres, storage  # noqa: F401


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    optuna.logging.set_verbosity(logging.WARNING)
