"""Factorizations on disk, for the workers of a study and its later starts.

An entry is found by all that its numbers depend on, so that what is read is bit for bit what would be computed. A study
therefore does not depend on who computed first: machines of other kinds have entries of their own.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import cache
from inspect import isfunction
from pathlib import Path
from typing import TYPE_CHECKING

from autolora import __version__, files
from autolora.errors import first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Factors = tuple[Tensor, ...]

logger = logging.getLogger(__name__)

REVISION = 1
"""Raise it when the same weights and sample give other factors."""
LEAST = 1 << 16
"""Elements of the smallest matrix that is kept: smaller ones are computed in the time that a file takes."""
MOST_BYTES = 32 << 30
"""Most that a store takes on disk. PiSSA on a model of 8B parameters takes 1 GB, OLoRA or MiLoRA 3 GB."""
SPARE_BYTES = 8 << 30
"""What is left free on the disk, for checkpoints."""
RECOUNT = 16
"""Entries after which the folder is counted again."""
SLOTS = 64
"""Lock files; factorizations that share one are not computed at once by two processes."""
SUFFIX = ".safetensors"


class Store:
    """Factorizations in a folder, a file each.

    A file is written beside, synced and renamed. One that is damaged or cannot be read counts as missing, and what
    cannot be written is a warning: both cost time alone. The folder may be removed at any time.

    Args:
        folder: it need not exist.
        least: elements of the smallest matrix that is kept.
    """

    def __init__(self, folder: Path, least: int = LEAST) -> None:
        self.folder, self.least = folder, least
        self._bytes = self._saves = 0
        self._closed = False

    def load(self, key: str) -> Factors | None:
        """What is kept under a key of :func:`key_of`; None if there is nothing whole."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("%s cannot be read (%s); it is computed again", files.shown(path), first_line(error))
            return None
        digest, content = content[:32], content[32:]
        try:
            if hashlib.sha256(key.encode() + content).digest() != digest:
                raise ValueError("its digest is another")
            found = load(content)
        except (SafetensorError, ValueError) as error:
            logger.warning("%s is damaged (%s); it is computed again", files.shown(path), first_line(error))
            return None
        # Copies, in memory that is aligned as that of computed ones: products may round by alignment.
        return tuple(found[str(place)].clone() for place in range(len(found)))

    def save(self, key: str, factors: Factors) -> None:
        """Keep factors, contiguous and on the CPU, if there is room for them."""
        from safetensors.torch import save

        size = sum(factor.nbytes for factor in factors)
        try:
            if self._closed or not self._has_room(size):
                return
            content = save({str(place): factor for place, factor in enumerate(factors)})
            digest = hashlib.sha256(key.encode() + content).digest()
            with files.replacing(self._path(key)) as file:
                file.write(digest)
                file.write(content)
        except FileNotFoundError as error:  # the folder was removed, or swept, meanwhile
            logger.warning("a factorization is not kept for other workers and later starts: %s", first_line(error))
        except OSError as error:
            self._closed = True
            logger.warning("factorizations are not kept for other workers and later starts: %s", first_line(error))

    @contextmanager
    def turn(self, key: str) -> Iterator[bool]:
        """Context in which other processes do not compute what belongs to a key; gives False if one does so now.

        The turn of a process that dies ends with it. Where there are no locks, everyone computes.
        """
        lock = files.FileLock(self.folder / f"{int(key[:8], 16) % SLOTS:02}.lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(str(os.getpid()))
            mine = True
        except files.LockHeldError:
            mine = False
        except OSError:  # no locks on this file system, or no folder can be made there
            mine = True
        try:
            yield mine
        finally:
            lock.release()

    def _has_room(self, size: int) -> bool:
        if self._saves % RECOUNT == 0:  # others add to it meanwhile
            self._bytes = size_of(self.folder)
        self._saves += 1
        if self._bytes + size > MOST_BYTES or shutil.disk_usage(self.folder).free < size + SPARE_BYTES:
            self._closed = True
            logger.warning(
                "%s is full (%.1f GB, %.0f GB at most, and %.0f GB of the disk stay free): further factorizations are "
                "computed again by each worker and start",
                files.shown(self.folder),
                self._bytes / 2**30,
                MOST_BYTES / 2**30,
                SPARE_BYTES / 2**30,
            )
            return False
        self._bytes += size
        return True

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"


def size_of(folder: Path) -> int:
    """Bytes that the store of a folder takes; 0 if there is none."""
    return sum(path.stat().st_size for path in folder.glob(f"*{SUFFIX}"))


def key_of(device: torch.device, *facts: object) -> str:
    """A key of what follows from some facts on a device like this one, by this code."""
    content = repr((REVISION, *_versions(), *_machine(device.type, device.index), *facts))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def name_of(function: object) -> str | None:
    """What identifies a function, or an object that is called, from one process to the next; None if nothing does.

    Only autolora's own code has an identity: that of others may change while its name stays.
    """
    kind = function if isfunction(function) else type(function)
    if not kind.__module__.startswith("autolora.") or "<" in kind.__qualname__:
        return None
    if isfunction(function):
        return f"{kind.__module__}.{kind.__qualname__}"
    return f"{kind.__module__}.{function!r}" if is_dataclass(function) else None


def digest_of(tensor: Tensor) -> str:
    """A digest of all bytes of a tensor, its shape and dtype."""
    import torch

    content = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{tuple(content.shape)} {content.dtype}".encode())
    digest.update(content.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _versions() -> tuple[str, ...]:
    import torch
    import transformers

    return __version__, torch.__version__, transformers.__version__


def _machine(kind: str, index: int | None) -> tuple[object, ...]:
    """What the last bits of a computation on a device depend on, beside the software."""
    import torch

    if kind == "cuda":
        return kind, _matmuls(), torch.cuda.get_device_name(index)
    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    return kind, _matmuls(), platform.machine(), _processor(), capability, threads


def _matmuls() -> str:
    """How exact the process has matrix products in float32."""
    import torch

    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # chosen by a newer setting, which this older call does not read
        return str(torch.backends.cuda.matmul.fp32_precision)


@cache
def _processor() -> str:
    """The CPU's model, by which libraries choose kernels."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
