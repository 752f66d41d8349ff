"""One study at a time in a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autolora import files
from autolora.errors import AutoloraError


class ProcessInUseError(AutoloraError, RuntimeError):
    """This process tunes already."""


class _Holder:
    """Who tunes in this process."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.lock = threading.Lock()
        self.study = ""


_HOLDER = _Holder()
if hasattr(os, "register_at_fork"):  # the parent's study does not run in its children
    os.register_at_fork(after_in_child=_HOLDER.reset)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold this process for the study of a run directory.

    Two studies at once would share torch's random numbers, the libraries' state while models are loaded, and perhaps a
    model object: neither would come out as it does alone.

    Raises:
        ProcessInUseError: another thread, or a caller of this one, tunes already.
    """
    if not _HOLDER.lock.acquire(blocking=False):
        raise ProcessInUseError(
            f"this process tunes already, in {_HOLDER.study or 'another run directory'}, and random numbers and models "
            "serve one study at a time: wait for it, or tune in another process (executor='ray' has one study use "
            "several workers)"
        )
    try:
        _HOLDER.study = files.shown(folder)
        yield
    finally:
        _HOLDER.study = ""
        _HOLDER.lock.release()
