"""A cluster that cannot be used is refused in one line, before anything is loaded."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

import autolora
from tests.support.cluster_runs import TERMS

pytest.importorskip("ray")

from autolora.execution import ray_cluster
from autolora.execution.ray_cluster import Cluster, ClusterError
from autolora.spec import ResourcesSpec

# Ray is not started by these; those that start it are marked.


@pytest.fixture(autouse=True)
def nothing_loads(monkeypatch):
    """A model that is loaded fails the test."""
    from autolora.driver import opening

    def loaded(*_):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(opening, "open_trainer", loaded)


def refused(folder: Path, match: str) -> None:
    with pytest.raises(ClusterError, match=match) as raised:
        autolora.tune(spec=TERMS, dir=folder, executor="ray")
    assert "\n" not in str(raised.value)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_nothing_that_listens(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    refused(tmp_path, r"RAY_ADDRESS=127.0.0.1:\d+ is not there \(Connection refused\).*ray start --head")


def test_a_name_that_is_not_known(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "no-such-host.invalid:6379")
    refused(tmp_path, "the name no-such-host.invalid is not known here")


@pytest.mark.parametrize("address", ["http://head:8265", "ray://head:10001"])
def test_the_address_of_something_else_of_ray(tmp_path, monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    refused(tmp_path, f"RAY_ADDRESS is {address}.*host:port of the head node")


def test_what_is_not_an_address(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "banana")
    refused(tmp_path, "RAY_ADDRESS is 'banana'. Set it to host:port")


def test_a_port_on_which_something_else_listens(tmp_path, monkeypatch):
    """It takes connections and never answers: Ray itself would wait for minutes."""
    monkeypatch.setattr(ray_cluster, "PROBE_SECONDS", 3.0)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        # "localhost" is this machine's address to Ray.
        monkeypatch.setattr(ray_cluster, "_refusal", lambda address: None)
        refused(tmp_path, "does not answer within 3 s. Ray's own words are in .*ray.log")


VERSIONS = (
    "Version mismatch: The cluster was started with:\n    Ray: 2.49.0\n    Python: 3.10.1\n"
    "This process on node 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
)


@pytest.mark.parametrize(
    ("found", "noise", "said"),
    [
        (
            {"error": "RuntimeError", "said": VERSIONS},
            "",
            "runs Ray 2.49.0 and Python 3.10.1, and this process Ray 2.60.0",
        ),
        ({"error": "AuthenticationError", "said": "..."}, "", "there is none here"),
        ({"error": "ConnectionError", "said": "no"}, "Unauthenticated: InvalidAuthToken", "missing or wrong here"),
        ({"error": "NoNode", "said": "..."}, "", "ray start --address"),
        ({"error": "ConnectionError", "said": "Failed to connect\nmore"}, "", r"\(Failed to connect\)"),
    ],
)
def test_what_ray_finds_is_said_in_one_line(found, noise, said):
    import re

    plain = ray_cluster._in_plain_words(found, noise)
    assert re.search(said, plain)
    assert "\n" not in plain


def test_a_missing_ray_is_named_before_a_model_is_loaded(tmp_path, monkeypatch):
    from autolora.execution import MissingExecutorError

    monkeypatch.setitem(sys.modules, "ray.tune", None)
    with pytest.raises(MissingExecutorError, match="pip install"):
        autolora.tune(spec=TERMS, dir=tmp_path, executor="ray")


def test_a_cluster_without_room_is_refused_before_a_model_is_loaded(cluster, tmp_path):
    with pytest.raises(ClusterError, match=r"no node of the cluster has 1 CPU, 1 GPU for a worker: node .* has 1 CPU"):
        autolora.tune(spec={**TERMS, "resources": {"gpu": 1}}, dir=tmp_path, executor="ray")


def test_what_is_printed_about_a_cluster(cluster, tmp_path):
    found = Cluster(ResourcesSpec(), tmp_path)
    lines = found.about("1 worker")
    assert f"cluster: the Ray cluster that this process is connected to, {cluster.address}" in lines
    assert "cluster: 1 worker, each with 1 CPU" in lines
    assert sum(": 1 CPU" in line and "host" in line for line in lines) == 1
    assert any(str(tmp_path / "ray.log") in line and "logs" in line for line in lines)
    assert any("dashboard" in line for line in lines)
    found.close()


def test_a_cluster_that_was_left_has_no_nodes_though_its_head_answers(cluster, tmp_path):
    import ray

    found = Cluster(ResourcesSpec(), tmp_path)
    assert found.nodes()
    found.disconnect()
    try:
        assert found.nodes(now=True) == ()
        assert found.fitting() == 0
        assert not found.connected()
    finally:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="warning")
        found.close()


def test_ray_s_words_go_to_the_file_and_come_back_afterwards(cluster, tmp_path, capsys):
    import logging

    import ray

    usual, handlers = ray._private.worker.print_to_stdstream, list(logging.getLogger("ray").handlers)
    found = Cluster(ResourcesSpec(), tmp_path)
    ray._private.worker.print_to_stdstream({"lines": ["gone"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    logging.getLogger("ray.something").warning("a warning")
    found.close()
    words = (tmp_path / "ray.log").read_text()
    assert "(raylet) gone" in words
    assert "a warning" in words
    assert capsys.readouterr() == ("", "")
    assert ray._private.worker.print_to_stdstream is usual
    assert logging.getLogger("ray").handlers == handlers
