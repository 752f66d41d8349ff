"""A port that no other command on this machine is given while one has it."""

from __future__ import annotations

import errno
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autolora.files import FileLock, LockHeldError
from autolora.trainers.command.errors import CommandError

LOWEST, HIGHEST = 20000, 32000
"""Ports to choose from: below those that systems hand out by themselves, and above those of Ray's workers."""
FOLDER = "autolora-ports"
"""In the folder for temporary files, with a user's number behind it: a lock for each port that was used."""


@contextmanager
def reserved() -> Iterator[int]:
    """A port to which nobody listens, kept from other commands of this user on this machine until the end.

    The operating system gives the lock back when this process dies, however that happens.

    Raises:
        CommandError: all ports are in use.
    """
    folder = Path(tempfile.gettempdir(), f"{FOLDER}-{os.getuid() if hasattr(os, 'getuid') else 0}")
    folder.mkdir(mode=0o700, exist_ok=True)
    first = random.SystemRandom().randrange(LOWEST, HIGHEST)  # not drawn of a study's seed: it changes no number
    for port in (*range(first, HIGHEST), *range(LOWEST, first)):
        lock = FileLock(folder / str(port))
        try:
            lock.acquire(f"process {os.getpid()}")
        except LockHeldError:
            continue
        try:
            if _is_free(port):
                yield port
                return
        finally:
            lock.release()
    raise CommandError(f"no port from {LOWEST} to {HIGHEST - 1} is free on this machine for the processes of a command")


def _is_free(port: int) -> bool:
    """Whether a server may listen at it, on all addresses of this machine."""
    for family, address in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                if os.name == "posix":
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
        except OSError as error:
            if family == socket.AF_INET or error.errno == errno.EADDRINUSE:
                return False
    return True
