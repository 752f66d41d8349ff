"""A run directory as it is written: held by one process, for one specification."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autolora import spec as specs
from autolora.driver.records import completed, continued
from autolora.errors import AutoloraError
from autolora.files import Document, FileLock, LockHeldError
from autolora.spec import Spec
from autolora.study.directory import SPEC_FILE, STUDY_FILE, read_recorded

LOCK_FILE = ".lock"


class RunDirectoryError(AutoloraError, RuntimeError):
    """The run directory is in use, or belongs to another specification."""


@contextmanager
def run_directory(folder: Path, spec: Spec) -> Iterator[Spec]:
    """Hold the directory for this process and this specification.

    Yields:
        The specification to go on with; see :func:`adopted`.

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
        spec = adopted(folder, spec)
        _record(folder, spec)
        yield spec
    finally:
        lock.release()


def adopted(folder: Path, spec: Spec) -> Spec:
    """The specification, with the former defaults that a study of an earlier version in this directory began with."""
    recorded = _begun(folder)
    return spec if recorded is None else continued(spec, recorded)


def _begun(folder: Path) -> Document | None:
    """What is recorded of the study in a directory; None until there is one, so that errors may be corrected."""
    path = folder / SPEC_FILE
    recorded = read_recorded(path) if path.is_file() else None
    if recorded is not None and (recorded.get("storage") or (folder / STUDY_FILE).is_file()):
        return recorded
    return None


def _record(folder: Path, spec: Spec) -> None:
    """Record the specification, or check it against the recorded one; only what MUTABLE names may differ."""
    recorded = _begun(folder)
    if recorded is not None:
        changes = specs.differences(completed(recorded), specs.dump(spec))
        if changes:
            raise RunDirectoryError(
                f"{folder} holds a study of another specification (recorded -> asked for):\n  "
                + "\n  ".join(changes)
                + "\nUse another --dir for the new one; a larger budget alone continues the study."
            )
    specs.save(spec, folder / SPEC_FILE)
