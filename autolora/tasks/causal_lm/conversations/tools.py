"""Tools and the assistant's calls of them, in the form that chat templates read, which is OpenAI's.

A tool is ``{"type": "function", "function": {"name", "description", "parameters"}}``, a call
``{"type": "function", "function": {"name", "arguments"}}`` with the arguments as an object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autolora.tasks.data.errors import DataError, show
from autolora.tasks.data.nested import is_blank, nested, parsed
from autolora.tasks.data.table import Row

TOOL_COLUMNS = ("tools", "functions")
"""Columns beside a conversation that hold tools; ``functions`` is OpenAI's earlier name."""


def tools_of(row: Row, where: str) -> list[Any] | None:
    """The tools of a row; None if it has none.

    Args:
        row: may have the columns TOOL_COLUMNS: lists of tools, or JSON text of such a list.
        where: file and row, for errors.

    Raises:
        DataError: a column holds something else, or both hold tools and these differ.
    """
    given = [
        _tools(row[column], f"{where}, column {column!r}") for column in TOOL_COLUMNS if not is_blank(row.get(column))
    ]
    if given[1:] and given[0] != given[1]:
        raise DataError(f"{where}: the columns {' and '.join(TOOL_COLUMNS)} hold different tools; keep one of them")
    return given[0] if given else None


def _tools(value: object, place: str) -> list[Any]:
    tools = nested(value, place)
    if not isinstance(tools, list):
        raise DataError(f"{place} must be a list of tools, or JSON text of one, not {show(value)}")
    return [_tool(tool, f"{place}[{i}]") for i, tool in enumerate(tools)]


def _tool(value: object, place: str) -> dict[str, Any]:
    tool = _object(value, place, "a tool")
    if "function" in tool:
        return {**tool, "function": _schema(tool["function"], f"{place}.function")}
    if "name" not in tool:
        return tool  # one that the model brings along, such as {"type": "code_interpreter"}
    return {"type": "function", "function": _schema({key: tool[key] for key in tool if key != "type"}, place)}


def _schema(value: object, place: str) -> dict[str, Any]:
    schema = _object(value, place, "the schema of a function")
    if isinstance(schema.get("parameters"), str):
        return {**schema, "parameters": parsed(schema["parameters"], f"{place}.parameters")}
    return schema


def calls_of(value: object, place: str) -> list[dict[str, Any]]:
    """The calls of an assistant's message.

    Args:
        value: a list of calls or a single one, or its JSON text; with or without the wrapper ``function``, and with
            arguments as an object or as its JSON text.
        place: file, row and message, for errors.

    Raises:
        DataError: a call has no name, or arguments that are not an object.
    """
    calls = parsed(value, place)
    if not isinstance(calls, list):
        calls = [calls]
    return [_call(call, f"{place}[{i}]") for i, call in enumerate(calls)]


def _call(value: object, place: str) -> dict[str, Any]:
    call = _object(value, place, "a call of a tool")
    if "function" in call:
        outer, function = call, _object(call["function"], f"{place}.function", "a call of a tool")
    else:
        outer = {"type": "function", **{key: call[key] for key in ("id", "type") if key in call}}
        function = {key: call[key] for key in call if key not in outer}
    if not isinstance(function.get("name"), str):
        raise DataError(f"{place} must name the function that is called, not {show(call)}")
    return {**outer, "function": {**function, "arguments": _arguments(function.get("arguments"), place)}}


def _arguments(value: object, place: str) -> dict[str, Any]:
    place = f"{place}, arguments"
    return {} if is_blank(value) else _object(value, place, "the arguments of a call")


def _object(value: object, place: str, what: str) -> dict[str, Any]:
    found = parsed(value, place)
    if not isinstance(found, Mapping):
        raise DataError(f"{place} must be {what}: an object, or JSON text of one, not {show(value)}")
    return dict(found)
