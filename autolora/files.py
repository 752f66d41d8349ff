"""Files that are whole or absent, and locks that end with the process that holds them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

Document = dict[str, Any]
"""Content of a JSON or YAML file as it was read. Nothing has checked it: earlier versions wrote other keys."""

LFS = b"version https://git-lfs"
"""How a file begins that Git LFS left in place of another."""
POINTER = "{} is a Git LFS pointer, not the file: run `git lfs pull`"

OWNER_BYTES = 200
"""Most bytes that are read of a lock file for the name of the lock's owner."""
LOCKED_BYTE = 1 << 30
"""The byte locked on Windows, where locked bytes cannot be read: far behind the owner's name."""
LOCK_MODE = 0o664
"""Permissions of a new lock file, less what the umask takes: others may not write to it, whatever the umask."""
_BEING_WRITTEN = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
"""Name of a file that :func:`replacing` has not put in place yet."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ``~`` or ``~user`` replaced by that home; unchanged if there is no such user.

    Letters that the locale lacks are those of a file name in UTF-8.
    """
    found = os.path.expanduser(path)  # Path.expanduser raises RuntimeError for an unknown user
    try:
        os.fsencode(found)
    except UnicodeEncodeError:
        found = os.fsdecode(found.encode(errors="surrogateescape"))
    return Path(found)


def absolute(path: str | os.PathLike[str]) -> Path:
    """The path as :func:`expanded`, from the root on, and without ``..`` unless that would lead elsewhere by a link."""
    whole = expanded(path).absolute()
    shorter = Path(os.path.abspath(whole))
    leads_elsewhere = whole.exists() and not (shorter.exists() and shorter.samefile(whole))
    return whole if leads_elsewhere else shorter


def shown(path: str | os.PathLike[str]) -> str:
    """The path for a message, on one line.

    Bytes of a file name that are not text in the locale are read as UTF-8, or replaced. Line breaks and other control
    characters are escaped.
    """
    text = os.fsencode(path).decode(errors="replace")
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def argument(path: str | os.PathLike[str]) -> str:
    """The path as an argument of a command that is shown, to be entered in a shell: on one line, quoted, no option."""
    text = os.fspath(path)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return shlex.quote(text)
    escapes = {"'": "\\'", "\\": "\\\\"}
    return "$'" + "".join(escapes.get(each, each if each.isprintable() else _in_bytes(each)) for each in text) + "'"


def _in_bytes(letter: str) -> str:
    """The bytes of a letter of a file name, as bash reads them in $''."""
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(letter))


def is_pointer(content: bytes) -> bool:
    """Whether the content of a file, or its beginning, is a Git LFS pointer."""
    return content.startswith(LFS)


def decoded(content: bytes) -> str:
    """Text of a file, without its byte order mark.

    Args:
        content: text in UTF-8, or in UTF-16 or UTF-32 as a byte order mark or zero bytes at the beginning show.

    Raises:
        UnicodeDecodeError: it is in another encoding.
    """
    return content.decode(json.detect_encoding(content))


def write(path: Path, content: bytes | str) -> None:
    """Create or replace a file. Readers find the new content or the old one, even after a crash of the machine.

    Args:
        path: in a folder that exists.
        content: bytes, or text that is written as UTF-8.

    Raises:
        OSError: the file cannot be written; what was there before stays.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """As :func:`write`, for content that is written piece by piece to the file yielded.

    An exception in the ``with`` block leaves the file as it was.
    """
    # A name of its own, because several processes may write the same file at once.
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # _BEING_WRITTEN
    try:
        with beside.open("xb") as file:
            yield file
            sync(file)
        beside.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError) and error.errno and error.filename is None:  # of what failed while writing
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove the files that killed processes were writing into a folder by :func:`replacing`.

    Args:
        folder: in which no process is writing now. It need not exist, and folders in it are left alone.
    """
    for path in folder.glob(".*.tmp"):
        if _BEING_WRITTEN.fullmatch(path.name):
            path.unlink(missing_ok=True)


def move(staged: Path, path: Path) -> None:
    """Put a file that was written elsewhere on the same disk in place of another, whole after any crash."""
    with staged.open("rb+") as file:
        sync(file)
    staged.replace(path)
    sync_folder(path.parent)


def sync(file: BinaryIO) -> None:
    """Wait until the disk holds the content of an open file."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk holds the names in a folder, on platforms that can open folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows; a folder that was just written to can be opened elsewhere
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LockHeldError(Exception):
    """Another process, or another lock object, holds the lock.

    Attributes:
        owner: what the holder wrote into the lock file; empty if nothing could be read.
    """

    def __init__(self, owner: str) -> None:
        super().__init__(owner or "unknown")
        self.owner = owner


class FileLock:
    """An exclusive lock of the operating system on a file. It ends when the process dies, however it dies.

    Child processes do not inherit it: programs that are started do not get the descriptor, and forks close theirs.
    The ``filelock`` package is not used because there a forked child that releases its copy unlocks the parent's.

    Args:
        path: lock file, in a folder that exists; it is created, and stays.
    """

    _held: ClassVar[weakref.WeakSet[FileLock]] = weakref.WeakSet()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, owner: str) -> None:
        """Take the lock without waiting. Nothing happens if this object has it.

        Args:
            owner: who holds it, for others to read from the file; at most OWNER_BYTES bytes.

        Raises:
            LockHeldError: it is taken.
            OSError: the lock file cannot be opened.
        """
        if self._descriptor is not None:
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), LOCK_MODE)
        try:
            if not _lock(descriptor):
                raise LockHeldError(os.read(descriptor, OWNER_BYTES).decode(errors="replace").strip())
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{owner}\n".encode())
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._held.add(self)

    def release(self) -> None:
        """Give the lock up. Nothing happens if this object does not have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # not unlocked first: in a forked child that would unlock the parent's
            self._descriptor = None


def _lock(descriptor: int) -> bool:
    """Lock an open file at offset 0; False if another process has it. Either lock ends with the descriptor."""
    try:
        import fcntl
    except ImportError:
        return _lock_on_windows(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_on_windows(descriptor: int) -> bool:
    import msvcrt

    windows: Any = msvcrt  # its functions are unknown to a type checker on another platform
    os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
    try:
        windows.locking(descriptor, windows.LK_NBLCK, 1)
    except OSError:
        return False
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
    return True


def _release_all() -> None:
    for lock in list(FileLock._held):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_all)
