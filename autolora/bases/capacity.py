"""The memory of a device, or of the machine as far as this process may use it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autolora.adapters.memory import Device

if TYPE_CHECKING:
    import torch

CGROUPS = (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"))
"""Where Linux keeps the limits of groups of processes, and the file of the limit: version 2, and version 1."""
OWN_GROUPS = Path("/proc/self/cgroup")


def capacity(device: torch.device, most: int | None = None, besides: int = 0) -> Device:
    """What there is on a device: on CUDA its own memory, elsewhere the machine's or a lower limit of the process.

    Args:
        device: which.
        most: bytes that may be taken of it at most; None means all.
        besides: bytes of those that are taken by what no plan is about, such as Python and its libraries.
    """
    there = _capacity(device)
    if most is None or most - besides >= there.bytes:
        return there
    return Device(there.name, max(0, most - besides), limited=True)


def bound(device: torch.device, most: int | None) -> None:
    """Have memory run out on a CUDA device where this process takes more; elsewhere nothing can."""
    if device.type != "cuda":
        return
    import torch

    share = 1.0 if most is None else most / torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)


def _capacity(device: torch.device) -> Device:
    if device.type == "cuda":
        import torch

        return Device(str(device), torch.cuda.get_device_properties(device).total_memory)
    import psutil

    return Device(str(device), min([psutil.virtual_memory().total, *_limits()]))


def _limits() -> list[int]:
    """Limits of the groups of processes that this one is in, containers' included; empty if there are none."""
    found = []
    for root, name in CGROUPS:
        # In a container the group's own path is not there, and its limit is that of the root.
        for group in {"/", *_groups()}:
            folder = Path(root, group.lstrip("/"))
            for each in (folder, *folder.parents):
                if each.is_relative_to(root) and (limit := _number(each / name)) is not None:
                    found.append(limit)
    return found


def _groups() -> list[str]:
    """Paths of the groups; empty where there is no such file, as on other systems than Linux."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line.split(":", 2)[2] for line in lines if line.count(":") >= 2]


def _number(file: Path) -> int | None:
    """The limit in a file; None where there is none, which is written "max" or as a missing file."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
