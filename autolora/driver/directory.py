"""A run directory as it is written: held by one process, for one specification."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autolora import files, urls
from autolora import spec as specs
from autolora.driver.records import completed, continued, moved
from autolora.errors import AutoloraError
from autolora.files import Document, FileLock, LockHeldError
from autolora.sections import nearby
from autolora.spec import Spec
from autolora.study import filesystem
from autolora.study.directory import SPEC_FILE, STUDY_FILE, read_recorded, storage_of
from autolora.study.storage import resolved, sqlite_file

LOCK_FILE = ".lock"


class RunDirectoryError(AutoloraError, RuntimeError):
    """The run directory is in use, or belongs to another specification."""


@contextmanager
def run_directory(folder: Path, spec: Spec) -> Iterator[Spec]:
    """Hold the directory for this process and this specification.

    Yields:
        The specification to go on with; see :func:`adopted`.

    Raises:
        RunDirectoryError: another process holds it, it holds a study of another specification, or it is on a file
            system without locks.
        StudyError: the study's SQLite file is on one, or a variable in the URL of the storage is not set.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(
            f"the run directory {files.shown(folder)} cannot be made: {error.strerror}{nearby(folder)}"
        ) from None
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(str(os.getpid()))
    except LockHeldError as held:
        raise RunDirectoryError(
            f"{files.shown(folder)} is in use by another process (pid {held.owner or 'unknown'}): wait for it, stop "
            "it, or choose another --dir"
        ) from None
    except OSError as error:
        if not filesystem.lacks_locks(error):
            raise
        raise RunDirectoryError(filesystem.without_locks(folder, "a run directory")) from None
    try:
        _check_file_system(folder, spec)
        spec = adopted(folder, spec)
        recorded = _begun(folder)
        if recorded is None:  # for whoever goes on after an interrupt
            record(folder, spec)
        else:
            _check_same(folder, recorded, spec)
            for change in moved(spec, recorded):
                warnings.warn(
                    f"{change}: trials that have begun go on in the other folder, with what relative paths name there",
                    stacklevel=3,
                )
        yield spec
    finally:
        lock.release()


def _check_file_system(folder: Path, spec: Spec) -> None:
    """Whether the study's file, if it is SQLite's, can be locked; with a warning where that is doubtful."""
    path = sqlite_file(resolved(storage_of(spec.storage, folder)))
    if path is None or not path.parent.is_dir():  # opening the study says what is wrong
        return
    if not filesystem.can_lock(path.parent):
        raise RunDirectoryError(filesystem.without_locks(path.parent, "the study"))
    network = filesystem.network_type(path.parent)
    if network is not None:
        warnings.warn(
            f"{files.shown(path)} is on a network file system ({network}), where SQLite's locks may fail and the study "
            "be damaged: choose a run directory on a local disk, or `storage: postgresql+psycopg://...`",
            stacklevel=4,
        )


def adopted(folder: Path, spec: Spec) -> Spec:
    """The specification, with the former defaults that a study of an earlier version in this directory began with."""
    recorded = _begun(folder)
    return spec if recorded is None else continued(spec, recorded)


def _begun(folder: Path) -> Document | None:
    """What is recorded of the study in a directory; None until there is one, so that errors may be corrected."""
    path = folder / SPEC_FILE
    recorded = read_recorded(path) if path.exists() else None
    if recorded is not None and (recorded.get("storage") or (folder / STUDY_FILE).is_file()):
        return recorded
    return None


def record(folder: Path, spec: Spec) -> None:
    """Record the specification of a directory that is held."""
    specs.save(spec, folder / SPEC_FILE)


def _check_same(folder: Path, recorded: Document, spec: Spec) -> None:
    """Check the specification against the recorded one; only what MUTABLE names may differ."""
    known, asked = completed(recorded), specs.dump(spec)
    changes = specs.differences(_named(known), _named(asked))
    if changes:
        raise RunDirectoryError(
            f"{files.shown(folder)} holds a study of another specification (recorded -> asked for):\n  "
            + "\n  ".join(changes)
            + "\nUse another --dir for the new one; a larger budget alone continues the study."
        )


def _named(dumped: Document) -> Document:
    """A dumped specification without secrets by reference: they may change, and be given in another way."""
    places = {key: urls.identity(dumped[key]) for key in specs.URLS if isinstance(dumped[key], str)}
    return {**dumped, **places}
