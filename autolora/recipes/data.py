"""Where the rows of a study come from and how they become text, for trainers that read them themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autolora import quickstart
from autolora.spec import DataSpec

ROWS = "rows.jsonl"
"""Stands for data that a trainer cannot be pointed at. There is no such file, so it stops and says so."""
DEFAULT_EVAL_SHARE = 0.1


@dataclass(frozen=True)
class Source:
    """One split.

    Attributes:
        path: absolute path of a local file or folder, or a hub id.
        kind: of the file ("json" covers .jsonl), "folder" or "hub".
        name: configuration of a hub data set.
        split: its split; files have the one "train".
    """

    path: str
    kind: Literal["json", "csv", "parquet", "folder", "hub"]
    name: str | None = None
    split: str = "train"


PLACEHOLDER = Source(ROWS, "json")


@dataclass(frozen=True)
class Data:
    """The rows of a study.

    Attributes:
        train, eval: where they are; ``eval`` is None where it is split off the training rows.
        eval_size: evaluation rows; below 1: their share.
        format: as in the specification, "auto" resolved.
        columns: those that are read; for "prompt_completion" the prompt's fields and then the completion.
        template: text of the prompt with ``{column}`` fields; None: the prompt column and a line break.
        notes: what the user has to do by hand.
    """

    train: Source
    eval: Source | None
    eval_size: float | None
    format: str
    columns: tuple[str, ...]
    template: str | None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> Data:
        """From the data section of a recorded specification; reads the rows where only they tell the format."""
        # unvalidated: settings can be handed over without the files
        spec = DataSpec.model_construct(**recorded)
        if not _is_named(spec.train) or (spec.eval is not None and not _is_named(spec.eval)):
            return by_hand("The study was given its rows in Python.", spec)
        layout = (spec.format, (spec.prompt, spec.completion)) if spec.prompt and spec.completion else _read(spec)
        if layout is None:
            return by_hand(f"The rows of {spec.train} cannot be read here.", spec)
        train = _source(spec.train, spec, "train")
        evaluated = None if spec.eval is None else _source(spec.eval, spec, "validation")
        form = "prompt_completion" if spec.prompt else layout[0]
        return cls(train, evaluated, _eval_size(spec), form, layout[1], spec.template)


def by_hand(reason: str, spec: DataSpec | None = None, of: Data | None = None) -> Data:
    """Data that the user has to write out first, because of ``reason``."""
    size = _eval_size(spec) if spec is not None else of.eval_size if of is not None else None
    note = f'{reason} Write them to {ROWS}: one {{"prompt": ..., "completion": ...}} a line, as text to train on.'
    return Data(
        PLACEHOLDER, None, size or DEFAULT_EVAL_SHARE, "prompt_completion", ("prompt", "completion"), None, (note,)
    )


def _is_named(value: Any) -> bool:
    return isinstance(value, str) and not value.startswith("<dataset")


def _eval_size(spec: DataSpec) -> float | None:
    """Rows to hold out, or to take of those given; None: all those given."""
    return spec.eval_size or (None if spec.eval is not None else DEFAULT_EVAL_SHARE)


def _read(spec: DataSpec) -> tuple[str, tuple[str, ...]] | None:
    """Format and columns by the rows themselves, or None where they cannot be read."""
    from autolora.training.data.errors import DataError
    from autolora.training.data.formats import layout_of
    from autolora.training.data.loading import open_source

    try:
        layout = layout_of(open_source("train", spec).read(), spec)
    except DataError:
        return None
    return layout.format, layout.columns


def _source(value: str, spec: DataSpec, default_split: str) -> Source:
    name = quickstart.resolve(value)
    path = Path(name).expanduser()
    kind = path.suffix.lower().removeprefix(".")
    if kind in ("jsonl", "json", "csv", "parquet"):
        return Source(_absolute(path), "json" if kind == "jsonl" else kind)  # type: ignore[arg-type]
    if path.is_dir():
        return Source(_absolute(path), "folder", spec.name, default_split)
    if default_split != "train" and re.fullmatch(r"\w+(\[[^\]]*\])?", name):  # a split of what train names
        train = _source(spec.train, spec, "train")
        return Source(train.path, train.kind, spec.name, name)
    identifier, _, split = name.partition(":")
    return Source(identifier, "hub", spec.name, split or default_split)


def _absolute(path: Path) -> str:
    return str(path.resolve()) if path.exists() else str(path)
