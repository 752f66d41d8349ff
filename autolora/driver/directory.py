"""A run directory as it is written: held by one process, for one specification."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autolora import spec as specs
from autolora.errors import AutoloraError
from autolora.files import FileLock, LockHeldError
from autolora.spec import Spec
from autolora.study.directory import SPEC_FILE, STUDY_FILE, read_recorded

LOCK_FILE = ".lock"


class RunDirectoryError(AutoloraError, RuntimeError):
    """The run directory is in use, or belongs to another specification."""


@contextmanager
def run_directory(folder: Path, spec: Spec) -> Iterator[Path]:
    """Hold the directory for this process and this specification.

    Raises:
        RunDirectoryError: another process holds it, or it holds a study of another specification.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(str(os.getpid()))
    except LockHeldError as held:
        raise RunDirectoryError(
            f"{folder} is in use by another process (pid {held.owner or 'unknown'}): wait for it, stop it, or choose "
            "another --dir"
        ) from None
    try:
        _adopt(folder, spec)
        yield folder
    finally:
        lock.release()


def _adopt(folder: Path, spec: Spec) -> None:
    """Record the specification, or check it against the recorded one; only what MUTABLE names may differ."""
    path = folder / SPEC_FILE
    recorded = read_recorded(path) if path.is_file() else None
    # Until there is a study, a specification that turned out wrong may be corrected.
    if recorded is not None and (recorded.get("storage") or (folder / STUDY_FILE).is_file()):
        changes = specs.differences(recorded, specs.dump(spec))
        if changes:
            raise RunDirectoryError(
                f"{folder} holds a study of another specification (recorded -> asked for):\n  "
                + "\n  ".join(changes)
                + "\nUse another --dir for the new one; a larger budget alone continues the study."
            )
    specs.save(spec, path)
