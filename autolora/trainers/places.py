"""Where checkpoints are kept: a folder of this machine or a shared file system, or an object store behind a URL.

A place holds folders of files, one folder a checkpoint. No reader may take half a folder for a whole one, and two
writers may be at work at once. Locally a folder is written beside and renamed. An object store knows no renaming:
there the last file of a folder makes it count. Either way every folder has a name that no other writer gives.
"""

from __future__ import annotations

import errno
import math
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

from autolora import files, urls
from autolora.errors import AutoloraError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Location = str | Path
"""A path, or a URL that fsspec knows: s3://bucket/folder, gs://bucket/folder, file:///folder, memory://folder.

Variables and secrets in a URL are as in :mod:`autolora.urls`. A location of which something is shown is :func:`shown`.
"""
USERINFO: Mapping[str, tuple[str, str]] = {
    "s3": ("key", "secret"),
    "s3a": ("key", "secret"),
    "oss": ("key", "secret"),
}
"""By protocol whose URLs fsspec reads no user and password of, the options that they stand for."""

# A secret of Amazon's has slashes, and often they are not percent-encoded.
_USER = re.compile(r"([^:/@]+)(?::([^@]*))?@")

ABANDONED = 3600.0
"""Seconds after which a folder that is still being written is taken for what a killed process left behind."""


class CheckpointError(AutoloraError, OSError):
    """A checkpoint cannot be written or read; those that were whole before still are."""


class Place(Protocol):
    """Names are relative to the place. Reading and writing raise :class:`CheckpointError` where they are refused."""

    def names(self) -> list[str]:
        """What lies directly in it, in no order; empty where the place does not exist."""

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Create or replace a file, so that readers find all of it, or what was there before."""

    def commit(self, name: str, contents: Mapping[str, bytes]) -> None:
        """Create a folder that does not exist yet; who finds its last file finds all of them."""

    def remove(self, name: str) -> None:
        """Remove a file or a folder, or with "" the place itself; nothing happens where there is none.

        Of what another process is removing or writing at that moment, something may stay.
        """

    def sweep(self, age: float) -> None:
        """Remove what killed processes left half-written, directly in it or in its folders.

        Args:
            age: seconds for which it has not been written to; 0 where no other process can be writing.
        """


def place(location: Location) -> Place:
    """The place at a path or URL, which need not exist yet.

    Raises:
        CheckpointError: fsspec does not know the URL's protocol, the package that serves it is missing, a variable in
            the URL is not set, or a secret of it is hidden.
    """
    if isinstance(location, Path) or not is_url(location):
        return LocalFolder(Path(location))
    import fsspec  # comes with datasets
    from fsspec.implementations.local import LocalFileSystem

    with _explained(f"reach {urls.shown(location)}", Exception, location):
        url, options = _access(urls.resolved(location))
        system, path = fsspec.core.url_to_fs(url, **options)
    return LocalFolder(Path(path)) if isinstance(system, LocalFileSystem) else ObjectStore(location, system, path)


def is_url(location: str) -> bool:
    """Whether a location is a URL, or refers to a variable that holds one."""
    return "://" in location or location.startswith("${")


def shown(location: Location) -> str:
    """A location for messages."""
    return files.shown(location) if isinstance(location, Path) else urls.shown(location)


def _access(url: str) -> tuple[str, dict[str, str]]:
    """A URL as its file system reads it, and what the user wrote into it besides: credentials, as options.

    Raises:
        ValueError: a secret is hidden that has no other place where it is looked for.
    """
    protocol, _, rest = url.partition("://")
    path, question, query = rest.partition("?")
    options = {}
    if protocol not in ("http", "https"):  # whose parameters are the server's
        parameters = [name.partition("=") for name in query.split("&")] if question else []
        options = {unquote(name): unquote(value) for name, _, value in parameters if urls.is_secret(name)}
        kept = "&".join(name + equals + value for name, equals, value in parameters if not urls.is_secret(name))
        path += question + kept if kept or not options else ""
    user = _USER.match(path)
    if user is not None and protocol in USERINFO:
        named = zip(USERINFO[protocol], (unquote(each) for each in user.groups() if each is not None), strict=False)
        options, path = dict(named) | options, path[user.end() :]
    if options and urls.HIDDEN in options.values():
        options = {}  # the file system looks where its own tools do
    elif urls.is_hidden(url):
        raise ValueError("its password is not recorded: give the URL again, or write ${VARIABLE} in place of ***")
    return f"{protocol}://{path}", options


def join(location: Location, *names: str) -> Location:
    """A location beneath another one."""
    if isinstance(location, Path):
        return location.joinpath(*names)
    return urls.joined(location, *names) if is_url(location) else posixpath.join(location, *names)


@dataclass(frozen=True)
class LocalFolder:
    """A folder of a file system, shared with other machines or not."""

    path: Path

    def names(self) -> list[str]:
        with _explained(f"read {files.shown(self.path)}", OSError), _absent():
            return os.listdir(self.path)
        return []

    def read(self, name: str) -> bytes | None:
        with _explained(f"read {files.shown(self.path / name)}", OSError), _absent():
            return (self.path / name).read_bytes()
        return None

    def write(self, name: str, content: bytes) -> None:
        final = self.path / name
        with _explained(f"write a checkpoint to {files.shown(self.path)}", OSError):
            final.parent.mkdir(parents=True, exist_ok=True)
            files.write(final, content)

    def commit(self, name: str, contents: Mapping[str, bytes]) -> None:
        beside = self.path / f".{name}.tmp"
        with self._writing(beside):
            beside.mkdir(parents=True)
            for file, content in contents.items():
                with (beside / file).open("wb") as opened:
                    opened.write(content)
                    files.sync(opened)
            files.sync_folder(beside)
            now = beside.stat().st_mtime
            beside.rename(self.path / name)
            files.sync_folder(self.path)
        self._sweep(now - ABANDONED)

    def remove(self, name: str) -> None:
        _remove(self.path / name)

    def sweep(self, age: float) -> None:
        until = math.inf
        if age and self.path.is_dir():
            explained = _explained(f"write a checkpoint to {files.shown(self.path)}", OSError)
            with explained, tempfile.TemporaryFile(dir=self.path) as probe:
                until = os.fstat(probe.fileno()).st_mtime - age
        self._sweep(until)

    @contextmanager
    def _writing(self, beside: Path) -> Iterator[None]:
        with _explained(f"write a checkpoint to {files.shown(self.path)}", OSError):
            try:
                yield
            except BaseException:
                _remove(beside)
                raise

    def _sweep(self, until: float) -> None:
        """Remove what is half-written and was last written to before ``until``, a time by the file system's clock."""
        for path in self._half_written():
            with suppress(FileNotFoundError):  # finished or removed since it was listed
                if path.stat().st_mtime <= until:
                    _remove(path)

    def _half_written(self) -> Iterator[Path]:
        """Folders and files that are being written, or were, beside checkpoints and within them."""
        for folder in (self.path, *(self.path / name for name in self.names())):
            with suppress(FileNotFoundError, NotADirectoryError):  # another process removes checkpoints meanwhile
                yield from [
                    folder / name for name in os.listdir(folder) if name.startswith(".") and name.endswith(".tmp")
                ]


@dataclass(frozen=True)
class ObjectStore:
    """What fsspec reaches at a URL; it makes no folders, which object stores do not have.

    Attributes:
        url: as the user wrote it.
        files: of fsspec.
        path: within ``files``.
    """

    url: str
    files: AbstractFileSystem
    path: str

    def names(self) -> list[str]:
        with self._explained("list"):
            self.files.invalidate_cache()  # other machines write here too
            with suppress(FileNotFoundError):
                return [posixpath.basename(path.rstrip("/")) for path in self.files.ls(self.path, detail=False)]
            return []

    def read(self, name: str) -> bytes | None:
        with self._explained("read", name):
            with suppress(FileNotFoundError):
                content: bytes = self.files.cat_file(self._at(name))
                return content
            return None

    def write(self, name: str, content: bytes) -> None:
        with self._explained("write a checkpoint to"):
            self.files.pipe_file(self._at(name), content)

    def commit(self, name: str, contents: Mapping[str, bytes]) -> None:
        for file, content in contents.items():
            self.write(f"{name}/{file}", content)

    def remove(self, name: str) -> None:
        with self._explained("remove", name):
            self.files.invalidate_cache()
            with suppress(FileNotFoundError):
                self.files.rm(self._at(name), recursive=True)

    def _explained(self, doing: str, *names: str) -> AbstractContextManager[None]:
        return _explained(f"{doing} {urls.shown(urls.joined(self.url, *names))}", Exception, self.url)

    def sweep(self, age: float) -> None:
        """Nothing: what is half-written has a checkpoint's name, and goes as older checkpoints do."""

    def _at(self, name: str) -> str:
        return posixpath.join(self.path, name).rstrip("/")


def _remove(path: Path) -> None:
    """A folder or a file. Errors are ignored because another process may be removing the same."""
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


@contextmanager
def _explained(doing: str, kind: type[Exception], url: str = "") -> Iterator[None]:
    """Errors of this kind as :class:`CheckpointError`. Drivers of object stores raise errors of their own kinds.

    The secrets of ``url`` are in none of them.
    """
    try:
        yield
    except kind as error:
        cause = urls.scrubbed(_cause(error), url) if url else _cause(error)
        explained = CheckpointError(
            f"cannot {doing}: {cause}; {_remedy(error)}. "
            "Earlier checkpoints are intact: the same command run again continues"
        )
        # A traceback would show the driver's message.
        raise explained from (error if cause == _cause(error) else None)


@contextmanager
def _absent() -> Iterator[None]:
    """Leave the block where there is no such file or folder, something else of its name, or a disk that lost it."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        pass
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _cause(error: Exception) -> str:
    if _is_full(error):
        return "no space left on the disk"
    return str(error).rstrip(".") or type(error).__name__


def _remedy(error: Exception) -> str:
    match error:
        case ImportError():
            return "install that package wherever trials are trained"
        case urls.VariableError():
            return "set it, wherever trials are trained"
        case ValueError():
            return "give a folder, or a URL that fsspec knows such as s3://bucket/folder, as `checkpoints`"
        case PermissionError():
            return "let this user read and write there"
        case _ if _is_full(error):
            return "free some space"
        case _:
            return "see that it can be reached, and that the credentials it wants are set"
