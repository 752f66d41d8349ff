"""Data sets of the ``datasets`` library: objects, directories and the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autolora.errors import first_line
from autolora.tasks.data.errors import DataError
from autolora.tasks.data.table import Row, Table

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def table_of(dataset: Dataset, name: str) -> Table:
    """The rows of a data set, fetched when they are needed."""
    plain = dataset.with_format(None)

    def fetch(indices: Sequence[int], columns: Sequence[str]) -> list[Row]:
        if not indices:
            return []
        batch = plain.select_columns(list(columns))[list(indices)]
        return [dict(zip(batch, cells, strict=True)) for cells in zip(*batch.values(), strict=True)]

    return Table(name, list(plain.column_names), range(1, len(plain) + 1), fetch)


def load_folder(path: Path, name: str, config: str | None) -> Dataset | DatasetDict:
    """A directory of data files, or one written by ``save_to_disk``; raises DataError if it cannot be read."""
    import datasets

    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return datasets.load_from_disk(str(path))
        return datasets.load_dataset(str(path), config)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{name} cannot be read as a data set directory: {first_line(error)}") from None


def load_hub(identifier: str, config: str | None, split: str | None) -> Dataset | DatasetDict:
    """A data set of the hub, or of its cache on this machine; raises DataError if it cannot be loaded."""
    import datasets

    tried = "datasets.load_dataset(" + ", ".join(repr(part) for part in (identifier, config, split) if part) + ")"
    try:
        return datasets.load_dataset(identifier, config, split=split)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(
            f"there is no data set {identifier!r}, neither locally nor on the hub ({tried}: {first_line(error)}); "
            "check the name, or log in with `hf auth login` if it is private or gated"
        ) from None
    except ConnectionError as error:
        raise DataError(
            f"the hub cannot be reached, and {identifier!r} is not a local path ({tried}: {first_line(error)}); give "
            "the path of a local file, or set HF_HOME to a cache that holds the data set, with HF_HUB_OFFLINE=1"
        ) from None
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{identifier!r} cannot be loaded ({tried}: {first_line(error)}); check the configuration (data.name) and "
            "the split (owner/name:split)"
        ) from None
