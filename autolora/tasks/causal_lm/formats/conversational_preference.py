"""TRL's conversational preference pairs: the chosen messages are learned, with or without a column for the prompt."""

from __future__ import annotations

from autolora.tasks.causal_lm.conversations.rows import columns_beside, completed, first_turn, turns_of
from autolora.tasks.causal_lm.conversations.turns import Turn
from autolora.tasks.causal_lm.examples import Chat, Skipped
from autolora.tasks.causal_lm.formats.format import Format, Keys, Layout, register
from autolora.tasks.data.cells import require
from autolora.tasks.data.table import Row, Table

NAME = "conversational_preference"
COLUMNS = ("chosen", "rejected")


def _read(table: Table, keys: Keys) -> Layout:
    require(table, COLUMNS, f"format: {NAME} needs chosen and rejected (and maybe prompt)")
    return layout(table)


def layout(table: Table) -> Layout:
    """How a table is read whose chosen answers are messages. Without a prompt, both answers hold it."""
    beside = columns_beside(table)
    given = ("prompt",) if "prompt" in table.columns else ()
    found = ", ".join((f"{' -> '.join((*given, 'chosen'))}, as messages (rejected is not learned)", *beside))
    return Layout(NAME, found, (*given, *COLUMNS, *beside), _after_prompt if given else _after_what_both_begin_with)


def _after_prompt(row: Row, where: str) -> Chat | Skipped:
    prompt = turns_of(row, "prompt", where, speaker="user")
    chosen = turns_of(row, "chosen", where, speaker="assistant")
    # some tables repeat the prompt in the answer, behind a system message that the prompt does not have
    for start in (0, 1):
        if prompt and _messages(chosen[start : start + len(prompt)]) == _messages(prompt):
            return completed(row, chosen[: start + len(prompt)], chosen[start + len(prompt) :], where)
    return completed(row, prompt, chosen, where)


def _after_what_both_begin_with(row: Row, where: str) -> Chat | Skipped:
    chosen, rejected = (turns_of(row, column, where) for column in COLUMNS)
    most = max(min(len(chosen), len(rejected)) - 1, 0)  # of two equal conversations the last turn is the answer
    shared = next((i for i in range(most) if chosen[i] != rejected[i]), most)
    return completed(row, chosen[:shared], chosen[shared:], where)


def _messages(turns: list[Turn]) -> list[object]:
    return [turn.message for turn in turns]


def _fits(table: Table) -> bool:
    return set(COLUMNS) <= set(table.columns) and first_turn(table, COLUMNS[:1]) is not None


register(Format(NAME, _read, _fits, precedence=90, makes=Chat))
