"""The ``data`` section of a specification."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from autolora.errors import closest
from autolora.sections import Section, required
from autolora.tasks.causal_lm.formats.format import AUTO, registry
from autolora.tasks.data.names import files_of, located
from autolora.tasks.data.sources import ROLES

EVAL_SHARE, EVAL_MOST = 10, 512
"""By default one row in EVAL_SHARE is held out for evaluation, and at most EVAL_MOST rows."""


class DataSpec(Section):
    """Where the examples come from and how a row becomes text.

    Args:
        train: path of a .jsonl, .json, .csv, .tsv, .parquet or .txt file, compressed or not; a list or pattern of such
            files; a directory, a hub id, or a ``datasets.Dataset``.
        eval: same, for the rows that steer the search. "auto": the validation split that a directory, a hub id or a
            ``DatasetDict`` in ``train`` has of its own, at most 512 rows of it unless ``eval_size`` says more; without
            one as None, which holds out rows of ``train``.
        test: same, for the rows scored once at the end; none where neither this nor ``test_size`` is given.
        format: name of a format, see :mod:`autolora.tasks.causal_lm.formats`; "auto": the one that the columns show.
        prompt, completion: the two columns to use, for a prompt/completion table with other column names.
        template: text of the prompt with ``{column}`` fields, for instance ``"Q: {question}\\nA: "``.
        name: configuration name of a hub data set.
        eval_size: number of evaluation rows; None: all of an ``eval`` that is named, or a tenth of ``train``, at most
            512.
        test_size: number of test rows; 0 with no ``test``: no test split.
    """

    train: Any
    eval: Any = AUTO
    test: Any = None
    format: str = AUTO
    prompt: str | None = None
    completion: str | None = None
    template: str | None = None
    name: str | None = None
    eval_size: int | None = Field(default=None, ge=1)
    test_size: int | None = Field(default=None, ge=0)

    @field_validator("train")
    @classmethod
    def _there_is_data(cls, value: object) -> object:
        return required(value)

    @field_validator(*ROLES)
    @classmethod
    def _located(cls, value: object) -> object:
        if isinstance(value, (list, tuple)):
            if not value:
                raise ValueError("the list is empty; name a file")
            return [cls._located(each) for each in value]
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, str):
            files_of(value)
            return located(value)
        return value

    @field_validator("format")
    @classmethod
    def _format_is_registered(cls, value: str) -> str:
        names = [AUTO, *registry()]
        if value not in names:
            close = closest(value, names)
            hint = f"did you mean {close!r}? " if close else ""
            raise ValueError(f"{value!r} is unknown; {hint}use one of {', '.join(map(repr, names))}")
        return value

    @model_validator(mode="after")
    def _columns_come_together(self) -> DataSpec:
        if self.completion is None and self.prompt is not None:
            raise ValueError("prompt is given without completion: name both columns")
        if self.prompt is not None and self.template is not None:
            raise ValueError("prompt and template both say how the prompt is made: give one")
        return self


def located_data(recorded: Mapping[str, object]) -> dict[str, object]:
    """A recorded ``data`` section with absolute paths, which earlier versions recorded as they were given."""

    def found(value: object) -> object:
        if isinstance(value, list):
            return [found(each) for each in value]
        return located(value) if isinstance(value, str) and value != AUTO else value

    return {key: found(value) if key in ROLES else value for key, value in recorded.items()}


def default_eval_rows(rows: int) -> int:
    """Number of rows that are split off ``rows`` training rows for evaluation: a tenth, at least 1 and at most 512."""
    return min(EVAL_MOST, max(1, rows // EVAL_SHARE))
