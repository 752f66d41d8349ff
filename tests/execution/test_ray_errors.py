"""Errors on one node are tried on another one; those that repeat end the study."""

from __future__ import annotations

import logging

import pytest

import autolora
from autolora.execution import LostWorker
from tests.support.cluster_runs import kill_a_worker, tune
from tests.support.executor_contract import piece

pytest.importorskip("ray")

from autolora.execution.ray_tune import RayTuneExecutor
from autolora.trainers.builtin.trainer import BuiltinTrainer
from tests.support.specs import small_spec

BROKEN_NODE = """
import ray
def score(model, tokenizer, rows):
    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
    if node == "{broken}":
        raise {error}
    return 1.0
"""


pytestmark = pytest.mark.faults


class Losses(autolora.Callback):
    """Keeps what was lost."""

    def __init__(self) -> None:
        self.lost: list[LostWorker] = []

    def on_segment_end(self, search, job, outcome) -> None:
        if isinstance(outcome, LostWorker):
            self.lost.append(outcome)


@pytest.fixture
def metric(tmp_path, monkeypatch):
    """Writes a metric of the user's that raises an error on one node."""
    monkeypatch.chdir(tmp_path)

    def write(error: str, broken: str) -> dict[str, str]:
        (tmp_path / "node_metric.py").write_text(BROKEN_NODE.format(error=error, broken=broken))
        return {"name": "node_metric:score", "direction": "minimize"}

    return write


def workers_node(cluster) -> str:
    """The node of the fixture's worker."""
    import ray

    return next(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))


def test_an_error_on_one_node_is_tried_on_another_one_which_then_gets_all(
    cluster, second_node, metric, tmp_path, caplog
):
    broken = workers_node(cluster)
    told = Losses()
    both = {"budget": 1, "variants": ["lora", "pissa"]}  # so that both nodes get a trial
    with caplog.at_level(logging.WARNING):
        tune(tmp_path / "run", callbacks=[told], metric=metric("OSError('away')", broken), **both)
    assert 1 <= len(told.lost) <= 2  # one of each worker at most
    assert all("OSError: away" in lost.reason and broken[:8] in lost.node for lost in told.lost)
    assert all("pid" in lost.worker for lost in told.lost)
    assert f"node {broken[:8]} gets no trials for 10 minutes" in caplog.text


def test_an_error_that_repeats_on_every_node_ends_the_study(cluster, second_node, metric, tmp_path):
    (tmp_path / "always.py").write_text("def score(model, tokenizer, rows):\n    raise ZeroDivisionError('mine')\n")
    told = Losses()
    with pytest.raises(ZeroDivisionError, match="mine"):
        tune(
            tmp_path / "run",
            budget=1,
            variants=["lora"],
            callbacks=[told],
            metric={"name": "always:score", "direction": "minimize"},
        )
    assert 1 <= len(told.lost) <= 2


def test_errors_of_a_device_are_tried_again_on_a_lone_node(cluster, metric, tmp_path):
    told = Losses()
    with pytest.raises(RuntimeError, match="CUDA error"):
        tune(
            tmp_path / "run",
            budget=1,
            variants=["lora"],
            callbacks=[told],
            metric=metric("RuntimeError('CUDA error: an illegal memory access')", workers_node(cluster)),
        )
    assert len(told.lost) == 2


def test_a_lost_worker_says_which_one_it_was(cluster, make_bench):
    bench = make_bench()
    executor = RayTuneExecutor(small_spec(**{"training.checkpoint_seconds": 0}), bench.checkpoints)
    executor.start(BuiltinTrainer(bench))
    executor.submit((piece(0, stop=1.0, rung=2),))
    lost: list[LostWorker] = []
    killed: list[bool] = []
    while not lost:
        found = executor.wait(lambda _: killed or (kill_a_worker() and killed.append(True)))
        lost = [each for each in found if isinstance(each, LostWorker)]
    executor.close()
    assert "host " in lost[0].worker
    assert "pid " in lost[0].worker
    assert workers_node(cluster)[:8] in lost[0].node
