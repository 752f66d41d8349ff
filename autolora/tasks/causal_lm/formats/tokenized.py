"""Rows that are token ids already."""

from __future__ import annotations

import numpy as np

from autolora.losses import IGNORED
from autolora.tasks.causal_lm.examples import Tokens
from autolora.tasks.causal_lm.formats.format import Format, Keys, Layout, register
from autolora.tasks.data.cells import integers, require
from autolora.tasks.data.errors import DataError
from autolora.tasks.data.table import Row, Table

NAME = "tokenized"


def _read(table: Table, keys: Keys) -> Layout:
    require(table, ("input_ids",), "format: tokenized needs input_ids (and maybe labels, attention_mask)")
    columns = tuple(column for column in ("input_ids", "labels", "attention_mask") if column in table.columns)
    return Layout(NAME, ", ".join(columns), columns, _example)


def _example(row: Row, where: str) -> Tokens:
    ids = integers(row, "input_ids", where)
    labels = ids if row.get("labels") is None else integers(row, "labels", where)
    attended = np.ones_like(ids) if row.get("attention_mask") is None else integers(row, "attention_mask", where)
    if not len(ids) == len(labels) == len(attended):
        raise DataError(
            f"{where}: input_ids, labels and attention_mask must have one length, not "
            f"{len(ids)}, {len(labels)} and {len(attended)}"
        )
    targets = labels != IGNORED
    if (labels[targets] != ids[targets]).any():
        raise DataError(
            f"{where}: labels must equal input_ids or be {IGNORED}; they are not shifted here, the model does that"
        )
    real = attended != 0
    return Tokens(ids[real].astype(np.int32), targets[real])


register(Format(NAME, _read, fits=lambda table: "input_ids" in table.columns, precedence=10, makes=Tokens))
