"""The executor of one process, by the contract."""

from __future__ import annotations

import pytest

from autolora.bases import device
from autolora.execution import Executor, make_executor
from autolora.execution.devices import DevicesError
from autolora.execution.inline import InlineExecutor
from tests.support.executor_contract import BuiltinExecutorContract, ClosingContract
from tests.support.specs import small_spec


class TestInlineExecutor(BuiltinExecutorContract):
    @pytest.fixture(scope="class")
    def executor(self, trainer) -> Executor:
        executor = InlineExecutor()
        executor.start(trainer)
        return executor


class TestClosingInlineExecutor(ClosingContract):
    @pytest.fixture
    def unstarted(self) -> Executor:
        return InlineExecutor()


class TestCards:
    @pytest.fixture
    def cards(self, monkeypatch):
        return lambda count: monkeypatch.setattr(device, "visible_cards", lambda: count)

    @pytest.mark.parametrize("there", [0, 1])
    def test_fewer_than_were_asked_for_are_refused_before_anything_is_loaded(self, cards, there, tmp_path):
        cards(there)
        spec = small_spec(**{"resources.gpu": 2, "training.device": "auto"})
        with pytest.raises(DevicesError, match=rf"gpu is 2, .*sees {there}: set resources\.gpu to 1.*--executor ray"):
            make_executor("inline", spec, tmp_path)

    def test_as_many_as_were_asked_for_are_taken(self, cards):
        cards(2)
        assert InlineExecutor(small_spec(**{"resources.gpu": 2, "training.device": "auto"})).about() == []

    @pytest.mark.parametrize(
        ("there", "settings", "said"),
        [
            (0, {"training.device": "auto"}, None),
            (1, {"training.device": "auto"}, None),
            (8, {"training.device": "cpu"}, None),
            (8, {"training.device": "auto"}, "1 of 8 GPUs is used"),
            (8, {"training.device": "cuda:3"}, "1 of 8 GPUs is used"),
            (8, {"training.device": "auto", "resources.gpu": 2}, "2 of 8 GPUs are used"),
        ],
    )
    def test_idle_ones_are_told_with_the_way_to_use_them(self, cards, there, settings, said):
        cards(there)
        lines = InlineExecutor(small_spec(**settings)).about()
        assert (said is None) == (lines == [])
        assert all(said in line and "--executor ray" in line for line in lines)
