"""Open what the user names: a local file, a directory, a hub id, or a ``datasets`` object.

Opening (:func:`open_source`) gives an identity of the content without parsing it, so that a cached result is found
before any row is read; reading gives a :class:`~autolora.tasks.data.table.Table`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from autolora import quickstart
from autolora.tasks.data.errors import DataError, show
from autolora.tasks.data.table import Row, Table

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset, DatasetDict

ACCEPTED = "a .jsonl, .json, .csv or .parquet file, a directory, a hub id, or a datasets.Dataset"


class Named(Protocol):
    """What a specification names as its data, see :class:`autolora.tasks.causal_lm.spec.DataSpec`."""

    @property
    def train(self) -> object: ...
    @property
    def eval(self) -> object: ...
    @property
    def test(self) -> object: ...
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


def open_source(role: str, spec: Named) -> Source:
    """Find what ``spec`` names for ``role``.

    Args:
        role: "train", "eval" or "test".
        spec: the data specification; a hub id may carry its split, as in ``"owner/name:train[:1000]"``, and ``eval``
            and ``test`` may be just a split name where ``train`` is a hub id, a directory or a ``DatasetDict``.

    Raises:
        DataError: nothing usable is there, or the hub cannot be reached.
    """
    value = getattr(spec, role)
    if isinstance(value, (str, os.PathLike)):
        return _open_named(quickstart.resolve(os.fspath(value)), role, spec)
    return _open_object(value, role, None)


def _open_named(name: str, role: str, spec: Named) -> Source:
    path = Path(name).expanduser()
    if path.suffix.lower() in READERS:
        return _open_file(path, name)
    if path.is_file():
        raise DataError(f"data.{role}: {name} has a suffix that cannot be read; give {ACCEPTED}")
    if path.is_dir():
        return _open_object(_load_folder(path, name, spec.name), role, name)
    if role != "train" and re.fullmatch(r"\w+(\[[^\]]*\])?", name):
        return _open_split(name, role, spec)
    identifier, _, split = name.partition(":")
    return _open_object(_load_hub(identifier, spec.name, split or None), role, name)


def _open_split(split: str, role: str, spec: Named) -> Source:
    """``split`` of the data set that ``spec.train`` names."""
    if not isinstance(spec.train, (str, os.PathLike)):
        return _open_object(_member(spec.train, split, role), role, None)
    train = quickstart.resolve(os.fspath(spec.train))
    path = Path(train).expanduser()
    if path.suffix.lower() in READERS:
        raise DataError(
            f"data.{role}: {split!r} is no file; a split name goes with a hub id as data.train, which is a file here"
        )
    name = f"{train.partition(':')[0]}:{split}"
    if path.is_dir():
        return _open_object(_member(_load_folder(path, train, spec.name), split, role), role, name)
    return _open_object(_load_hub(train.partition(":")[0], spec.name, split), role, name)


# --- local files ---


def _open_file(path: Path, name: str) -> Source:
    if not path.is_file():
        raise DataError(f"no such file: {name}")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    # the suffix decides how the bytes are read
    return Source(name, f"{path.suffix.lower()}:{digest.hexdigest()}", lambda: READERS[path.suffix.lower()](path, name))


def _read_jsonl(path: Path, name: str) -> Table:
    rows, numbers = [], []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                text = line.decode(errors="replace").strip()
                raise DataError(
                    f"{name}, row {number} is not JSON ({error}): {show(text)}; write one object a line"
                ) from None
            rows.append(row)
            numbers.append(number)
    return Table.of(name, rows, numbers)


def _read_json(path: Path, name: str) -> Table:
    content = path.read_bytes()
    try:
        parsed = json.loads(content)
    except ValueError as error:
        if _first_line_is_an_object(content):  # JSON lines under the name .json, as many hub data sets have it
            return _read_jsonl(path, name)
        raise DataError(f"{name} is not JSON: {error}") from None
    if isinstance(parsed, dict):
        if not isinstance(parsed.get("data"), list):
            raise DataError(f'{name} must hold a list of rows or {{"data": [...]}}; it has the keys {list(parsed)}')
        parsed = parsed["data"]
    if not isinstance(parsed, list):
        raise DataError(f'{name} must hold a list of rows or {{"data": [...]}}, not {show(parsed)}')
    return Table.of(name, parsed, range(1, len(parsed) + 1))


def _first_line_is_an_object(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content.lstrip().split(b"\n", 1)[0]), dict)
    except ValueError:
        return False


def _read_csv(path: Path, name: str) -> Table:
    from pyarrow import ArrowInvalid, large_string
    from pyarrow import csv as arrow_csv

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), [])
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text ({error}); save it as UTF-8") from None
    if not header:
        raise DataError(f"{name} holds no rows")
    try:
        table = arrow_csv.read_csv(
            path,
            # one block, because a quoted text may be longer than the default block; in order, for row numbers
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=min(path.stat().st_size + 1, 2**31 - 1)),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            # every cell is text: "007" and "1.0" are answers here, not numbers
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(header, large_string())),
        )
    except ArrowInvalid as error:
        raise DataError(f"{name} is not valid CSV: {error} (the header is row 1)") from None
    return _from_arrow(name, table)


def _read_parquet(path: Path, name: str) -> Table:
    from pyarrow import ArrowException, parquet

    try:
        return _from_arrow(name, parquet.read_table(path))
    except (ArrowException, OSError) as error:
        raise DataError(f"{name} cannot be read as Parquet: {error}") from None


READERS: dict[str, Callable[[Path, str], Table]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _from_arrow(name: str, table: pyarrow.Table) -> Table:
    if len(set(table.column_names)) < len(table.column_names):
        raise DataError(f"{name} names a column twice: {table.column_names}")

    def fetch(indices: Sequence[int], columns: Sequence[str]) -> list[Row]:
        return table.select(list(columns)).take(list(indices)).to_pylist() if indices else []

    return Table(name, list(table.column_names), range(1, len(table) + 1), fetch)


# --- datasets objects, directories and the hub ---

# where a data set has several splits and none is named
DEFAULT_SPLITS = {"train": ("train",), "eval": ("validation", "test"), "test": ("test",)}


def _open_object(value: object, role: str, name: str | None) -> Source:
    """A ``Dataset``, or the member of a ``DatasetDict`` that suits the role."""
    import datasets

    if isinstance(value, datasets.DatasetDict):
        found = [split for split in DEFAULT_SPLITS[role] if split in value]
        if not found and len(value) > 1:
            raise DataError(f"data.{role}: name one of the splits {', '.join(value)}, as in {name or 'dataset'}:split")
        split = found[0] if found else next(iter(value))
        return _open_object(value[split], role, f"{name}:{split}" if name else None)
    if isinstance(value, (datasets.IterableDataset, datasets.IterableDatasetDict)):
        raise DataError(f"data.{role} is streamed; load it without streaming=True, so that its rows can be counted")
    if not isinstance(value, datasets.Dataset):
        raise DataError(f"data.{role} is {type(value).__name__} {show(value)}; give {ACCEPTED}")
    dataset = value.with_format(None)

    def fetch(indices: Sequence[int], columns: Sequence[str]) -> list[Row]:
        if not indices:
            return []
        batch = dataset.select_columns(list(columns))[list(indices)]
        return [dict(zip(batch, cells, strict=True)) for cells in zip(*batch.values(), strict=True)]

    name = name or f"data.{role} (a Dataset)"
    table = Table(name, list(dataset.column_names), range(1, len(dataset) + 1), fetch)
    return Source(name, f"dataset:{value._fingerprint}", lambda: table)


def _member(value: object, split: str, role: str) -> Dataset:
    """The split of a ``DatasetDict`` that was named."""
    if not isinstance(value, Mapping):
        raise DataError(f"data.{role}: {split!r} names a split, but data.train is a single {type(value).__name__}")
    if split not in value:
        raise DataError(f"data.{role}: there is no split {split!r}; the splits are {', '.join(value)}")
    return value[split]


def _load_folder(path: Path, name: str, config: str | None) -> Dataset | DatasetDict:
    """A directory of data files, or one written by ``save_to_disk``."""
    import datasets

    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return datasets.load_from_disk(str(path))
        return datasets.load_dataset(str(path), config)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{name} cannot be read as a data set directory: {_first_line(error)}") from None


def _load_hub(identifier: str, config: str | None, split: str | None) -> Dataset | DatasetDict:
    import datasets

    tried = "datasets.load_dataset(" + ", ".join(repr(part) for part in (identifier, config, split) if part) + ")"
    try:
        return datasets.load_dataset(identifier, config, split=split)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(
            f"there is no data set {identifier!r}, neither locally nor on the hub ({tried}: {_first_line(error)}); "
            "check the name, or log in with `hf auth login` if it is private or gated"
        ) from None
    except ConnectionError as error:
        raise DataError(
            f"the hub cannot be reached, and {identifier!r} is no local path ({tried}: {_first_line(error)}); give the "
            "path of a local file, or set HF_HOME to a cache that holds the data set, with HF_HUB_OFFLINE=1"
        ) from None
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{identifier!r} cannot be loaded ({tried}: {_first_line(error)}); check the configuration (data.name) and "
            "the split (owner/name:split)"
        ) from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
