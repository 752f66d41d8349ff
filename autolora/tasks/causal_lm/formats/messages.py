"""Conversations as lists of messages with role and content, rendered by the tokenizer's chat template."""

from __future__ import annotations

from autolora.tasks.causal_lm.conversations.rows import chat_column, columns_beside, conversation
from autolora.tasks.causal_lm.examples import Chat
from autolora.tasks.causal_lm.formats.format import Format, Keys, Layout, register
from autolora.tasks.data.table import Table

NAME = "messages"


def _read(table: Table, keys: Keys) -> Layout:
    column, example = conversation(table, NAME)
    beside = columns_beside(table)
    return Layout(NAME, ", ".join((f"{column} with role/content", *beside)), (column, *beside), example)


register(Format(NAME, _read, fits=lambda table: chat_column(table) is not None, precedence=30, makes=Chat))
