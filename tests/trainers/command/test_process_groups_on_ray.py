"""Several processes a trial on a real local Ray cluster: scores are those of the undisturbed study whatever dies."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

import autolora
from tests.execution.conftest import _quick_pulse, cluster, second_node  # noqa: F401  # fixtures
from tests.support.cluster_runs import Disturber, kill_a_worker
from tests.support.commands import command_spec
from tests.support.outcome import lost, outcome
from tests.support.processes import kill_a_rank, marked
from tests.trainers.command.test_process_groups import PYTHON, SCRIPT, TORCHRUN

pytest.importorskip("ray")

from autolora.execution.ray_tune import ClusterError, RayTuneExecutor

pytestmark = pytest.mark.faults
TWO_NODES = (
    f"{PYTHON} -m torch.distributed.run --nnodes {{nodes}} --node-rank {{node_rank}} --nproc-per-node 1 "
    f"--master-addr {{host}} --master-port {{port}} {SCRIPT}"
)


def tune(folder: Path, executor: str = "ray", callbacks=(), pause: float = 0.3, command: str = TORCHRUN, **settings):
    command = f"{command} --pause {pause} --starts {folder / 'starts'}"
    terms = {"budget": 1.5, "confirm": 0, "prior": "laws", "rungs": [0.5, 1.0], **settings}
    return autolora.tune(
        spec=command_spec(command, **terms), dir=folder / "run", executor=executor, callbacks=callbacks
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    tune(folder, "inline", pause=0)
    return outcome(folder / "run")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("victim", ["a process", "the worker"])
def test_what_dies_is_one_lost_worker(undisturbed, tmp_path, victim):
    disturb = kill_a_worker if victim == "the worker" else lambda: kill_a_rank(tmp_path, "train_in_ranks")
    disturber = Disturber(disturb, at=(3,))
    tune(tmp_path, callbacks=[disturber])
    assert disturber.done
    assert outcome(tmp_path / "run") == undisturbed
    assert lost(tmp_path / "run") == 1
    assert marked(tmp_path) == []


def _drive(folder: str, address: str) -> None:
    """A driver in a process of its own, connected to the cluster."""
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="warning")
    tune(Path(folder))


def test_a_driver_that_is_killed_takes_all_processes_with_it(cluster, undisturbed, tmp_path):  # noqa: F811
    process = multiprocessing.get_context("spawn").Process(target=_drive, args=(str(tmp_path), cluster.address))
    process.start()
    deadline = time.monotonic() + 120
    while not ((tmp_path / "starts").exists() and (tmp_path / "starts").read_text().count("step") >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    deadline = time.monotonic() + 60
    while marked(tmp_path):
        assert time.monotonic() < deadline, "a process outlived its driver and worker"
        time.sleep(0.1)
    tune(tmp_path)
    assert outcome(tmp_path / "run") == undisturbed


@pytest.mark.usefixtures("cluster", "second_node")
def test_a_command_is_started_on_each_of_two_nodes(undisturbed, tmp_path):
    disturber = Disturber(lambda: kill_a_rank(tmp_path, "train_in_ranks"), at=(3,))
    tune(tmp_path, callbacks=[disturber], command=TWO_NODES, **{"resources.nodes": 2})
    assert disturber.done
    assert outcome(tmp_path / "run") == undisturbed
    assert lost(tmp_path / "run") == 1
    assert (tmp_path / "run" / "logs" / "0.node1.log").is_file()
    assert marked(tmp_path) == []


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"resources.gpu": 8}, "no node of the cluster has 1 CPU, 8 GPU"),
        ({"resources.nodes": 2}, "fewer than 2 nodes of the cluster have 1 CPU"),
    ],
)
def test_what_no_cluster_has_is_said_at_once(tmp_path, asked, said):
    with pytest.raises(ClusterError, match=said):
        RayTuneExecutor(command_spec(TORCHRUN, **asked), tmp_path)


def test_a_command_sees_the_gpus_of_its_placement_group(cluster, tmp_path):  # noqa: F811
    node = cluster.add_node(num_cpus=1, num_gpus=4)
    try:
        tells = "echo gpus={gpus} $CUDA_VISIBLE_DEVICES port={port} $MASTER_PORT {stop_examples}"
        score = """echo '{{"eval_loss": 2.5}}' >> "$AUTOLORA_REPORT" """
        spec = command_spec(f"{tells}; {score}", budget=1, **{"resources.gpu": 3, "rungs": [1.0], "prior": "laws"})
        autolora.tune(spec=spec, dir=tmp_path, executor="ray")
        log = (tmp_path / "logs" / "0.log").read_text()
        line = next(each for each in log.splitlines() if each.startswith("gpus=3"))
        _, cards, port, master, _ = line.split()
        assert len(set(cards.split(","))) == 3
        assert port == f"port={master}"
    finally:
        cluster.remove_node(node)
