"""Preference pairs, of which the chosen answer is learned and the rejected one is not looked at."""

from __future__ import annotations

from autolora.tasks.causal_lm.conversations.rows import first_turn
from autolora.tasks.causal_lm.examples import Pair
from autolora.tasks.causal_lm.formats import conversational_preference
from autolora.tasks.causal_lm.formats.format import Format, Keys, Layout, register
from autolora.tasks.data.cells import require, text
from autolora.tasks.data.table import Row, Table

NAME = "preference"
COLUMNS = ("prompt", "chosen", "rejected")


def _read(table: Table, keys: Keys) -> Layout:
    require(table, COLUMNS, "format: preference needs prompt, chosen and rejected")
    if first_turn(table, ("prompt", "chosen")) is not None:
        return conversational_preference.layout(table)
    return Layout(NAME, "prompt -> chosen (rejected is not learned)", COLUMNS, _example)


def _example(row: Row, where: str) -> Pair:
    return Pair(text(row, "prompt", where) + "\n", text(row, "chosen", where))


register(Format(NAME, _read, fits=lambda table: set(COLUMNS) <= set(table.columns), precedence=70, makes=Pair))
