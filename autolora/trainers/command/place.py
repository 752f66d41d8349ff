"""Where a command runs: the GPUs that it is given, and where its processes meet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from autolora.trainers.command.errors import CommandError

LOOPBACK = "127.0.0.1"
VISIBLE = "CUDA_VISIBLE_DEVICES"
NAMES = ("gpus", "port", "host", "nodes", "node_rank", "rendezvous")
"""Placeholders of a command line that say where it runs."""


@dataclass(frozen=True)
class Place:
    """Where one run of a command takes place, as one of its nodes sees it.

    Attributes:
        gpus: GPUs on each node.
        port: at which its processes meet; free when it is started, and no other command of autolora's on the machine
            is given it meanwhile.
        host: name or address of the node that has this port.
        nodes: on which the command is started, once on each.
        node_rank: index of this one.
    """

    gpus: int = 0
    port: int = 0
    host: str = LOOPBACK
    nodes: int = 1
    node_rank: int = 0

    @property
    def rendezvous(self) -> str:
        """Host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def values(self) -> Mapping[str, object]:
        """What each of NAMES stands for."""
        return {name: getattr(self, name) for name in NAMES}

    def environment(self) -> Mapping[str, str]:
        """Variables by which launchers and ``torch.distributed`` find the meeting point: those of this process where
        it has them. torchrun reads those that begin with PET.
        """
        host, port = os.environ.get("MASTER_ADDR", self.host), os.environ.get("MASTER_PORT", str(self.port))
        found = {"MASTER_ADDR": host, "MASTER_PORT": port, "PET_MASTER_ADDR": host, "PET_MASTER_PORT": port}
        if self.nodes > 1:
            found |= {"NNODES": str(self.nodes), "NODE_RANK": str(self.node_rank)}
        return {name: value for name, value in found.items() if name not in os.environ or not name.startswith("PET")}


def visible() -> list[str]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get(VISIBLE)
    if named is None:
        import torch

        return [str(index) for index in range(torch.cuda.device_count())]
    found = [each.strip() for each in named.split(",")]
    none = [at for at, each in enumerate(found) if each.startswith("-") or each in ("", "NoDevFiles")]
    return found[: none[0]] if none else found  # as CUDA does: what follows is not there


def count(asked: float | None) -> int:
    """How many GPUs a command gets.

    Args:
        asked: ``resources.gpu``; None means all that this process sees.
    """
    if asked is None or 0 < asked <= 1:
        there = len(visible())
        return there if asked is None else min(there, 1)
    return int(asked)


def shown_cards(asked: float | None) -> Mapping[str, str]:
    """The environment that shows a command the first of the GPUs that this process sees, as many as it gets.

    Args:
        asked: ``resources.gpu``; up to 1, and if it is None, nothing is hidden.

    Raises:
        CommandError: this process sees fewer.
    """
    number = int(asked or 0)
    if number < 2:
        return {}
    there = visible()
    if len(there) < number:
        raise CommandError(
            f"resources.gpu is {number}, and this process sees {len(there)}: set resources.gpu to "
            f"{max(len(there), 1)}, make more GPUs visible ({VISIBLE}), or use --executor ray on a cluster that has a "
            f"node with {number}"
        )
    return {VISIBLE: ",".join(there[:number])}
