"""Folders for what a process needs while it runs; those of processes that were killed go when the next one starts."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from autolora.files import FileLock, LockHeldError

PREFIX, LOCK = "autolora-tune-", ".lock"


class Scratch:
    """A new folder in the system's temporary one. It counts as in use while its maker lives.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        _sweep(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = FileLock(self.path / LOCK)
        self._lock.acquire("")

    def remove(self) -> None:
        """Remove the folder with what is in it; it may be called again."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def _sweep(folder: Path) -> None:
    """Remove those whose makers are dead. One without a lock file is just being made, or is of an earlier version."""
    for path in folder.glob(f"{PREFIX}*/{LOCK}"):
        lock = FileLock(path)
        with suppress(LockHeldError, OSError):  # in use, another user's, or just removed by another process
            lock.acquire("")
            shutil.rmtree(path.parent, ignore_errors=True)
        lock.release()
