"""The executor of one process, by the contract."""

from __future__ import annotations

import pytest

from autolora.execution import Executor
from autolora.execution.inline import InlineExecutor
from autolora.trainers.builtin.trainer import BuiltinTrainer
from tests.support.executor_contract import ClosingContract, ExecutorContract


class TestInlineExecutor(ExecutorContract):
    @pytest.fixture(scope="class")
    def executor(self, bench) -> Executor:
        executor = InlineExecutor()
        executor.start(BuiltinTrainer(bench))
        return executor


class TestClosingInlineExecutor(ClosingContract):
    @pytest.fixture
    def unstarted(self) -> Executor:
        return InlineExecutor()
