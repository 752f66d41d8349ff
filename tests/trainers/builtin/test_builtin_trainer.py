"""The builtin trainer, by the contract."""

from __future__ import annotations

import pytest

from autolora.trainers.builtin.trainer import BuiltinTrainer
from tests.support.specs import small_spec
from tests.support.trainer_contract import TrainerContract

SETTINGS = {"data.test": "builtin:quickstart/test.jsonl", "data.test_size": 8, "data.eval_size": 8}


class TestBuiltinTrainer(TrainerContract):
    @pytest.fixture(scope="class")
    def make_trainer(self, open_bench):
        return lambda folder: BuiltinTrainer(small_spec(**SETTINGS), open_bench(folder, **SETTINGS))

    def test_a_test_split_is_scored(self, trainer, uncut):
        assert trainer.test(0) != uncut.value
