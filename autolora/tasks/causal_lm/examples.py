"""What a row can become: three kinds of example, or none."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Message: TypeAlias = dict[str, Any]
"""A message of a conversation: "role" and "content", and what else its chat template reads, such as "tool_calls".

The content is text, a list of parts ``{"type": "text", "text": ...}``, or None beside tool calls or reasoning.
"""

THOUGHT_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message under which a thought is written; the first is the usual one."""
NO_TURN = "no assistant turn"
ALL_UNLEARNED = "all assistant turns marked as not to be learned"
"""Why a conversation has nothing to learn."""


@dataclass(frozen=True)
class Pair:
    """Text on which no loss is taken, and the text that follows it directly and is learned."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Chat:
    """A conversation, of which the assistant's messages are learned; the last message is one of them.

    Attributes:
        messages: with "role" and "content".
        tools: schemas of the functions that the assistant may call, for the chat template; None if the row has none.
        unlearned: indices of the assistant's messages that the row marks as not to be learned.
    """

    messages: list[Message]
    tools: list[Any] | None = None
    unlearned: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Tokens:
    """Token ids (length,) int32 and the mask (length,) bool of those that are learned."""

    ids: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Skipped:
    """A row that is sound, but from which nothing can be learned. It is counted and not trained on.

    Attributes:
        reason: a short phrase that is equal for all rows left out for this reason, such as "no assistant turn".
    """

    reason: str


Example: TypeAlias = Pair | Chat | Tokens | Skipped


def text_of(content: Any) -> str:
    """The text of a message's content, which may be None or a list of parts."""
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in content)
    return content or ""


def content_key(example: Example) -> bytes:
    """16 bytes that are equal exactly when two examples have the same content."""
    match example:
        case Pair(prompt, completion):
            content = json.dumps([prompt, completion]).encode()
        case Chat(messages, tools):
            said = messages if tools is None else [messages, tools]
            content = json.dumps(said, sort_keys=True, default=str).encode()
        case Tokens(ids):
            content = ids.tobytes()
        case Skipped(reason):
            content = reason.encode()
    return hashlib.blake2b(content, digest_size=16).digest()
