"""ShareGPT's conversations: turns with from and value, whose roles have names of their own."""

from __future__ import annotations

from autolora.tasks.causal_lm.conversations.rows import chat_column, columns_beside, conversation, first_turn
from autolora.tasks.causal_lm.examples import Chat
from autolora.tasks.causal_lm.formats.format import Format, Keys, Layout, register
from autolora.tasks.data.table import Table

NAME = "sharegpt"


def _read(table: Table, keys: Keys) -> Layout:
    column, example = conversation(table, NAME)
    beside = columns_beside(table)
    return Layout(NAME, ", ".join((f"{column} with from/value", *beside)), (column, *beside), example)


def _fits(table: Table) -> bool:
    """Whether the first turn of the table says who it is from."""
    column = chat_column(table)
    turn = first_turn(table, [column], json_text=True) if column is not None else None
    return turn is not None and turn.get("from") is not None


register(Format(NAME, _read, fits=_fits, precedence=20, makes=Chat))
