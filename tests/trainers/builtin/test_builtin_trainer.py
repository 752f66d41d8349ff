"""The builtin trainer, by the contract."""

from __future__ import annotations

import pytest

from autolora.trainers import Trainer
from autolora.trainers.builtin.trainer import BuiltinTrainer
from tests.support.trainer_contract import TrainerContract

SETTINGS = {"data.test": "builtin:quickstart/test.jsonl", "data.test_size": 8, "data.eval_size": 8}


class TestBuiltinTrainer(TrainerContract):
    @pytest.fixture(scope="class")
    def make_trainer(self, open_bench):
        return lambda folder, **settings: BuiltinTrainer(open_bench(folder, **SETTINGS, **settings))

    def test_a_test_split_is_scored(self, trainer, uncut):
        assert trainer.test(0) != uncut.value


def test_a_trainer_that_lacks_a_part_of_the_protocol_cannot_be_made():
    class Half(Trainer):
        examples = 8

    with pytest.raises(TypeError, match=r"abstract methods? .*fingerprints"):
        Half()
