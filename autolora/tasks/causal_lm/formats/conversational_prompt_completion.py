"""TRL's conversational prompt and completion: messages in both, of which the assistant's in the second are learned."""

from __future__ import annotations

from autolora.tasks.causal_lm.conversations.rows import columns_beside, completed, first_turn, turns_of
from autolora.tasks.causal_lm.examples import Chat, Skipped
from autolora.tasks.causal_lm.formats.format import Format, Keys, Layout, register
from autolora.tasks.data.cells import require
from autolora.tasks.data.table import Row, Table

NAME = "conversational_prompt_completion"
COLUMNS = ("prompt", "completion")


def _read(table: Table, keys: Keys) -> Layout:
    prompt, completion = keys.prompt or COLUMNS[0], keys.completion or COLUMNS[1]
    require(table, (prompt, completion), "name two of them with data.prompt and data.completion")
    return layout(table, prompt, completion)


def layout(table: Table, prompt: str, completion: str) -> Layout:
    """How two columns are read, one of which may be text: a user's message as prompt, an assistant's as completion."""
    beside = columns_beside(table)

    def example(row: Row, where: str) -> Chat | Skipped:
        asked = turns_of(row, prompt, where, speaker="user")
        answered = turns_of(row, completion, where, speaker="assistant")
        return completed(row, asked, answered, where)

    found = ", ".join((f"{prompt} -> {completion}, as messages", *beside))
    return Layout(NAME, found, (prompt, completion, *beside), example)


def _fits(table: Table) -> bool:
    return set(COLUMNS) <= set(table.columns) and first_turn(table, COLUMNS) is not None


register(Format(NAME, _read, _fits, precedence=80, makes=Chat, keys=frozenset({"prompt", "completion"})))
