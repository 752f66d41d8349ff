"""The folder of a transformers checkpoint as the flat files that a checkpoint of ours has, and the reverse."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote

RNG_STATE = "rng_state.pth"


def packed(folder: Path) -> dict[str, bytes]:
    """Content of every file beneath a folder, by its quoted path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {quote(path.relative_to(folder).as_posix(), safe=""): path.read_bytes() for path in paths}


def unpack(contents: Mapping[str, bytes], folder: Path) -> None:
    """Write the files that :func:`packed` read."""
    for name, content in contents.items():
        path = folder / unquote(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
