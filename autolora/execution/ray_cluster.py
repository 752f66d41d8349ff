"""The Ray cluster of a study: found or started, checked before anything is loaded, described, and watched.

Every error that a user can fix is a :class:`ClusterError` of one line. What Ray itself says goes to a file.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from autolora.errors import AutoloraError
from autolora.spec import ResourcesSpec

LOGGER = logging.getLogger(__name__)
LOG = "ray.log"
"""File in the run directory with all that Ray says in this process."""
PORT_SECONDS = 5.0
"""Longest wait for a connection to the port of a cluster."""
PROBE_SECONDS = 60.0
"""Longest wait for a cluster to answer. Ray itself gives up after 20 seconds if it is refused, after minutes if not."""
LOOK_SECONDS = 5.0
"""How long a look at the nodes is good."""
AWAY_MINUTES = 5.0
"""How long a cluster that autolora did not start may be without nodes."""
STARTS_IN_A_ROW = 3
"""How often an instance that autolora started is started again without a segment coming back in between."""
TOKEN = (
    "Copy the head node's token (`ray get-auth-token` prints it) to ~/.ray/auth_token, or into RAY_AUTH_TOKEN, and set "
    "RAY_AUTH_MODE=token"
)


class ClusterError(AutoloraError, RuntimeError):
    """The cluster cannot be reached, cannot run what was asked for, or is gone."""


@dataclass(frozen=True)
class Node:
    """A node that is alive.

    Attributes:
        id: Ray's, in hexadecimal.
        host: its name in the network.
        address: its IP address.
        port: address and port of its raylet.
        resources: all that it has, in use or not.
    """

    id: str
    host: str
    address: str
    port: str
    resources: Mapping[str, float]

    def __str__(self) -> str:
        return f"node {self.id[:8]} ({self.address})"


class Cluster:
    """The cluster that this process is connected to; otherwise the one at ``RAY_ADDRESS``, or that runs on this
    machine; otherwise a new instance on this machine, which ends with :meth:`close`.

    Args:
        asked: what one worker is to get.
        folder: run directory, for the file in which Ray's words are collected.

    Attributes:
        resources: what one worker gets on each of its nodes, as Ray counts it.
        spanned: nodes of a worker.
        starts: how often an instance was started.

    Raises:
        ClusterError: there is none where ``RAY_ADDRESS`` says, it does not answer or refuses this process, it runs
            another version of Ray or Python, or no instance could be started.
    """

    def __init__(self, asked: ResourcesSpec, folder: Path) -> None:
        self.log = folder.absolute() / LOG
        self.starts = 0
        self._looked = -math.inf
        self._nodes: tuple[Node, ...] = ()
        self._known: dict[str, Node] = {}
        self._connected = False
        self._given = ray.is_initialized()
        self._stack = ExitStack()
        self._words = self._stack.enter_context(_words_into(self.log))
        try:
            self._address = None if self._given else _address()
            if not self._given:
                self._stack.callback(ray.shutdown)
                self._connect()
            self.address: str = ray.get_runtime_context().gcs_address
            self.resources = self._counted(asked)
            self.spanned = asked.nodes
        except BaseException:
            self.close()
            raise

    @property
    def started(self) -> bool:
        """Whether autolora started it."""
        return not self._given and self._address is None

    def close(self) -> None:
        """Disconnect; end the instance that was started. A connection that was there before stays."""
        self._stack.close()

    def about(self, workers: str) -> list[str]:
        """What is there, in lines for the user.

        Args:
            workers: how many there are to be.
        """
        if self.started:
            origin = f"started a Ray instance on this machine, {self.address}, which ends with the study"
        elif self._given:
            origin = f"the Ray cluster that this process is connected to, {self.address}"
        else:
            origin = f"joined the Ray cluster at {self.address}"
        spread = f" on each of {self.spanned} nodes" if self.spanned > 1 else ""
        lines = [origin, f"{workers}, each with {shown(self.resources)}{spread}"]
        lines += [f"{node}, host {node.host}: {shown(node.resources)}" for node in self.nodes()]
        url = ray._private.worker.get_dashboard_url()
        lines.append(f"dashboard http://{url}" if url else 'no dashboard; pip install "ray[default]" brings one')
        lines.append(f"Ray's messages are in {self.log}, logs of its processes in {_logs()}")
        return [f"cluster: {line}" for line in lines]

    def nodes(self, now: bool = False) -> tuple[Node, ...]:
        """The nodes that are alive, as they were a few seconds ago at most; none if the cluster does not answer.

        Args:
            now: look even if the last look is good.
        """
        if now or time.monotonic() - self._looked > LOOK_SECONDS:
            # Ray's own question would end this process after a minute if nobody answers; after `disconnect` it fails.
            answers = ray.is_initialized() and _refusal(self.address) is None
            self._nodes = tuple(_alive()) if answers else ()
            own = [node for node in self._nodes if node.id == ray.get_runtime_context().get_node_id()]
            self._connected = any(_refusal(node.port) is None for node in own)
            self._known |= {node.id: node for node in self._nodes}
            self._looked = time.monotonic()
        return self._nodes

    def connected(self) -> bool:
        """Whether the node through which this process takes part is alive. If not, what it has put is lost.

        Ray takes 15 seconds to declare a node dead, and may then end this process when it looks for what was there.
        """
        self.nodes()
        return self._connected

    def may_reconnect(self) -> bool:
        """Whether the connection is autolora's own to renew."""
        return not self._given

    def disconnect(self) -> None:
        """Leave the cluster; :meth:`reconnect` is next."""
        ray.shutdown()

    def reconnect(self) -> bool:
        """After :meth:`disconnect`, start an instance again, or join the cluster again if it answers now.

        Raises:
            ClusterError: an instance could not be started.
        """
        if self._address is not None and (_refusal(self._address) or _probed(self.log)):
            return False
        self._connect(probe=False)
        self.address = ray.get_runtime_context().gcs_address
        self._looked = -math.inf
        return True

    def node(self, name: str) -> Node | None:
        """A node that is or was there, by its id, or by its address if only one has it; None if there is none."""
        same = [node for node in self._known.values() if name in (node.id, node.address)]
        return same[0] if len(same) == 1 else None

    def _connect(self, probe: bool = True) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if self._address is None:
            address: str | None = "local"
            self.starts += 1
        else:
            address = None  # Ray resolves RAY_ADDRESS itself: given an address, it would not look for a token
            refusal = _refusal(self._address) or (_probed(self.log) if probe else None)
            if refusal:
                raise ClusterError(f"{_named(self._address)} {refusal}")
        try:
            ray.init(address=address, log_to_driver=False, logging_level="warning", configure_logging=False)
        except (OSError, RuntimeError, ValueError) as error:
            what = "Ray could not start an instance on this machine" if self.started else _named(self._address)
            raise ClusterError(f"{what}: {_first_line(error)}. Ray's own words are in {self.log}") from error
        self._words()  # Ray has just taken its loggers back

    def _counted(self, asked: ResourcesSpec) -> dict[str, float]:
        gpu = asked.gpu
        if gpu is None:
            gpu = 1.0 if any(node.resources.get("GPU") for node in self.nodes()) else 0.0
        return {"CPU": asked.cpu} | ({"GPU": gpu} if gpu else {})

    def fitting(self, without: Collection[str] = ()) -> int:
        """Workers that fit into the nodes that are alive.

        Args:
            without: ids of nodes that do not count.
        """
        there = [fit_into(node.resources, self.resources) for node in self.nodes() if node.id not in without]
        if self.spanned == 1:
            return sum(there)
        fitting = 0
        while sum(min(each, fitting + 1) for each in there) >= self.spanned * (fitting + 1):
            fitting += 1  # of each worker, a node has one part at most
        return fitting


def shown(resources: Mapping[str, float]) -> str:
    """CPUs and GPUs in words."""
    return ", ".join(f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU") if name in resources) or "0 CPU"


def fit_into(node: Mapping[str, float], resources: Mapping[str, float]) -> int:
    """Workers that fit into a node."""
    fitting = math.inf
    for name, amount in resources.items():
        there = node.get(name, 0.0)
        if name == "GPU" and amount < 1:  # a share is of one card
            fitting = min(fitting, there * math.floor(1 / amount + 1e-9))
        else:
            fitting = min(fitting, there / amount)
    return math.floor(fitting + 1e-9)


def _alive() -> Iterator[Node]:
    return (_node(node) for node in ray.nodes() if node["Alive"])


def _node(node: Mapping[str, Any]) -> Node:
    address = node["NodeManagerAddress"]
    port = f"{address}:{node['NodeManagerPort']}"
    return Node(node["NodeID"], node["NodeManagerHostname"], address, port, node["Resources"])


def _address() -> str | None:
    """Address of the cluster that Ray would join, as host:port; None if it would start an instance.

    Raises:
        ClusterError: ``RAY_ADDRESS`` is not one, or there is no cluster to be found.
    """
    given = os.environ.get("RAY_ADDRESS", "")
    if "://" in given:
        raise ClusterError(
            f"RAY_ADDRESS is {given}, the address of a dashboard or of Ray Client. Set it to host:port of the head "
            "node, usually port 6379, or unset it and use `ray job submit`"
        )
    try:
        return ray._private.services.canonicalize_bootstrap_address(None)  # type: ignore[no-any-return]
    except ConnectionError:
        raise ClusterError(
            f"RAY_ADDRESS is {given}, and no Ray cluster runs on this machine. Start one with `ray start --head`, set "
            "host:port of another machine, or unset RAY_ADDRESS to start an instance for this study"
        ) from None
    except ValueError:
        raise ClusterError(
            f"RAY_ADDRESS is {given!r}. Set it to host:port of the head node, such as 10.0.0.1:6379, or unset it"
        ) from None


def _named(address: str | None) -> str:
    """A cluster, and where its address is from."""
    if os.environ.get("RAY_ADDRESS"):
        return f"the Ray cluster at RAY_ADDRESS={os.environ['RAY_ADDRESS']}"
    return f"the Ray cluster at {address}, which was started on this machine,"


def _refusal(address: str) -> str | None:
    """Why nobody can be reached at host:port, and what to do; None if somebody listens there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PORT_SECONDS).close()
    except socket.gaierror:
        return f"cannot be found: the name {host} is not known here. Check the address"
    except OSError as error:
        what = "does not answer" if isinstance(error, TimeoutError) else f"is not there ({error.strerror or error})"
        return (
            f"{what}. Start it with `ray start --head`, correct RAY_ADDRESS, or set RAY_ADDRESS=local to start an "
            "instance for this study"
        )
    return None


def _probed(log: Path) -> str | None:
    """Why a cluster that listens cannot be joined, and what to do; None if it can."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_JOB_CONFIG_JSON_ENV_VAR"}
    command = [sys.executable, str(Path(__file__).with_name("ray_probe.py"))]
    with log.open("ab") as words:
        before = words.tell()
        try:
            run = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=words, env=environment, timeout=PROBE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"does not answer within {PROBE_SECONDS:.0f} s. Ray's own words are in {log}"
    with log.open("rb") as words:
        words.seek(before)
        noise = words.read().decode(errors="replace")
    line = run.stdout.decode(errors="replace").strip().rpartition("\n")[2]
    found: dict[str, str] = json.loads(line) if line.startswith("{") else {"error": "Ended", "said": "Ray ended"}
    plain = _in_plain_words(found, noise)
    return plain and f"{plain} Ray's own words are in {log}"


def _in_plain_words(found: Mapping[str, str], noise: str) -> str | None:
    """What a probe found.

    Args:
        found: its result.
        noise: what Ray wrote meanwhile; it names the refusal of a token, which its errors do not.
    """
    if not found:
        return None
    if found["error"] == "AuthenticationError":
        return f"cannot be joined: RAY_AUTH_MODE asks for a token, and there is none here. {TOKEN}."
    if "InvalidAuthToken" in noise or "Unauthenticated" in noise:
        return f"refuses this process: its token is missing or wrong here. {TOKEN}."
    versions = re.findall(r"^\s*(Ray|Python): (\S+)$", found["said"], re.MULTILINE)
    if len(versions) == 4:
        there, here = (" and ".join(f"{name} {version}" for name, version in half) for half in _halves(versions))
        return f"runs {there}, and this process {here}. Install the same versions here."
    if found["error"] == "NoNode":
        return "has no node that is alive. Start one with `ray start --address`."
    return f"does not answer as a Ray cluster ({found['said'].partition(chr(10))[0]}). Check address and port."


def _halves(values: Sequence[tuple[str, str]]) -> tuple[Sequence[tuple[str, str]], Sequence[tuple[str, str]]]:
    middle = len(values) // 2
    return values[:middle], values[middle:]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(". ")


def _logs() -> str:
    return str(ray._private.worker._global_node.get_logs_dir_path())


@contextmanager
def _words_into(file: Path) -> Iterator[Callable[[], None]]:
    """What Ray logs and prints in this process goes to a file meanwhile; gives what does so once more."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(file, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("ray", "ray.tune", "ray.data", "ray.train")]

    def redirect() -> None:
        for logger in loggers:
            _restore(logger, [handler], False, logging.WARNING)

    with ExitStack() as stack:
        stack.callback(handler.close)
        for logger in loggers:
            stack.callback(_restore, logger, list(logger.handlers), logger.propagate, logger.level)
        redirect()
        printed = _printed(logging.getLogger("ray.messages"))
        usual = ray._private.worker.print_to_stdstream
        ray._private.worker.print_to_stdstream = printed
        stack.callback(setattr, ray._private.worker, "print_to_stdstream", usual)
        yield redirect


def _restore(logger: logging.Logger, handlers: list[logging.Handler], propagate: bool, level: int) -> None:
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


def _printed(logger: logging.Logger) -> Callable[..., None]:
    """In place of Ray's function that prints what raylet and autoscaler report to every driver."""

    def log(data: Mapping[str, Any], *args: object, **kwargs: object) -> None:
        for line in data["lines"]:
            logger.warning("(%s) %s", data.get("pid"), line)

    return log
