"""ShareGPT's conversations: turns with from and value, whose roles have names of their own."""

from __future__ import annotations

from autolora.tasks.causal_lm.conversations import CHAT_COLUMNS, conversation
from autolora.tasks.causal_lm.examples import Chat
from autolora.tasks.causal_lm.formats.format import Format, Keys, Layout, register
from autolora.tasks.data.table import Table

NAME = "sharegpt"
ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
}


def _read(table: Table, keys: Keys) -> Layout:
    column, example = conversation(table, NAME, ("from", "value"), ROLES)
    return Layout(NAME, f"{column} with from/value", (column,), example)


def _fits(table: Table) -> bool:
    """Whether the first row's first turn says who it is from."""
    column = next((column for column in CHAT_COLUMNS if column in table.columns), None)
    if column is None:
        return False
    turns = table.fetch([0], [column])[0].get(column)
    return isinstance(turns, list) and bool(turns) and isinstance(turns[0], dict) and "from" in turns[0]


register(Format(NAME, _read, fits=_fits, precedence=20, makes=Chat))
