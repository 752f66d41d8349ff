"""README's ways to a cluster, as commands: a head that is started, drivers that join it, jobs, nodes that come and go.

Marked faults: each starts Ray and takes up to two minutes. Everything is in folders and on ports of the test's own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

from tests.support.cluster_runs import TERMS

pytest.importorskip("ray")
pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
AUTOLORA = [sys.executable, "-c", "from autolora.cli import main; main()"]
LONG = {**TERMS, "variants": ["lora"], "training": {**TERMS["training"], "examples": 512}}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@dataclass
class Machine:
    """A home of its own with a token, and what runs from it."""

    home: Path
    port: int = field(default_factory=free_port)
    dashboard: int = field(default_factory=free_port)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return kept | {
            "HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_ADDRESS": f"127.0.0.1:{self.port}",
        }

    def start(self, *options: str) -> None:
        environment = self.environment
        del environment["RAY_ADDRESS"]
        subprocess.run(
            # Jobs need an agent, which otherwise has one port for all clusters of a machine.
            [*RAY, "start", "--disable-usage-stats", f"--dashboard-agent-listen-port={free_port()}", *options],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def head(self, cpus: int) -> None:
        self.start(
            "--head",
            f"--port={self.port}",
            f"--dashboard-port={self.dashboard}",
            f"--num-cpus={cpus}",
            f"--temp-dir={self.home}/ray",
        )

    def node(self, cpus: int) -> list[psutil.Process]:
        """Another node; its processes."""
        before = {each.pid for each in raylets()}
        self.start(f"--address=127.0.0.1:{self.port}", f"--num-cpus={cpus}")
        return [each for each in raylets() if each.pid not in before]

    def tune(self, folder: Path, terms: dict, **environment: str | None) -> subprocess.Popen[str]:
        merged = {**self.environment, **environment}
        (self.home / "study.yaml").write_text(yaml.safe_dump(terms))
        return subprocess.Popen(
            [*AUTOLORA, "tune", str(self.home / "study.yaml"), "--executor", "ray", "--dir", str(folder)],
            env={name: value for name, value in merged.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def raylets() -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["name"]) if each.info["name"] == "raylet"]


@pytest.fixture
def machine(tmp_path_factory) -> Iterator[Machine]:
    home = tmp_path_factory.mktemp("m")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("a" * 64)
    yield Machine(home)
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("HOME") == str(home):
            process.kill()


def wait_for_checkpoints(folder: Path, count: int = 3) -> None:
    deadline = time.monotonic() + 300
    while len(list(folder.glob("trials/*/step-*"))) < count:
        assert time.monotonic() < deadline, "nothing was trained"
        time.sleep(0.05)


def test_a_driver_joins_with_the_token_and_is_refused_without(machine, tmp_path):
    machine.head(2)
    said, _ = machine.tune(tmp_path / "run", {**TERMS, "budget": 1, "variants": ["lora"]}).communicate(timeout=200)
    assert "cluster: joined the Ray cluster at" in said
    assert "cluster: 2 workers, each with 1 CPU" in said
    assert (tmp_path / "run" / "best.json").exists(), said
    for changed in ({"RAY_AUTH_TOKEN": "b" * 64}, {"HOME": str(tmp_path), "RAY_AUTH_MODE": None}):
        refused = machine.tune(tmp_path / "refused", TERMS, **changed)
        said, _ = refused.communicate(timeout=60)
        assert refused.returncode == 2
        assert "its token is missing or wrong here. Copy the head node's token" in said
        assert "Traceback" not in said
        assert "model:" not in said


def test_a_job_is_submitted(machine, tmp_path):
    pytest.importorskip("aiohttp")
    machine.head(2)
    (machine.home / "work").mkdir()
    (machine.home / "work" / "study.yaml").write_text(yaml.safe_dump({**TERMS, "budget": 1, "variants": ["lora"]}))
    command = [*RAY, "job", "submit", "--address", f"http://127.0.0.1:{machine.dashboard}", "--working-dir", "."]
    (machine.home / "work" / "autolora_command.py").write_text("from autolora.cli import main\n\nmain()\n")
    command += ["--", sys.executable, "autolora_command.py"]
    command += ["tune", "study.yaml", "--executor", "ray", "--dir", str(tmp_path / "run")]
    environment = {name: value for name, value in machine.environment.items() if name != "RAY_ADDRESS"}
    job = subprocess.run(
        command, cwd=machine.home / "work", env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert "cluster: joined the Ray cluster at" in job.stdout, job.stdout + job.stderr
    assert "succeeded" in job.stdout
    assert json.loads((tmp_path / "run" / "best.json").read_text())


def test_a_node_is_added_and_removed_while_a_study_runs(machine, tmp_path):
    machine.head(1)
    study = machine.tune(tmp_path / "run", LONG)
    wait_for_checkpoints(tmp_path / "run")
    added = machine.node(1)
    assert added
    time.sleep(15)
    for raylet in added:
        raylet.kill()
    said, _ = study.communicate(timeout=400)
    assert study.returncode == 0, said
    assert (tmp_path / "run" / "best.json").exists()
    assert "Traceback" not in said


@pytest.mark.parametrize("killed", ["raylet", "dashboard agent"])
def test_an_instance_of_autolora_whose_node_dies_is_started_again(machine, tmp_path, killed):
    study = machine.tune(tmp_path / "run", LONG, RAY_ADDRESS="local")
    wait_for_checkpoints(tmp_path / "run")
    children = psutil.Process(study.pid).children(recursive=True)
    name = {"raylet": "raylet/raylet", "dashboard agent": "DashboardAgent"}[killed]
    victims = [each for each in children if any(part.endswith(name) for part in each.cmdline()[:4])]
    assert victims
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
    said, _ = study.communicate(timeout=400)
    assert study.returncode == 0, said
    assert "is gone; it is started again" in said
    assert "worker lost" in said
    assert "Traceback" not in said
    assert "(raylet)" not in said
    assert (tmp_path / "run" / "best.json").exists()


def test_a_head_that_ends_ends_the_study_with_a_line(machine, tmp_path):
    machine.head(1)
    study = machine.tune(tmp_path / "run", LONG)
    wait_for_checkpoints(tmp_path / "run")
    for process in psutil.process_iter(["environ", "name"]):
        if process.info["name"] == "gcs_server" and (process.info["environ"] or {}).get("HOME") == str(machine.home):
            process.kill()
    said, _ = study.communicate(timeout=200)
    assert study.returncode == 2, said
    assert "Completed work is saved" in said
    assert "Traceback" not in said


def test_what_ray_leaves_readable_for_others(machine):
    """README says so."""
    old = os.umask(0o022)
    try:
        (machine.home / ".ray" / "auth_token").unlink()
        subprocess.run([*RAY, "get-auth-token", "--generate"], env=machine.environment, check=True, capture_output=True)
        machine.head(1)
    finally:
        os.umask(old)
    token = machine.home / ".ray" / "auth_token"
    session = next(path for path in (machine.home / "ray").glob("session_2*"))
    assert stat.S_IMODE(token.stat().st_mode) & stat.S_IROTH
    for folder in (session, session / "logs", session / "sockets"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o777
    assert re.fullmatch(r"[0-9a-f]{64}", token.read_text())
