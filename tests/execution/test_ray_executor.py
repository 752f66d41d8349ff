"""Ray Tune as an executor: the contract, what workers load, and what a wrong cluster is answered with."""

from __future__ import annotations

import pytest

from autolora.execution import Executor
from autolora.execution.devices import DevicesError
from autolora.spec import SpecError
from autolora.trainers import Outcome, checkpoint
from autolora.trainers.builtin.trainer import BuiltinTrainer
from tests.support.cluster_runs import nobody_trains_within, tune
from tests.support.executor_contract import SETTINGS, BuiltinExecutorContract, ClosingContract, outcomes, piece
from tests.support.specs import small_spec

pytest.importorskip("ray")

from autolora.execution.ray_tune import ClusterError, RayTuneExecutor


def on_cluster(bench, **overrides) -> RayTuneExecutor:
    executor = RayTuneExecutor(small_spec(**overrides), bench.checkpoints)
    executor.start(BuiltinTrainer(bench))
    return executor


class TestRayTuneExecutor(BuiltinExecutorContract):
    @pytest.fixture(scope="class")
    def executor(self, cluster, bench) -> Executor:
        executor = on_cluster(bench, **SETTINGS)
        yield executor
        executor.close()

    @pytest.mark.faults
    def test_a_worker_loads_the_base_once_for_all_its_segments(self, executor):
        for trial in range(50):
            executor.submit((piece(100 + trial),))
            outcomes(executor, 1)
        assert list(executor.loads.values()) == [1]


def test_the_driver_has_no_weights_while_workers_train(cluster, make_bench):
    bench = make_bench()
    executor = on_cluster(bench)
    known = bench.base.fingerprint()
    executor.submit((piece(0),))
    outcomes(executor, 1)
    executor.close()
    assert sum(p.untyped_storage().nbytes() for p in bench.base.model.parameters()) < 1000
    assert bench.base.fingerprint() == known
    with bench.attached("lora", piece(0).config, 0):
        assert sum(p.untyped_storage().nbytes() for p in bench.base.model.parameters()) > 100_000


@pytest.mark.usefixtures("cluster")
class TestClosingRayTuneExecutor(ClosingContract):
    @pytest.fixture
    def unstarted(self, bench) -> Executor:
        return RayTuneExecutor(small_spec(), bench.checkpoints)

    @pytest.mark.faults
    def test_nobody_trains_after_it_is_closed(self, executor):
        executor.submit((piece(0),))
        outcomes(executor, 1)
        executor.close()
        assert nobody_trains_within(30)


def test_an_error_in_the_user_s_metric_is_raised_and_what_was_done_goes_on(cluster, tmp_path, monkeypatch):
    (tmp_path / "my_metric.py").write_text("def score(model, tokenizer, rows):\n    raise ZeroDivisionError('mine')\n")
    monkeypatch.chdir(tmp_path)
    metric = {"name": "my_metric:score", "direction": "minimize"}
    with pytest.raises(ZeroDivisionError, match="mine"):
        tune(tmp_path / "run", budget=1, metric=metric)
    assert nobody_trains_within(30)


def test_workers_that_fit_nowhere_are_refused_with_what_to_do(cluster, make_bench):
    with pytest.raises(ClusterError, match=r"no node .*GPU.* resources.workers"):
        on_cluster(make_bench(), **{"resources.gpu": 1})


def test_a_worker_that_sees_fewer_gpus_than_it_was_given_does_not_train(cluster, make_bench):
    """Ray hands out the GPUs that a node says it has, and torch has none here."""
    node = cluster.add_node(num_cpus=1, num_gpus=2)
    try:
        executor = on_cluster(make_bench(), **{"resources.gpu": 2, "training.device": "auto"})
        executor.submit((piece(0),))
        with pytest.raises(DevicesError, match=r"resources\.gpu is 2.*this process sees 0"):
            outcomes(executor, 1)
        executor.close()
    finally:
        cluster.remove_node(node)


def test_capacity_is_what_fits_into_the_cluster(cluster, second_node, make_bench):
    executor = on_cluster(make_bench(), **{"resources.cpu": 0.5})
    assert executor.capacity == 4
    executor.close()


def test_capacity_is_the_workers_asked_for(cluster, make_bench):
    executor = on_cluster(make_bench(), **{"resources.workers": 7})
    assert executor.capacity == 7
    executor.close()


def test_resources_are_checked_in_the_specification():
    with pytest.raises(SpecError, match=r"resources.cpu"):
        small_spec(**{"resources.cpu": 0})


@pytest.mark.faults
def test_a_folder_that_workers_do_not_share_is_an_error(cluster, make_bench):
    bench = make_bench()
    executor = on_cluster(bench)
    checkpoint.mark(bench.checkpoints)  # as in another folder
    executor.submit((piece(0),))
    with pytest.raises(checkpoint.CheckpointError, match="nodes share"):
        outcomes(executor, 1)
    executor.close()


@pytest.mark.faults
def test_packs_of_several_workers_come_back_in_any_order(cluster, second_node, make_bench):
    executor = on_cluster(make_bench())
    for trial in range(6):
        executor.submit((piece(trial),))
    found: list[Outcome] = outcomes(executor, 6)
    executor.close()
    assert {each.trial for each in found} == set(range(6))
    assert len(executor.loads) == 2
