"""Open what the user names: local files, a directory, a hub id, or a ``datasets`` object.

Opening (:func:`open_sources`) gives an identity of the content without parsing it, so that a cached result is found
before any row is read; reading gives a :class:`~autolora.tasks.data.table.Table`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from autolora import files, quickstart
from autolora.tasks.data import hub
from autolora.tasks.data.compression import COMPRESSIONS
from autolora.tasks.data.errors import DataError, show
from autolora.tasks.data.local import LocalFile
from autolora.tasks.data.names import files_of
from autolora.tasks.data.readers import reader_of, suffixes
from autolora.tasks.data.table import JoinedTable, Table

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

AUTO = "auto"
"""In place of evaluation rows: the data set's own validation split, or rows held out from the training rows."""
ROLES = ("train", "eval", "test")
DEFAULT_SPLITS = {"train": ("train",), "eval": ("validation", "test"), "test": ("test",)}
"""By role, the splits that are taken from a data set of several of which none is named."""
VALIDATION_SPLITS = ("validation", "valid", "val", "dev", "eval")
"""Names of a split that is there to be evaluated on; the first that a data set has is its own."""


class Named(Protocol):
    """What a specification names as its data, see :class:`autolora.tasks.causal_lm.spec.DataSpec`."""

    @property
    def train(self) -> object: ...
    @property
    def eval(self) -> object: ...
    @property
    def test(self) -> object: ...
    @property
    def test_size(self) -> int | None: ...
    @property
    def name(self) -> str | None: ...


@dataclass(frozen=True, eq=False)
class Source:
    """Something that can be read as a table: its name, a hash of its content, and the reading itself."""

    name: str
    identity: str
    read: Callable[[], Table]

    @cached_property
    def table(self) -> Table:
        """What it reads, once."""
        return self.read()


def open_sources(spec: Named) -> dict[str, Source]:
    """Find all that ``spec`` names.

    Returns:
        Sources by role. "eval" is missing if evaluation rows are to be held out from the training rows, "test" if no
        test rows are named.

    Raises:
        DataError: as :func:`open_source`.
    """
    opener = _Opener(spec)
    found = {role: opener.open(role) for role in ROLES}
    if spec.test_size == 0:
        found["test"] = None
    return {role: source for role, source in found.items() if source is not None}


def open_source(role: str, spec: Named) -> Source | None:
    """Find what ``spec`` names for ``role``; None if that is nothing.

    Args:
        role: "train", "eval" or "test".
        spec: the data specification; a hub id may carry its split, as in ``"owner/name:train[:1000]"``, and ``eval``
            and ``test`` may be just a split name where ``train`` is a hub id, a directory or a ``DatasetDict``.

    Raises:
        DataError: nothing usable is there, or the hub cannot be reached.
    """
    return _Opener(spec).open(role)


def own_validation(spec: Named) -> str | None:
    """Name of the validation split that the training data set itself has, and that ``eval: auto`` takes.

    Raises:
        DataError: the data set cannot be loaded.
    """
    return _Opener(spec).own_validation()


class _Opener:
    """Opens what one specification names; a data set that several roles are splits of is loaded once."""

    def __init__(self, spec: Named) -> None:
        self._spec = spec
        self._loaded: dict[tuple[str, str | None], Dataset | DatasetDict] = {}

    def open(self, role: str) -> Source | None:
        value = getattr(self._spec, role)
        if role == "eval" and value == AUTO:
            split = self.own_validation()
            return None if split is None else self._open_split(split, role)
        if value is None:
            return None
        names = _names(value)
        return self._open_object(value, role, None) if names is None else self._open_named(names, role)

    def own_validation(self) -> str | None:
        """See :func:`own_validation`. A training split that is named stands alone."""
        names = _names(self._spec.train)
        splits: object = self._spec.train
        if names is not None:
            path = files.expanded(quickstart.resolve(names[0]))
            if len(names) > 1 or files_of(names[0]) or (":" in names[0] and not path.is_dir()):
                return None
            splits = self._load(names[0], None)
        if not isinstance(splits, Mapping):
            return None
        return next((split for split in VALIDATION_SPLITS if split in splits), None)

    def _open_named(self, names: Sequence[str], role: str) -> Source:
        found = [(name, files_of(name)) for name in names]
        for name, matches in found:
            if not matches and len(names) > 1:
                raise DataError(f"data.{role} is a list, of which {name!r} is not a file; a list holds files alone")
        (name, matches), *more = found
        if not matches:
            return self._open_collection(name, role)
        opened = [_open_file(file, role) for _, matches in found for file in matches]
        if len(opened) == 1:
            return opened[0]
        return _joined(f"{name} ({len(opened)} files)" if not more else f"{name} and {len(opened) - 1} more", opened)

    def _open_collection(self, name: str, role: str) -> Source:
        """A directory or a data set of the hub, or a split of what ``train`` names."""
        resolved = quickstart.resolve(name)
        if files.expanded(resolved).is_dir():
            return self._open_object(self._load(name, None), role, resolved)
        if role != "train" and re.fullmatch(r"\w+(\[[^\]]*\])?", resolved):
            return self._open_split(resolved, role)
        identifier, _, split = resolved.partition(":")
        return self._open_object(self._load(identifier, split or None), role, resolved)

    def _open_split(self, split: str, role: str) -> Source:
        """``split`` of the data set that ``train`` names."""
        names = _names(self._spec.train)
        if names is None:
            return self._open_object(_member(self._spec.train, split, role), role, None, split)
        if len(names) > 1 or files_of(names[0]):
            raise DataError(
                f"data.{role}: {split!r} is not a file; a split name goes with a hub id as data.train, which is a file "
                "here"
            )
        train = quickstart.resolve(names[0])
        if files.expanded(train).is_dir():
            return self._open_object(_member(self._load(train, None), split, role), role, f"{train}:{split}")
        identifier = train.partition(":")[0]
        whole = self._loaded.get((identifier, None))
        member = whole[split] if isinstance(whole, Mapping) and split in whole else self._load(identifier, split)
        return self._open_object(member, role, f"{identifier}:{split}")

    def _load(self, name: str, split: str | None) -> Dataset | DatasetDict:
        key = (name, split)
        if key not in self._loaded:
            path = files.expanded(quickstart.resolve(name))
            if path.is_dir():
                self._loaded[key] = hub.load_folder(path, name, self._spec.name)
            else:
                self._loaded[key] = hub.load_hub(name, self._spec.name, split)
        return self._loaded[key]

    def _open_object(self, value: object, role: str, name: str | None, split: str | None = None) -> Source:
        """A ``Dataset``, or the member of a ``DatasetDict`` that suits the role."""
        import datasets

        if isinstance(value, datasets.DatasetDict):
            found = [split for split in DEFAULT_SPLITS[role] if split in value]
            if not found and len(value) > 1:
                raise DataError(
                    f"data.{role}: name one of the splits {', '.join(value)}, as in {name or 'dataset'}:split"
                )
            chosen = found[0] if found else next(iter(value))
            return self._open_object(value[chosen], role, f"{name}:{chosen}" if name else None, chosen)
        if isinstance(value, (datasets.IterableDataset, datasets.IterableDatasetDict)):
            raise DataError(f"data.{role} is streamed; load it without streaming=True, so that its rows can be counted")
        if not isinstance(value, datasets.Dataset):
            raise DataError(f"data.{role} is {type(value).__name__} {show(value)}; give {_accepted()}")
        shown = name or (f"data.{role} (split {split!r})" if split else f"data.{role} (a Dataset)")
        return Source(shown, f"dataset:{value._fingerprint}", lambda: hub.table_of(value, shown))


def _names(value: object) -> list[str] | None:
    """The names of a path, a hub id or a list of them; None for anything else."""
    values = list(value) if isinstance(value, (list, tuple)) and value else [value]
    names = [os.fspath(each) for each in values if isinstance(each, (str, os.PathLike))]
    return names if len(names) == len(values) else None


def _open_file(file: LocalFile, role: str) -> Source:
    reader = reader_of(file)
    if reader is None:
        raise DataError(f"data.{role}: {file.name} has a suffix that cannot be read; give {_accepted()}")
    # the kind decides how the bytes are read
    return Source(file.name, f"{reader.suffix}:{file.digest()}", lambda: reader.read(file))


def _joined(name: str, sources: Sequence[Source]) -> Source:
    identities = "\n".join(source.identity for source in sources)
    identity = f"files:{hashlib.sha256(identities.encode()).hexdigest()}"
    return Source(name, identity, lambda: JoinedTable.join(name, [source.read() for source in sources]))


def _member(value: object, split: str, role: str) -> Dataset:
    """The split of a ``DatasetDict`` that was named."""
    if not isinstance(value, Mapping):
        raise DataError(f"data.{role}: {split!r} names a split, but data.train is a single {type(value).__name__}")
    if split not in value:
        raise DataError(f"data.{role}: there is no split {split!r}; the splits are {', '.join(value)}")
    return value[split]


def _accepted() -> str:
    *kinds, last = suffixes()
    return (
        f"a {', '.join(kinds)} or {last} file, as it is or compressed ({', '.join(COMPRESSIONS)}), a list or pattern "
        "of such files, a directory, a hub id, or a datasets.Dataset"
    )
