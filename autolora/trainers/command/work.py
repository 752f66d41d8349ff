"""The folder that a command works in: what is in it, and a copy of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from autolora import files

WORK, LISTING = "work", "work.json"
"""The folder, beside the checkpoints of its trial; and the file of a checkpoint that lists what was in it."""
ADAPTER = "adapter"
"""Its subfolder that is exported alone, if there is one."""


def listing(folder: Path) -> bytes:
    """Names and sizes of the files of a folder and its subfolders, as JSON."""
    found = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}
    return json.dumps(found, sort_keys=True).encode()


def missing(folder: Path, content: bytes) -> list[str]:
    """What of a folder is not as it was listed: names of files that are gone or of another size."""
    listed = json.loads(content)
    return [name for name, size in listed.items() if _size(folder / name) != size]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def _files(folder: Path) -> Iterator[Path]:
    """Regular files, those that links of files lead to included; links of folders are not followed."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file():  # no socket, and no link to what is gone
                yield path


def export(work: Path, folder: Path) -> None:
    """Copy what a command has left, or its subfolder "adapter", to a folder, in place of what is there.

    The folder is the old one, none for a moment, and then the whole new one. Files behind links are copied.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    source = work / ADAPTER if (work / ADAPTER).is_dir() else work
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as beside:  # swept as staged adapters are
        staged = Path(beside, "new")
        staged.mkdir()
        for path in _files(source):
            copy = staged / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            shutil.copymode(path, copy)
            with copy.open("rb+") as written:
                files.sync(written)
        if folder.exists():
            folder.rename(Path(beside, "old"))
        staged.rename(folder)
        files.sync_folder(folder.parent)
