"""A turn of a conversation as a table writes it, and as chat templates read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autolora.tasks.causal_lm.conversations.marks import MARKS, is_learned
from autolora.tasks.causal_lm.conversations.tools import calls_of
from autolora.tasks.causal_lm.examples import THOUGHT_KEYS, Message
from autolora.tasks.data.errors import DataError, show
from autolora.tasks.data.nested import is_blank

SPEAKER_KEYS = ("role", "from")
"""Who speaks: OpenAI's key and ShareGPT's. A turn that has both is read by the first."""
CONTENT_KEYS = ("content", "value")
"""What is said, likewise."""
CALL_KEYS = ("tool_calls", "function_call")
"""The calls in an assistant's turn: OpenAI's key, and its earlier one for a single call."""
CALLER = "function_call"
"""The role of a turn whose content is a call, as JSON text."""
ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_call": CALLER,
    "tool_call": CALLER,
}
"""The roles of chat templates by those of tables, in upper or lower case."""


@dataclass(frozen=True)
class Turn:
    """A message as its chat template reads it.

    Attributes:
        message: with "role" and "content".
        learned: whether the loss is taken on it.
        adds_calls: whether the table gave calls a turn of their own, which continues the assistant's turn before it.
    """

    message: Message
    learned: bool
    adds_calls: bool = False


def turn_of(value: object, place: str) -> Turn:
    """The turn that an object of a table describes.

    Args:
        value: with one of SPEAKER_KEYS and one of CONTENT_KEYS; its other keys go into the message, but for marks.
        place: file, row and message, for errors.

    Raises:
        DataError: the object has neither, or what they hold is not a role and text.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"{place} must be an object with 'role' and 'content', not {show(value)}")
    turn = {key: item for key, item in value.items() if item is not None}
    speaker = next((key for key in SPEAKER_KEYS if key in turn), None)
    if speaker is None:
        raise DataError(
            f"{place} must be an object with 'role' and 'content', or 'from' and 'value', not {show(value)}"
        )
    said = next((key for key in CONTENT_KEYS if key in turn), CONTENT_KEYS[SPEAKER_KEYS.index(speaker)])
    role = _role(turn[speaker], speaker, place)
    adds_calls = role == CALLER
    if adds_calls:
        role = "assistant"
        turn["function_call"] = turn.pop(said, None)
    calls = _calls(turn, place)
    others = {key: turn[key] for key in turn if key not in {speaker, said, *CALL_KEYS, *MARKS}}
    message = {**others, "role": role, "content": _content(turn, said, bool(calls), place)}
    if calls:
        message["tool_calls"] = calls
    return Turn(message, is_learned(turn, role, place), adds_calls)


def joined(turns: Sequence[Turn]) -> list[Turn]:
    """The turns, of which those that only add calls are part of the assistant's turn before them.

    They stay apart if one of the two is learned and the other is not.
    """
    whole: list[Turn] = []
    for turn in turns:
        before = whole[-1] if whole else None
        if before and turn.adds_calls and (before.message["role"], before.learned) == ("assistant", turn.learned):
            calls = [*before.message.get("tool_calls", []), *turn.message["tool_calls"]]
            whole[-1] = replace(before, message={**before.message, "tool_calls": calls})
        else:
            whole.append(turn)
    return whole


def _role(value: object, key: str, place: str) -> str:
    if isinstance(value, str) and value.lower() in ROLES:
        return ROLES[value.lower()]
    if not isinstance(value, str) or key != "role":
        raise DataError(f"{place}: unknown {key} {show(value)}; use {', '.join(ROLES)}")
    return value  # the chat template may know it


def _calls(turn: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    given = [key for key in CALL_KEYS if not is_blank(turn.get(key))]
    if len(given) > 1:
        raise DataError(f"{place} has calls of tools in {' and in '.join(map(repr, given))}; keep one of them")
    return [call for key in given for call in calls_of(turn[key], f"{place}, {key}")]


def _content(turn: Mapping[str, Any], key: str, calls: bool, place: str) -> str | list[Any] | None:
    content = turn.get(key)
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return [_part(part, f"{place}, {key}[{i}]") for i, part in enumerate(content)]
    if content is None and (calls or any(turn.get(thought) for thought in THOUGHT_KEYS)):
        return None
    raise DataError(f"{place}: {key!r} must be text, not {show(content)}; write text, or a list of text parts")


def _part(value: object, place: str) -> dict[str, Any]:
    if isinstance(value, Mapping) and isinstance(value.get("text"), str) and value.get("type", "text") == "text":
        return {"type": "text", **value}
    raise DataError(f"{place} must be text, {{'type': 'text', 'text': ...}}, not {show(value)}; only text is read here")
