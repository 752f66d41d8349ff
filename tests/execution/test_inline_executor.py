"""The executor of one process, by the contract."""

from __future__ import annotations

import pytest

from autolora.execution import Executor
from autolora.execution.inline import InlineExecutor
from tests.support.executor_contract import ClosingContract, ExecutorContract


class TestInlineExecutor(ExecutorContract):
    @pytest.fixture(scope="class")
    def executor(self, bench) -> Executor:
        return InlineExecutor(bench)


class TestClosingInlineExecutor(ClosingContract):
    @pytest.fixture
    def executor(self, bench) -> Executor:
        return InlineExecutor(bench)
