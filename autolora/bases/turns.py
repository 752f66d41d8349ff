"""Turns: one process of a machine loads a model at a time, so that what loading takes meanwhile is taken once."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autolora.files import FileLock, LockHeldError

logger = logging.getLogger(__name__)

FOLDER, LOCK = "autolora-{}", "loading.lock"
"""Folder in the system's temporary one, by the user, and the lock in it."""
LOOK_SECONDS = 0.1
QUIET_SECONDS = 5.0
"""Wait after which it is said who is waited for."""
PATIENCE = 600.0
"""Longest wait for others, in seconds: one that hangs, as on a file server, must not keep all others waiting."""


@contextmanager
def turn() -> Iterator[None]:
    """Context in which no other process of this user, and no other thread, is in this context on this machine.

    The turn of a process that dies ends with it. Where the machine's temporary folder has no locks, and after PATIENCE,
    loading goes on without one, with a warning: all that is lost is memory.
    """
    lock = None
    try:
        lock = FileLock(_folder() / LOCK)
        if not _taken(lock):
            logger.warning(
                "other processes have been loading models for %.0f minutes; not waiting longer", PATIENCE / 60
            )
    except OSError as error:
        logger.warning("models are not loaded one after the other on this machine: %s", error)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _taken(lock: FileLock) -> bool:
    began, said = time.monotonic(), False
    while True:
        try:
            lock.acquire(str(os.getpid()))
            return True
        except LockHeldError as held:
            waited = time.monotonic() - began
            if waited > PATIENCE:
                return False
            if waited > QUIET_SECONDS and not said:
                logger.warning("waiting for process %s, which is loading a model", held.owner or "of this user")
                said = True
            time.sleep(LOOK_SECONDS)


def _folder() -> Path:
    """A folder that nobody else can put links into.

    Raises:
        OSError: it cannot be made, or is another user's.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"  # on Windows the temporary folder is a user's own
    folder = Path(tempfile.gettempdir()) / FOLDER.format(user)
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and (folder.is_symlink() or folder.stat().st_uid != user):
        raise PermissionError(f"{folder} is a link, or another user's")
    return folder
