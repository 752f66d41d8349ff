"""What a file system must do for a study: lock files. Some do not, and some do it for one machine alone."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

from autolora import files

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
"""What a file system without locks answers."""
NETWORK = ("9p", "afs", "cifs", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "ncpfs", "nfs", "nfs4", "smb3", "smbfs")
"""Types of file systems on which locks are known to fail or to hold on one machine alone."""


def lacks_locks(error: OSError) -> bool:
    """Whether an attempt to lock a file failed because its file system has no locks."""
    return error.errno in NO_LOCKS


def without_locks(folder: Path, what: str) -> str:
    """What to say of a file system that has no locks.

    Args:
        folder: on it.
        what: needs them, such as "the study".
    """
    return (
        f"the file system of {files.shown(folder)} cannot lock files, which {what} needs: choose a run directory on a "
        "local disk (--dir), with `checkpoints:` on the shared one, or keep the study on a server with "
        "`storage: postgresql+psycopg://...`"
    )


def can_lock(folder: Path) -> bool:
    """Whether files in a folder can be locked as SQLite does it; True where that is not known.

    A file system that answers SQLite with "no locks available" otherwise looks as if another process held the lock.
    """
    try:
        import fcntl
    except ImportError:
        return True
    # A file of its own: closing any descriptor of a file gives up all such locks of this process on it.
    name = folder / f".locks.{uuid.uuid4().hex}.tmp"  # which files.sweep removes after a kill
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if lacks_locks(error):
            return False
        raise
    finally:
        os.close(descriptor)
        os.unlink(name)
    return True


def network_type(folder: Path) -> str | None:
    """The type of the network file system that a folder is on, such as "nfs4"; None if it is not known to be on one."""
    import psutil

    whole = Path(os.path.realpath(folder))
    mounts = [each for each in psutil.disk_partitions(all=True) if whole.is_relative_to(each.mountpoint)]
    # Of several mounts on one folder the last is the one that is seen.
    deepest = max(reversed(mounts), key=lambda each: len(each.mountpoint), default=None)
    return deepest.fstype if deepest is not None and deepest.fstype in NETWORK else None
