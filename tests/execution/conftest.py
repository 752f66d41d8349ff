"""A real Ray cluster of several nodes on this machine, and tune() on it."""

from __future__ import annotations

import os

os.environ["RAY_ADDRESS"] = "local"  # never the cluster of another test process, which ray.init() would find
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pytest


@pytest.fixture(scope="module")
def cluster():
    """A head without cores and one node with one core; this process is connected to it. Tests may add nodes."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="warning")
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture(autouse=True)
def _quick_pulse(monkeypatch):
    """Short segments are heard of while they run."""
    pytest.importorskip("ray")
    from autolora.execution import ray_tune

    monkeypatch.setattr(ray_tune, "HEARTBEAT_SECONDS", 0.05)


@pytest.fixture
def second_node(cluster):
    """Another node with a core, for one test; it may remove it itself."""
    node = cluster.add_node(num_cpus=1)
    yield node
    if node in cluster.list_all_nodes():
        cluster.remove_node(node)


from tests.support.postgres import postgres  # noqa: E402, F401
