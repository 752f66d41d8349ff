"""Conversations as lists of messages with role and content, rendered by the tokenizer's chat template."""

from __future__ import annotations

from autolora.tasks.causal_lm.conversations import CHAT_COLUMNS, conversation
from autolora.tasks.causal_lm.examples import Chat
from autolora.tasks.causal_lm.formats.format import Format, Keys, Layout, register
from autolora.tasks.data.table import Table

NAME = "messages"


def _read(table: Table, keys: Keys) -> Layout:
    column, example = conversation(table, NAME, ("role", "content"), {})
    return Layout(NAME, f"{column} with role/content", (column,), example)


register(
    Format(
        NAME,
        _read,
        fits=lambda table: any(column in table.columns for column in CHAT_COLUMNS),
        precedence=30,
        makes=Chat,
    )
)
