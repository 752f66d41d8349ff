"""Trials without a line each."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import optuna
import pytest


@pytest.fixture(autouse=True, scope="session")
def _quiet_optuna() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)
