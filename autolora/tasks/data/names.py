"""What a path in a specification stands for: local files, one or several by a pattern."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from autolora import files, quickstart
from autolora.sections import nearby
from autolora.tasks.data.errors import DataError
from autolora.tasks.data.local import LocalFile
from autolora.tasks.data.readers import reader_of


def files_of(name: str) -> list[LocalFile]:
    """The local files that a name stands for, in order of their names; [] if it names no files.

    Args:
        name: a path, a pattern with ``*``, ``?``, ``[...]`` or ``**``, or a ``builtin:`` name; ``~`` is the home. Every
            other name stands for a directory, a hub id or a split.

    Raises:
        DataError: there is no such file, or the pattern matches none.
    """
    path = files.expanded(quickstart.resolve(name))
    file = LocalFile(path, name)
    if path.is_file():
        return [file]
    if path.is_dir():
        return []
    if _is_pattern(file):
        found = sorted(match for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
        if not found:
            raise DataError(f"no file matches {name}; check the folder and the suffix")
        return [LocalFile(Path(match), match) for match in found]
    if reader_of(file):
        raise DataError(f"no such file: {files.shown(path)}{nearby(path)}")
    return []


def located(name: str) -> str:
    """The name from any folder: absolute if it stands for something here, unchanged if not.

    Args:
        name: as for :func:`files_of`.
    """
    if quickstart.resolve(name) != name:
        return name
    path = files.expanded(name)
    if path.exists():
        return str(files.absolute(path))
    if _is_pattern(LocalFile(path, name)) and not path.is_absolute():
        folder, parts = Path.cwd(), path.parts
        while parts[:1] == ("..",):
            folder, parts = folder.parent, parts[1:]
        return os.path.join(glob.escape(str(folder)), *parts)
    return name


def _is_pattern(file: LocalFile) -> bool:
    """A hub id has no wildcards, but may have a slice, as in ``owner/name:train[:100]``."""
    if "://" in file.name:
        return False
    return any(sign in file.name for sign in "*?") or ("[" in file.name and reader_of(file) is not None)
