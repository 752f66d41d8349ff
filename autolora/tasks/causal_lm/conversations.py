"""Conversations in a column: lists of turns, whose keys and roles differ from format to format."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autolora.tasks.causal_lm.examples import Chat, Message
from autolora.tasks.data.cells import its_columns, present
from autolora.tasks.data.errors import DataError, show
from autolora.tasks.data.table import Row, Table

CHAT_COLUMNS = ("messages", "conversations")


def conversation(
    table: Table, format: str, keys: tuple[str, str], roles: Mapping[str, str]
) -> tuple[str, Callable[[Row, str], Chat]]:
    """The column of a table that holds conversations, and the function from a row to its example.

    Args:
        table: one of CHAT_COLUMNS is looked for in it.
        format: name, for errors.
        keys: of a turn: who speaks, and what is said.
        roles: the template's names by the table's; empty: they are the same.

    Raises:
        DataError: the table has no such column; from the function, a row is not a conversation.
    """
    column = next((column for column in CHAT_COLUMNS if column in table.columns), None)
    if column is None:
        raise DataError(f"{table.name}: format {format} needs a column messages or conversations; {its_columns(table)}")

    def example(row: Row, where: str) -> Chat:
        turns = present(row, column, where)
        if not isinstance(turns, list):
            raise DataError(f"{where}, column {column!r} must be a list of turns, not {show(turns)}")
        messages = [_message(turn, keys, roles, f"{where}, {column}[{i}]") for i, turn in enumerate(turns)]
        last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
        # what follows the last answer is neither learned nor conditions anything
        return Chat(messages[: last + 1])

    return column, example


def _message(turn: object, keys: tuple[str, str], roles: Mapping[str, str], where: str) -> Message:
    if not isinstance(turn, dict) or not all(key in turn for key in keys):
        raise DataError(f"{where} must be an object with {keys[0]!r} and {keys[1]!r}, not {show(turn)}")
    role, content = turn[keys[0]], turn[keys[1]]
    if not isinstance(role, str) or (roles and role not in roles):
        raise DataError(f"{where}: unknown {keys[0]} {show(role)}; use {', '.join(roles) or 'user, assistant, system'}")
    if not isinstance(content, str) and not (content is None and turn.get("tool_calls")):
        raise DataError(f"{where}: {keys[1]!r} must be text, not {show(content)}")
    # Arrow tables fill the keys that a turn lacks with None, and templates would print it
    others = {key: value for key, value in turn.items() if key not in keys and value is not None}
    return {**others, "role": roles.get(role, role), "content": content}
