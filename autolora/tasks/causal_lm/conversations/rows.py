"""Conversations in cells, and the columns beside them that belong to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autolora.tasks.causal_lm.conversations.tools import TOOL_COLUMNS, tools_of
from autolora.tasks.causal_lm.conversations.turns import Turn, joined, turn_of
from autolora.tasks.causal_lm.examples import ALL_UNLEARNED, NO_TURN, Chat, Skipped, text_of
from autolora.tasks.data.cells import its_columns, present, text
from autolora.tasks.data.errors import DataError, show
from autolora.tasks.data.nested import nested
from autolora.tasks.data.table import Row, Table

CHAT_COLUMNS = ("messages", "conversations")
SYSTEM_COLUMNS = ("system", "system_prompt")
"""Columns beside a conversation that hold its system message."""
PROBED = 100
"""Rows that are looked at to tell how a table writes its conversations."""


def conversation(table: Table, format: str) -> tuple[str, Callable[[Row, str], Chat | Skipped]]:
    """The column of a table that holds conversations, and the function from a row to its example.

    Args:
        table: one of CHAT_COLUMNS is looked for in it.
        format: name, for errors.

    Raises:
        DataError: the table has no such column; from the function, a row is not a conversation.
    """
    column = chat_column(table)
    if column is None:
        raise DataError(f"{table.name}: format {format} needs a column messages or conversations; {its_columns(table)}")
    return column, lambda row, where: chat(row, turns_of(row, column, where), where)


def chat_column(table: Table) -> str | None:
    """The first of CHAT_COLUMNS that the table has; None if none."""
    return next((column for column in CHAT_COLUMNS if column in table.columns), None)


def columns_beside(table: Table) -> tuple[str, ...]:
    """The table's columns that belong to a conversation in another column."""
    return tuple(column for column in (*SYSTEM_COLUMNS, *TOOL_COLUMNS) if column in table.columns)


def first_turn(table: Table, columns: Sequence[str], *, json_text: bool = False) -> Mapping[str, Any] | None:
    """The first turn of the conversations in some columns, to tell how a table writes them.

    Args:
        table: its first PROBED rows are looked at.
        columns: of the table.
        json_text: whether a conversation may be JSON text; otherwise text is not a conversation.

    Returns:
        None if no conversation is found.
    """
    for row in table.fetch(range(min(len(table), PROBED)), columns):
        for cell in map(row.get, columns):
            match _json_or_none(cell) if json_text and isinstance(cell, str) else cell:
                case [{} as turn, *_]:
                    return turn
    return None


def _json_or_none(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None  # reading the row says so


def turns_of(row: Row, column: str, where: str, *, speaker: str | None = None) -> list[Turn]:
    """The turns of a conversation in a cell.

    Args:
        row: of a table that has the column.
        column: it holds a list of messages, or JSON text of one.
        where: file and row, for errors.
        speaker: the role of a cell that is plain text; None: text is JSON.

    Raises:
        DataError: the cell is not a list of messages, or one of them cannot be read.
    """
    value = present(row, column, where)
    if speaker is not None and isinstance(value, str):
        return [Turn({"role": speaker, "content": value}, speaker == "assistant")]
    place = f"{where}, column {column!r}"
    turns = nested(value, place)
    if not isinstance(turns, list):
        raise DataError(f"{place} must be a list of turns, not {show(turns)}")
    return joined([turn_of(turn, f"{where}, {column}[{i}]") for i, turn in enumerate(turns)])


def chat(row: Row, turns: Sequence[Turn], where: str) -> Chat | Skipped:
    """The example of a conversation and the columns beside it.

    What follows the last turn that is learned is left out: it is neither learned nor conditions anything.

    Args:
        row: may have the columns of :func:`columns_beside`.
        turns: of the conversation.
        where: file and row, for errors.

    Raises:
        DataError: a column beside the conversation cannot be read, or gives another system message than the turns.
    """
    turns = _with_system(row, turns, where)
    tools = tools_of(row, where)
    end = max((i + 1 for i, turn in enumerate(turns) if turn.learned), default=0)
    if end == 0:
        said = any(turn.message["role"] == "assistant" for turn in turns)
        return Skipped(ALL_UNLEARNED if said else NO_TURN)
    messages = [turn.message for turn in turns[:end]]
    spoken = {i for i, message in enumerate(messages) if message["role"] == "assistant"}
    return Chat(messages, tools, frozenset(i for i in spoken if not turns[i].learned))


def completed(row: Row, prompt: Sequence[Turn], completion: Sequence[Turn], where: str) -> Chat | Skipped:
    """The example of a conversation of which only the assistant's turns in ``completion`` are learned; see chat()."""
    if not any(turn.message["role"] == "assistant" for turn in completion):
        return Skipped("no assistant turn in the completion")
    return chat(row, [*(replace(turn, learned=False) for turn in prompt), *completion], where)


def _with_system(row: Row, turns: Sequence[Turn], where: str) -> list[Turn]:
    """The turns, with the system message of a column in front of them unless they begin with the same one."""
    filled = [column for column in SYSTEM_COLUMNS if row.get(column) is not None]
    systems = {f"column {column!r}": text(row, column, where) for column in filled}
    systems = {source: system for source, system in systems.items() if system.strip()}
    added = [Turn({"role": "system", "content": system}, False) for system in list(systems.values())[:1]]
    if turns and turns[0].message["role"] in ("system", "developer"):
        systems["the first message"] = text_of(turns[0].message["content"])
        added = []
    if len({system.strip() for system in systems.values()}) > 1:
        different = " and ".join(f"{show(system)} in {source}" for source, system in systems.items())
        raise DataError(f"{where} has different system messages, {different}; keep one of them")
    return [*added, *turns]
