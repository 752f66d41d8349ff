"""Executors on which a function's trainers train: the contract, and workers that are killed."""

from __future__ import annotations

import pytest

from autolora import spec as specs
from autolora.execution import Executor
from autolora.execution.inline import InlineExecutor
from autolora.spec import Spec
from tests.support.cluster_runs import Disturber, kill_a_worker, nobody_trains_within, tune
from tests.support.executor_contract import ExecutorContract
from tests.support.makers import SPEC
from tests.support.outcome import outcome
from tests.support.specs import small_spec

TERMS = {**SPEC, "trainer": "tests.support.makers:attached", "model": None, "data": None, "evaluation": {}}


class OfAFunction(ExecutorContract):
    @pytest.fixture(scope="class")
    def spec(self) -> Spec:
        return specs.load({**SPEC, "trainer": "tests.support.makers:attached"})


class OfTrl(ExecutorContract):
    @pytest.fixture(scope="class")
    def spec(self, tmp_path_factory) -> Spec:
        pytest.importorskip("trl")
        file = tmp_path_factory.mktemp("trl") / "trl.yaml"
        file.write_text("{lora_dropout: 0.05, max_length: 64, bf16: false, gradient_checkpointing: false}\n")
        return small_spec(trainer={"trl": "sft", "config": str(file)})


class TestTrlInline(OfTrl):
    @pytest.fixture(scope="class")
    def executor(self, trainer) -> Executor:
        executor = InlineExecutor()
        executor.start(trainer)
        return executor


@pytest.mark.faults
class TestTrlOnRay(OfTrl):
    @pytest.fixture(scope="class")
    def executor(self, cluster, spec, folder, trainer) -> Executor:
        from autolora.execution.ray_tune import RayTuneExecutor

        executor = RayTuneExecutor(spec, folder)
        executor.start(trainer)
        yield executor
        executor.close()


class TestInline(OfAFunction):
    @pytest.fixture(scope="class")
    def executor(self, trainer) -> Executor:
        executor = InlineExecutor()
        executor.start(trainer)
        return executor


class TestRay(OfAFunction):
    @pytest.fixture(scope="class")
    def executor(self, cluster, spec, folder, trainer) -> Executor:
        from autolora.execution.ray_tune import RayTuneExecutor

        executor = RayTuneExecutor(spec, folder)
        executor.start(trainer)
        yield executor
        executor.close()


@pytest.mark.usefixtures("cluster")
@pytest.mark.faults
def test_a_worker_killed_amid_segments_costs_a_checkpoint_interval_at_most(tmp_path):
    terms = {
        **TERMS,
        "variants": ["lora", "pissa"],
        "budget": 2.5,
        "confirm": 0,
        "prior": "laws",
        "training": {**SPEC["training"], "checkpoint_seconds": 0},
    }
    tune(tmp_path / "whole", executor="inline", **terms)
    disturber = Disturber(kill_a_worker, at=(2, 6))
    tune(tmp_path / "killed", callbacks=[disturber], **terms)
    assert disturber.done
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    assert disturber.repeated() <= 1
    assert nobody_trains_within(30)
