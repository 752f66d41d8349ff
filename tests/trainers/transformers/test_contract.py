"""Trainers of functions keep the contract of all trainers, whichever way the model got its adapter."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from autolora import spec as specs
from autolora.trainers import Trainer, open_trainer
from tests.support.makers import EPOCHS, ROWS, SPEC
from tests.support.trainer_contract import CONFIG, TrainerContract


class FunctionContract(TrainerContract):
    function = ""
    settings: dict[str, object] = {}  # noqa: RUF012

    @pytest.fixture(scope="class")
    def make_trainer(self) -> Callable[..., Trainer]:
        given = {**SPEC, "trainer": f"tests.support.makers:{self.function}", **self.settings}
        return lambda folder, **settings: open_trainer(specs.load(given, **settings), folder)

    def steps(self, trainer: Trainer) -> int:
        return EPOCHS * -(-ROWS // CONFIG.batch_size)


class TestAttached(FunctionContract):
    function = "attached"


class TestPlain(FunctionContract):
    function = "plain"


class TestAdded(FunctionContract):
    function = "added"


class TestReloading(FunctionContract):
    function = "reloading"


class TestAccumulating(FunctionContract):
    function = "accumulating"


class TestClassifier(FunctionContract):
    function = "classifier"


class TestCheckpointsInMemory(FunctionContract):
    function = "plain"
    settings = {"checkpoints": "memory://functions"}  # noqa: RUF012
