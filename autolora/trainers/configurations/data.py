"""Where the rows of a study come from and how they become text, for trainers that read them themselves."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autolora import files, quickstart
from autolora.files import Document
from autolora.tasks.causal_lm.conversations.rows import SYSTEM_COLUMNS
from autolora.tasks.causal_lm.conversations.tools import TOOL_COLUMNS
from autolora.tasks.causal_lm.examples import Chat
from autolora.tasks.causal_lm.spec import EVAL_MOST, EVAL_SHARE, DataSpec, default_eval_rows
from autolora.tasks.data.errors import DataError
from autolora.tasks.data.local import LocalFile
from autolora.tasks.data.readers import reader_of
from autolora.tasks.data.sources import AUTO, open_source, own_validation

if TYPE_CHECKING:
    from autolora.tasks.causal_lm.preparation import Reader

ROWS = "rows.jsonl"
"""Stands for data that a trainer cannot be pointed at. There is no such file, so it stops and says so."""
EVAL_UNKNOWN = 1 / EVAL_SHARE
"""Share of the rows to hold out where their number is not known."""
CAPPED = f"Of more than {EVAL_SHARE * EVAL_MOST:,} rows the study held out {EVAL_MOST} for evaluation: say so here too."

MARKED = (
    "Some turns of these rows are marked as not to be learned. The trainer learns them unless it is told of the marks, "
    "as with axolotl's message_field_training."
)
PROBED = 100
"""Rows in which marks are looked for."""


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


KINDS: dict[str, Literal["json", "csv", "parquet"]] = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
}
"""Files that every trainer reads, by suffix."""

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
    def of(cls, recorded: Document) -> Data:
        """From the data section of a recorded specification; reads the rows where only they tell the format."""
        # unvalidated: settings can be handed over without the files
        spec = DataSpec.model_construct(**recorded)
        if not _is_named(spec.train) or (spec.eval is not None and not _is_named(spec.eval)):
            return by_hand("The study was given its rows in Python.", spec)
        for value in (spec.train, spec.eval):
            if value is not None and not _is_read_by_all(value):
                return by_hand(f"The study read {value}, which not every trainer reads as one data set.", spec)
        spec, notes = _with_own_validation(spec)
        train = _source(spec.train, spec, "train")
        if spec.prompt and spec.completion:
            columns: tuple[str, ...] = (spec.prompt, spec.completion)
            # Rows of the hub are not fetched just to be counted.
            rows = _read(spec) if spec.eval is None and train.kind != "hub" else None
        else:
            rows = _read(spec)
            if rows is None:
                return by_hand(f"The rows of {spec.train} cannot be read here.", spec)
            columns = rows.columns
        size = _eval_size(spec, rows.count if rows else None)
        by_rows = {CAPPED: rows is None and size == EVAL_UNKNOWN, MARKED: rows is not None and rows.marked}
        return cls(
            train=train,
            eval=None if spec.eval is None else _source(spec.eval, spec, "validation"),
            eval_size=size,
            format="prompt_completion" if spec.prompt or rows is None else rows.format,
            columns=columns,
            template=spec.template,
            notes=(*notes, *(note for note, holds in by_rows.items() if holds)),
        )

    def in_folder(self, out: Path) -> Data:
        """These rows; those that the user has to write out, in this folder."""
        return replace(self, train=Source(str(out.absolute() / ROWS), "json")) if self.train == PLACEHOLDER else self

    def known_to(self, tool: str, formats: Collection[str]) -> Data:
        """These rows, or if the recipe for a trainer does not know their format, rows that the user has to write out.

        Args:
            tool: the trainer.
            formats: that its recipe knows.
        """
        if self.format in formats:
            return self
        known = ", ".join(formats)
        reason = (
            f"The recipe for {tool} knows the data formats {known}, and does not know {self.format!r} of these rows."
        )
        return by_hand(reason, of=self)

    def beside(self, system: str, tools: str) -> dict[str, str]:
        """The columns beside a conversation for its system message and its tools, by a trainer's names of both."""
        known = {system: SYSTEM_COLUMNS, tools: TOOL_COLUMNS}
        found = {name: [column for column in self.columns if column in those] for name, those in known.items()}
        return {name: columns[0] for name, columns in found.items() if columns}

    def plain_alpaca(self, tool: str) -> Data:
        """These rows, or rows to be written out if the recipe of a trainer has no text for some of Alpaca's columns."""
        more = [column for column in ("system", "history") if self.format == "alpaca" and column in self.columns]
        if not more:
            return self
        return by_hand(f"The recipe for {tool} has no text for Alpaca's columns {' and '.join(more)}.", of=self)


def by_hand(reason: str, spec: DataSpec | None = None, of: Data | None = None) -> Data:
    """Data that the user has to write out first, because of ``reason``."""
    size = _eval_size(spec) if spec is not None else of.eval_size if of is not None else None
    row = '{"prompt": ..., "completion": ...}'
    note = f"{reason} Write them to {ROWS} in this folder: one {row} a line, as text to train on."
    return Data(
        train=PLACEHOLDER,
        eval=None,
        eval_size=size or EVAL_UNKNOWN,
        format="prompt_completion",
        columns=("prompt", "completion"),
        template=None,
        notes=(note,),
    )


def _is_named(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and not value.startswith("<dataset"))


def _is_read_by_all(value: object) -> bool:
    """Whether every trainer can be pointed at it: not a list, a pattern, a compressed file, or one of a rare kind."""
    if not isinstance(value, str):
        return False
    path = files.expanded(quickstart.resolve(value))
    if any(sign in value for sign in "*?") and not path.exists():
        return False
    file = LocalFile(path, value)
    return reader_of(file) is None or (file.suffix in KINDS and not file.compression)


def _with_own_validation(spec: DataSpec) -> tuple[DataSpec, tuple[str, ...]]:
    """The specification with "auto" evaluation rows named, and what the user has to look at."""
    if spec.eval != AUTO:
        return spec, ()
    try:
        split = own_validation(spec)
        found = None if split is None else open_source("eval", spec)
    except DataError:
        if _source(spec.train, spec, "train").kind in KINDS.values():
            return spec.model_copy(update={"eval": None}), ()
        note = f"If {spec.train} has a validation split, the study used that for evaluation: say so here too."
        return spec.model_copy(update={"eval": None}), (note,)
    if found is None:
        return spec.model_copy(update={"eval": None}), ()
    rows = spec.eval_size or min(EVAL_MOST, len(found.table))
    return spec.model_copy(update={"eval": split, "eval_size": rows}), ()


def _eval_size(spec: DataSpec, rows: int | None = None) -> float | None:
    """Rows to hold out, or to take of those given. Below 1: their share. None: all those given."""
    if spec.eval_size or spec.eval is not None:
        return spec.eval_size
    held_out = default_eval_rows(rows) if rows is not None else 0
    return held_out if held_out > 1 else EVAL_UNKNOWN  # trainers take 1 for all rows


@dataclass(frozen=True)
class _Rows:
    """What the training rows themselves tell.

    Attributes:
        format, columns: as in :class:`Data`.
        count: rows of different content; None if it is not needed, or some row is damaged.
        marked: whether some of the assistant's turns in conversations are marked as not to be learned.
    """

    format: str
    columns: tuple[str, ...]
    count: int | None
    marked: bool


def _read(spec: DataSpec) -> _Rows | None:
    """Read the training rows; None if they cannot be read."""
    from autolora.tasks.causal_lm.preparation import Reader

    try:
        reader = Reader.of("train", spec)
    except DataError:
        return None
    count = None
    if spec.eval is None and not spec.eval_size:
        with suppress(DataError):
            count = len(set(reader.keys))
    return _Rows(reader.layout.format, reader.layout.columns, count, _is_marked(reader))


def _is_marked(reader: Reader) -> bool:
    if reader.layout.format not in ("messages", "sharegpt"):
        return False  # the columns say what is learned
    with suppress(DataError):
        examples, _ = reader.examples(range(min(len(reader), PROBED)))
        return any(isinstance(example, Chat) and example.unlearned for example in examples)
    return False


def _source(value: str, spec: DataSpec, default_split: str) -> Source:
    name = quickstart.resolve(value)
    path = files.expanded(name)
    kind = KINDS.get(path.suffix.lower())
    if kind is not None:
        return Source(_absolute(path), kind)
    if path.is_dir():
        return Source(_absolute(path), "folder", spec.name, default_split)
    if default_split != "train" and re.fullmatch(r"\w+(\[[^\]]*\])?", name):  # a split of what train names
        train = _source(spec.train, spec, "train")
        return Source(train.path, train.kind, spec.name, name)
    identifier, _, split = name.partition(":")
    return Source(identifier, "hub", spec.name, split or default_split)


def _absolute(path: Path) -> str:
    return str(path.resolve()) if path.exists() else str(path)
