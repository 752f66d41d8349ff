"""How a row becomes an example: the formats, and which one a table has.

Three kinds of example come out: a :class:`Pair` of texts, a :class:`Chat`, and ready :class:`Tokens`.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autolora.spec import DataSpec
from autolora.training.data.errors import DataError, show
from autolora.training.data.loading import Row, Table


@dataclass(frozen=True)
class Pair:
    """Text on which no loss is taken, and the text that follows it directly and is learnt."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Chat:
    """Messages with "role" and "content"; the assistant's are learnt, and the last message is one of them."""

    messages: list[dict[str, Any]]


@dataclass(frozen=True)
class Tokens:
    """Token ids (length,) int32 and the mask (length,) bool of those that are learnt."""

    ids: np.ndarray
    targets: np.ndarray


Example = Pair | Chat | Tokens


@dataclass(frozen=True, eq=False)
class Layout:
    """How one table is read.

    Args:
        format: a format name of the specification.
        found: the columns and their parts, for the report.
        columns: the columns that ``example`` needs.
        example: ``example(row, where)``; ``where`` names file and row in errors.
    """

    format: str
    found: str
    columns: tuple[str, ...]
    example: Callable[[Row, str], Example]


# (prompt, completion) columns that mean one thing wherever they occur
KNOWN_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("instruction", "response"),
    ("query", "response"),
    ("input", "output"),
)
KNOWN_COMPLETIONS = ("completion", "answer", "response", "output", "target")
# a column that belongs to the prompt of a known pair, though not by a rule that could be guessed
CONTEXT_COLUMNS = ("context", "system", "system_prompt", "passage", "choices")
CHAT_FORMATS = frozenset({"messages", "sharegpt"})
CHAT_COLUMNS = ("messages", "conversations")
ALPACA_OPENING = "Below is an instruction that describes a task"
ALPACA_CLOSING = "Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n"
ALPACA_WITH_INPUT = (
    f"{ALPACA_OPENING}, paired with an input that provides further context. {ALPACA_CLOSING}"
    "### Input:\n{input}\n\n### Response:\n"
)
ALPACA_WITHOUT_INPUT = f"{ALPACA_OPENING}. {ALPACA_CLOSING}### Response:\n"
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
}


def layout_of(table: Table, spec: DataSpec) -> Layout:
    """The layout that ``spec`` names, or that the table's columns show.

    Raises:
        DataError: a named column or template field is missing, or the columns fit no format or several.
    """
    if spec.template is not None or spec.prompt is not None:
        if spec.format not in ("auto", "prompt_completion"):
            raise DataError(
                f"data.format is {spec.format!r}, but data.prompt and data.template are for 'prompt_completion' rows: "
                "leave one out"
            )
        return _template(table, spec) if spec.template is not None else _mapped(table, spec)
    if spec.completion is not None and spec.format != "text":
        raise DataError(
            f"data.completion names the column {spec.completion!r}, but nothing says what the prompt is: give "
            "data.prompt, data.template, or format: text"
        )
    return _LAYOUTS[_detect(table) if spec.format == "auto" else spec.format](table, spec)


def content_key(example: Example) -> bytes:
    """16 bytes that are equal exactly when two examples have the same content."""
    match example:
        case Pair(prompt, completion):
            content = json.dumps([prompt, completion]).encode()
        case Chat(messages):
            content = json.dumps(messages, sort_keys=True, default=str).encode()
        case Tokens(ids):
            content = ids.tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()


# --- which format ---


def _detect(table: Table) -> str:
    columns = set(table.columns)
    if "input_ids" in columns:
        return "tokenized"
    for column in CHAT_COLUMNS:
        if column in columns:
            return "sharegpt" if _is_sharegpt(table, column) else "messages"
    if {"instruction", "output"} <= columns:
        return "alpaca"
    if any(columns >= set(pair) for pair in KNOWN_PAIRS):
        return "prompt_completion"
    if "text" in columns:
        return "text"
    raise DataError(
        f"{table.name}: the columns {_listed(table.columns)} fit no known format; name two with data.prompt and "
        "data.completion, or give data.template, or data.format"
    )


def _is_sharegpt(table: Table, column: str) -> bool:
    value = table.fetch([0], [column])[0].get(column)
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "from" in value[0]


# --- the formats ---


def _mapped(table: Table, spec: DataSpec) -> Layout:
    assert spec.prompt is not None  # the caller's condition
    assert spec.completion is not None  # DataSpec: the two come together
    return _two_columns(table, spec.prompt, spec.completion)


def _prompt_completion(table: Table, spec: DataSpec) -> Layout:
    found = [pair for pair in KNOWN_PAIRS if set(pair) <= set(table.columns)]
    if not found:
        _require(table, KNOWN_PAIRS[0], "name the two columns with data.prompt and data.completion")
    context = [column for column in CONTEXT_COLUMNS if column in table.columns]
    if found[0] != KNOWN_PAIRS[0] and (len(found) > 1 or context):
        pairs = ", ".join(f"{prompt} -> {completion}" for prompt, completion in found)
        doubt = f"and {_listed(context)} may belong to the prompt" if context else "which is more than one pair"
        raise DataError(
            f"{table.name}: columns {pairs} are there, {doubt}; name the two columns with data.prompt and "
            "data.completion, or write the prompt with data.template"
        )
    return _two_columns(table, *found[0])


def _two_columns(table: Table, prompt: str, completion: str) -> Layout:
    _require(table, (prompt, completion), "name two of them with data.prompt and data.completion")

    def example(row: Row, where: str) -> Pair:
        return Pair(_text(row, prompt, where) + "\n", _text(row, completion, where))

    return Layout("prompt_completion", f"{prompt} -> {completion}", (prompt, completion), example)


def _template(table: Table, spec: DataSpec) -> Layout:
    template = spec.template or ""
    fields = _fields(template)
    _require(table, fields, "the fields of data.template are column names; write {{ and }} for braces")
    completion = spec.completion or _only_completion(table, fields)
    _require(table, (completion,), "name one of them with data.completion")

    def example(row: Row, where: str) -> Pair:
        for field in fields:
            _present(row, field, where)
        try:
            prompt = template.format_map(row)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: data.template {show(template)} cannot be filled: {error!r}") from None
        return Pair(prompt, _text(row, completion, where))

    return Layout("prompt_completion", f"template -> {completion}", (*fields, completion), example)


def _fields(template: str) -> tuple[str, ...]:
    """The column names in a template; ``{choices[0]}`` is a field of the column choices."""
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise DataError(f"data.template {show(template)} is malformed: {error}") from None
    columns = [name.split("[")[0].split(".")[0] for name in names]
    return tuple(dict.fromkeys(columns))


def _only_completion(table: Table, fields: Sequence[str]) -> str:
    found = [column for column in KNOWN_COMPLETIONS if column in table.columns and column not in fields]
    if len(found) != 1:
        raise DataError(
            f"{table.name}: which of the columns {_listed(table.columns)} is the completion? Name it with "
            "data.completion"
        )
    return found[0]


def _alpaca(table: Table, spec: DataSpec) -> Layout:
    _require(table, ("instruction", "output"), "format: alpaca needs instruction and output (and maybe input)")
    columns = tuple(c for c in ("instruction", "input", "output") if c in table.columns)

    def example(row: Row, where: str) -> Pair:
        has_input = row.get("input") is not None and _text(row, "input", where) != ""
        template = ALPACA_WITH_INPUT if has_input else ALPACA_WITHOUT_INPUT
        prompt = template.format(instruction=_text(row, "instruction", where), input=row.get("input"))
        return Pair(prompt, _text(row, "output", where))

    return Layout("alpaca", ", ".join(columns), columns, example)


def _plain_text(table: Table, spec: DataSpec) -> Layout:
    column = spec.completion or "text"
    _require(table, (column,), "format: text reads the column text, or the one named by data.completion")
    return Layout("text", column, (column,), lambda row, where: Pair("", _text(row, column, where)))


def _messages(table: Table, spec: DataSpec) -> Layout:
    return _chat(table, "messages", ("role", "content"), {})


def _sharegpt(table: Table, spec: DataSpec) -> Layout:
    return _chat(table, "sharegpt", ("from", "value"), SHAREGPT_ROLES)


def _chat(table: Table, name: str, keys: tuple[str, str], roles: dict[str, str]) -> Layout:
    """Args: the two keys of a turn, and the roles that go by another name (empty: taken as they are)."""
    column = next((c for c in CHAT_COLUMNS if c in table.columns), None)
    if column is None:
        raise DataError(f"{table.name}: format {name} needs a column messages or conversations; {_there(table)}")

    def example(row: Row, where: str) -> Chat:
        turns = _present(row, column, where)
        if not isinstance(turns, list):
            raise DataError(f"{where}, column {column!r} must be a list of turns, not {show(turns)}")
        messages = [_turn(turn, keys, roles, f"{where}, {column}[{i}]") for i, turn in enumerate(turns)]
        last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=-1)
        # what follows the last answer is neither learnt nor conditions anything
        return Chat(messages[: last + 1])

    return Layout(name, f"{column} with {keys[0]}/{keys[1]}", (column,), example)


def _turn(turn: Any, keys: tuple[str, str], roles: dict[str, str], where: str) -> dict[str, Any]:
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


def _tokenized(table: Table, spec: DataSpec) -> Layout:
    _require(table, ("input_ids",), "format: tokenized needs input_ids (and maybe labels, attention_mask)")
    columns = tuple(c for c in ("input_ids", "labels", "attention_mask") if c in table.columns)

    def example(row: Row, where: str) -> Tokens:
        ids = _integers(row, "input_ids", where)
        labels = ids if row.get("labels") is None else _integers(row, "labels", where)
        attended = np.ones_like(ids) if row.get("attention_mask") is None else _integers(row, "attention_mask", where)
        if not len(ids) == len(labels) == len(attended):
            raise DataError(
                f"{where}: input_ids, labels and attention_mask must have one length, not "
                f"{len(ids)}, {len(labels)} and {len(attended)}"
            )
        targets = labels != -100
        if (labels[targets] != ids[targets]).any():
            raise DataError(
                f"{where}: labels must equal input_ids or be -100; they are not shifted here, the model does that"
            )
        real = attended != 0
        return Tokens(ids[real].astype(np.int32), targets[real])

    return Layout("tokenized", ", ".join(columns), columns, example)


_LAYOUTS: dict[str, Callable[[Table, DataSpec], Layout]] = {
    "prompt_completion": _prompt_completion,
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "text": _plain_text,
    "tokenized": _tokenized,
}

# --- cells ---


def _require(table: Table, columns: Sequence[str], advice: str) -> None:
    for column in columns:
        if column not in table.columns:
            raise DataError(f"{table.name} has no column {column!r}; {_there(table)}; {advice}")


def _there(table: Table) -> str:
    return f"its columns are {_listed(table.columns)}"


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(map(repr, columns))


def _present(row: Row, column: str, where: str) -> Any:
    if column not in row:
        raise DataError(f"{where} has no column {column!r}; it has {_listed(list(row))}")
    if row[column] is None:
        raise DataError(f"{where}, column {column!r} is empty (None); fill it or remove the row")
    return row[column]


def _text(row: Row, column: str, where: str) -> str:
    value = _present(row, column, where)
    if not isinstance(value, str):
        raise DataError(f"{where}, column {column!r} must be text, not {show(value)}; write it as a string")
    return value


def _integers(row: Row, column: str, where: str) -> np.ndarray:
    value = np.asarray(_present(row, column, where))
    if value.ndim != 1 or not (value.dtype.kind in "iu" or value.size == 0):
        raise DataError(f"{where}, column {column!r} must be a list of integers, not {show(row[column])}")
    return value.astype(np.int64)
