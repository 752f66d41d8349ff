"""Settings of the whole suite, made before torch is imported; a workbench on the shipped model and task."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the processes that tests start: bit-equality needs equal counts
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import gc
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.support.specs import small_spec

LONGEST = (
    "execution/test_ray_faults.py",
    "variants/test_variant_contract.py",
    "variants/test_variant_export_contract.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: a file is one process's, and none should be left with such a one at the end."""
    items.sort(key=lambda item: not any(item.path.match(name) for name in LONGEST))


@pytest.fixture(autouse=True, scope="session")
def _cache_of_their_own(tmp_path_factory):
    """Nothing is found in, or left in, the cache of whoever runs the tests."""
    os.environ["AUTOLORA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="module")
def _libraries_are_no_garbage() -> None:
    """Tests that collect garbage, to see that nothing stays, do not search all libraries each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """In this process: tests kill processes, never the machine, and what SQLite has handed over survives that."""

    def no_sync(connection, record) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", no_sync)
    yield
    event.remove(Engine, "connect", no_sync)


@pytest.fixture(scope="session")
def base():
    """The shipped model, loaded once for all tests."""
    from autolora import bases

    return bases.load(small_spec())


@pytest.fixture(autouse=True)
def _recalled(request) -> Iterator[None]:
    """A test that leaves the shared base to workers leaves it to the next test as it was."""
    held = request.getfixturevalue("base") if "base" in request.fixturenames else None
    yield
    if held is not None:
        held.recall()


@pytest.fixture(scope="session")
def open_bench(base, tmp_path_factory):
    """``open_bench(folder, **overrides)``: a workbench on the shared base; tokens are kept from test to test."""
    from autolora.trainers.builtin.workbench import Workbench, prepare_data

    tokens = tmp_path_factory.mktemp("tokens")

    def make(folder: Path, **overrides: Any) -> Workbench:
        spec = small_spec(**overrides)
        data = prepare_data(spec, base.tokenizer, tokens)
        return Workbench.of(spec, folder, base, data)

    return make


@pytest.fixture
def make_trainer(make_bench):
    """A builtin trainer on a workbench as :func:`make_bench` has it."""
    from autolora.trainers.builtin.trainer import BuiltinTrainer

    def make(**arguments: Any):
        return BuiltinTrainer(make_bench(**arguments))

    return make


@pytest.fixture
def make_bench(open_bench, tmp_path):
    """A workbench in the test's folder, or another; keyword arguments override the specification."""

    def make(folder: Path = tmp_path, **overrides: Any):
        return open_bench(folder, **overrides)

    return make
