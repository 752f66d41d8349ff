"""Further nodes of a command: an actor in each further bundle of a worker's placement group, which starts its part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from autolora.spec import ResourcesSpec
from autolora.trainers import LostSegment
from autolora.trainers.command.here import Here
from autolora.trainers.command.parts import Part, Peer, Start
from autolora.trainers.command.process import end_marked

THREADS = 4
"""Calls that an agent serves at once: one waits for the end while others stop it."""
JOIN_SECONDS = 120.0
"""Longest that an agent may take to be there, and to start or stop its part."""
POLL_SECONDS = 1.0
"""How often an agent looks whether it has been told to end its part, at least."""


class NodeAgent:
    """Starts the part of a command that belongs on its node. It ends with the worker that has made it, and its guard
    ends the part with it."""

    def __init__(self) -> None:
        self._part: Here | None = None

    def prepare(self, told: str) -> None:
        """See :meth:`autolora.trainers.command.parts.Peer.prepare`."""
        end_marked(Path(told))

    def start(self, start: Start, title: str) -> None:
        """See :meth:`autolora.trainers.command.parts.Peer.start`."""
        self._part = Here(start, title)

    def ended(self) -> int:
        """The exit code of the part, once it has one."""
        assert self._part is not None
        while (code := self._part.wait(POLL_SECONDS)) is None:
            pass
        return code

    def resident(self) -> int:
        """See :meth:`autolora.trainers.command.parts.Part.resident`."""
        return 0 if (part := self._part) is None else part.resident()

    def terminate(self, seconds: float) -> None:
        """See :meth:`autolora.trainers.command.parts.Part.terminate`."""
        if self._part is not None:
            self._part.terminate(seconds)

    def end(self) -> list[str]:
        """End the part; returns its last lines of output."""
        if self._part is None:
            return []
        part, self._part = self._part, None
        part.end()
        return part.tail()


class _Remote(Part):
    def __init__(self, node: Node) -> None:
        self._node = node
        self._ended = node.agent.ended.remote()
        self._looked = node.agent.resident.remote()
        self._resident = 0
        self._asked: list[Any] = []
        self._tail: list[str] = []

    def wait(self, seconds: float) -> int | None:
        ready, _ = ray.wait([self._ended], timeout=seconds)
        return None if not ready else int(self._node.answer(self._ended))

    def resident(self) -> int:
        if ray.wait([self._looked], timeout=0)[0]:
            self._resident = int(self._node.answer(self._looked))
            self._looked = self._node.agent.resident.remote()
        return self._resident

    def terminate(self, seconds: float) -> None:
        self._asked.append(self._node.agent.terminate.remote(seconds))

    def end(self) -> None:
        for each in self._asked:  # it may be saving a checkpoint
            self._node.answer(each)
        self._tail = self._node.answer(self._node.agent.end.remote())

    def tail(self) -> list[str]:
        return self._tail


class Node(Peer):
    """A further node of the placement group that this process is part of.

    Args:
        group: the placement group.
        bundle: index of its bundle.
        asked: what each node is to get.
    """

    def __init__(self, group: PlacementGroup, bundle: int, asked: dict[str, float]) -> None:
        self._bundle = bundle
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
        options = {"num_cpus": asked["CPU"], "num_gpus": asked.get("GPU", 0), "max_concurrency": THREADS}
        self.agent: Any = ray.remote(NodeAgent).options(scheduling_strategy=strategy, **options).remote()

    def prepare(self, told: Path) -> None:
        self.answer(self.agent.prepare.remote(str(told)))

    def start(self, start: Start) -> Part:
        self.answer(self.agent.start.remote(start, f"node {self._bundle} of {start.told.parent.name}"))
        return _Remote(self)

    def answer(self, asked: Any) -> Any:
        """What the agent answers.

        Raises:
            LostSegment: it is gone, or does not answer.
            Exception: what it has raised.
        """
        try:
            return ray.get(asked, timeout=JOIN_SECONDS)
        except RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, Exception) and not isinstance(cause, RayError):
                raise cause from None
            said = str(error).strip().partition("\n")[0].rstrip(". ")
            raise LostSegment(f"node {self._bundle} of its command is gone: {said}") from None


def further_nodes(group: PlacementGroup | None, asked: ResourcesSpec) -> Sequence[Node]:
    """All nodes of a placement group but the first, on which this process is.

    Args:
        group: of this process; None if there is none.
        asked: what a worker gets.
    """
    if asked.nodes == 1 or group is None:
        return ()
    return [Node(group, index, group.bundle_specs[index]) for index in range(1, asked.nodes)]
