"""Two columns, or a template and a column: a prompt and what follows it."""

from __future__ import annotations

import string
from collections.abc import Sequence

from autolora.tasks.causal_lm.conversations.rows import first_turn
from autolora.tasks.causal_lm.examples import Pair
from autolora.tasks.causal_lm.formats import conversational_prompt_completion
from autolora.tasks.causal_lm.formats.format import KEYS, NAMED_COLUMNS, Format, Keys, Layout, register
from autolora.tasks.data.cells import listed, present, require, text
from autolora.tasks.data.errors import DataError, show
from autolora.tasks.data.table import Row, Table

NAME = NAMED_COLUMNS
KNOWN_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("instruction", "response"),
    ("query", "response"),
    ("input", "output"),
)
"""(prompt, completion) columns that mean one thing wherever they occur."""
KNOWN_COMPLETIONS = ("completion", "answer", "response", "output", "target")
CONTEXT_COLUMNS = ("context", "system", "system_prompt", "passage", "choices")
"""Columns that belong to the prompt of a known pair, though not by a rule that could be guessed."""


def _read(table: Table, keys: Keys) -> Layout:
    if keys.template is not None:
        return _template(table, keys.template, keys.completion)
    if keys.prompt is not None and keys.completion is not None:
        return _two_columns(table, keys.prompt, keys.completion)
    if keys.completion is not None:
        raise DataError(
            f"data.completion names the column {keys.completion!r}, but nothing says what the prompt is: give "
            "data.prompt, data.template, or format: text"
        )
    return _known_pair(table)


def _known_pair(table: Table) -> Layout:
    found = [pair for pair in KNOWN_PAIRS if set(pair) <= set(table.columns)]
    if not found:
        require(table, KNOWN_PAIRS[0], "name the two columns with data.prompt and data.completion")
    context = [column for column in CONTEXT_COLUMNS if column in table.columns]
    if found[0] != KNOWN_PAIRS[0] and (len(found) > 1 or context):
        pairs = ", ".join(f"{prompt} -> {completion}" for prompt, completion in found)
        doubt = f"and {listed(context)} may belong to the prompt" if context else "which is more than one pair"
        raise DataError(
            f"{table.name}: columns {pairs} are there, {doubt}; name the two columns with data.prompt and "
            "data.completion, or write the prompt with data.template"
        )
    return _two_columns(table, *found[0])


def _two_columns(table: Table, prompt: str, completion: str) -> Layout:
    require(table, (prompt, completion), "name two of them with data.prompt and data.completion")
    if first_turn(table, (prompt, completion)) is not None:
        return conversational_prompt_completion.layout(table, prompt, completion)

    def example(row: Row, where: str) -> Pair:
        return Pair(text(row, prompt, where) + "\n", text(row, completion, where))

    return Layout(NAME, f"{prompt} -> {completion}", (prompt, completion), example)


def _template(table: Table, template: str, named: str | None) -> Layout:
    fields = _fields(template)
    require(table, fields, "the fields of data.template are column names; write {{ and }} for braces")
    completion = named or _only_completion(table, fields)
    require(table, (completion,), "name one of them with data.completion")

    def example(row: Row, where: str) -> Pair:
        for field in fields:
            present(row, field, where)
        try:
            prompt = template.format_map(row)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: data.template {show(template)} cannot be filled: {error!r}") from None
        return Pair(prompt, text(row, completion, where))

    return Layout(NAME, f"template -> {completion}", (*fields, completion), example)


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
            f"{table.name}: which of the columns {listed(table.columns)} is the completion? Name it with "
            "data.completion"
        )
    return found[0]


register(
    Format(
        NAME,
        _read,
        fits=lambda table: any(set(table.columns) >= set(pair) for pair in KNOWN_PAIRS),
        precedence=50,
        makes=Pair,
        keys=frozenset(KEYS),
    )
)
