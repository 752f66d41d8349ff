"""Plain text: all of it is learned."""

from __future__ import annotations

from autolora.tasks.causal_lm.examples import Pair
from autolora.tasks.causal_lm.formats.format import Format, Keys, Layout, register
from autolora.tasks.data import cells
from autolora.tasks.data.table import Table

NAME = "text"


def _read(table: Table, keys: Keys) -> Layout:
    column = keys.completion or "text"
    cells.require(table, (column,), "format: text reads the column text, or the one named by data.completion")
    return Layout(NAME, column, (column,), lambda row, where: Pair("", cells.text(row, column, where)))


register(
    Format(
        NAME,
        _read,
        fits=lambda table: "text" in table.columns,
        precedence=60,
        makes=Pair,
        keys=frozenset({"completion"}),
    )
)
