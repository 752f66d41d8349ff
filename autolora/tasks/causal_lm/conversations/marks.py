"""Marks that say whether a turn of a conversation is learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autolora.tasks.data.errors import DataError, show

MARKS = ("weight", "train", "training", "train_on_turn", "loss")
"""Keys of a message that no chat template reads: OpenAI's, those of axolotl's examples, and ms-swift's."""
SPANS = "train_detail"
"""axolotl's marks of single characters."""


def is_learned(turn: Mapping[str, Any], role: str, place: str) -> bool:
    """Whether the loss is taken on a turn: on the assistant's, unless a mark says 0 or false.

    Args:
        turn: the message as the row has it.
        role: of the chat template.
        place: file, row and message, for errors.

    Raises:
        DataError: a mark is neither 0 nor 1, asks to learn what the assistant did not say, or selects parts of a turn.
    """
    if turn.get(SPANS):
        raise DataError(
            f"{place}: {SPANS!r} marks parts of a turn, which can be learned whole or not at all; mark the turn with "
            "'train': true or false"
        )
    marks = {key: turn[key] for key in MARKS if turn.get(key) is not None}
    for key, mark in marks.items():
        if not isinstance(mark, (bool, int, float)) or mark not in (0, 1):
            raise DataError(f"{place}: {key!r} must be 0 or 1, or false or true, not {show(mark)}")
        if mark and role != "assistant":
            raise DataError(
                f"{place}: {key!r} asks to learn a turn of the role {role!r}, but only the assistant's are learned; "
                "remove the mark"
            )
    return role == "assistant" and all(marks.values())
