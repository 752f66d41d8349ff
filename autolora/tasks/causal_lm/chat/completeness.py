"""Is all of a conversation in its text?

Templates skip roles, system messages, tools and thoughts without a word. So the conversation is rendered once more with
a word of its own in place of each text, and the words are looked for: that survives stripping, escaping as JSON and
splitting into parts, and finds short texts that stand elsewhere in the conversation, too. What comes out depends on
which messages there are, hardly on what they say, so it is kept for conversations of the same kind.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from autolora.tasks.causal_lm.chat.template import RefusedError, Template
from autolora.tasks.causal_lm.examples import THOUGHT_KEYS, Chat, Message, content_key, text_of
from autolora.tasks.data.errors import DataError, show

CLOSED_THOUGHT = "</think>"
TEXT, THOUGHT, CALLS, TOOLS = "text", "thought", "tool calls", "tools"
ADVICE = {
    TEXT: "{role_advice}, or use a template that writes it",
    CALLS: "use a model whose template knows tool calls, or write the calls into the message's content",
    TOOLS: "use a model whose template knows tools, or leave the tools out of the rows and describe them in a message",
}


def thought_of(message: Message) -> str:
    """What the assistant thinks before a message, "" if nothing."""
    named = next((message[key] for key in THOUGHT_KEYS if isinstance(message.get(key), str)), "")
    written = text_of(message.get("content")).rpartition(CLOSED_THOUGHT)[0]
    return str(named or written.replace("<think>", "")).strip()


@dataclass(frozen=True)
class Piece:
    """A part of a conversation: the index of its message (-1: of none), its kind, and the words that stand for it."""

    index: int
    kind: str
    words: frozenset[str]


class Completeness:
    """Checks conversations that one template renders."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._known: dict[bytes, list[Piece]] = {}

    def thoughts_left_out(self, chat: Chat, where: str) -> list[int]:
        """Indices of the messages whose thought the template leaves out, as many do on purpose.

        Raises:
            DataError: something else is left out, or is not text; names row, message and role, and says what to do.
        """
        for index, message in enumerate(chat.messages):
            other = _not_text(message.get("content"))
            if other is not None:
                raise DataError(
                    f"{where}, messages[{index}] ({message['role']}): {show(other)} is not text, and this task trains "
                    "on text alone; remove the part or the row"
                )
        left_out = self._left_out(chat)
        for piece in left_out:
            if piece.kind != THOUGHT:
                raise DataError(f"{where}{_what(chat, piece)}")
        return [piece.index for piece in left_out]

    def _left_out(self, chat: Chat) -> list[Piece]:
        shadow, pieces = _shadow(chat)
        key = content_key(shadow)
        if key not in self._known:
            try:
                self._known[key] = self._missing(shadow, pieces)
            except RefusedError:  # a template that reads what messages say, such as JSON in a tool's answer
                return self._missing(chat, list(_literal(chat)))
        return self._known[key]

    def _missing(self, chat: Chat, pieces: Sequence[Piece]) -> list[Piece]:
        """Those of the pieces of which no word is in the conversation as rendered."""
        text = self._template.text(chat.messages, chat.tools).lower()
        return [piece for piece in pieces if not any(word in text for word in piece.words)]


def rewritten(chat: Chat, text: str) -> int:
    """How many messages the template shortens or writes in other words, such as those of which it keeps a part.

    White space, punctuation, upper and lower case, and escapes of JSON and HTML don't count.
    """
    written: list[str] = []  # filled if a message is not there as it is
    count = 0
    for message in chat.messages:
        said = text_of(message.get("content")).rpartition(CLOSED_THOUGHT)[2].strip()
        if not said or said in text:
            continue
        written = written or [_letters(text), _letters(html.unescape(text))]
        forms = {_letters(said), _letters(json.dumps(said)), _letters(json.dumps(said, ensure_ascii=False))}
        count += not any(form in each for form in forms for each in written)
    return count


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def _not_text(content: Any) -> Any:
    """The first part of a message's content that is not text, such as an image; None if all are text."""
    parts = content if isinstance(content, list) else []
    texts = [part if isinstance(part, str) else part.get("text") for part in parts]
    return next((part for part, text in zip(parts, texts, strict=True) if not isinstance(text, str)), None)


def _what(chat: Chat, piece: Piece) -> str:
    if piece.index < 0:
        return f": the chat template leaves out the tools; {ADVICE[TOOLS]}"
    message = chat.messages[piece.index]
    role = message["role"]
    said = show(text_of(message.get("content"))) if piece.kind == TEXT else "the tool calls"
    return f", messages[{piece.index}] ({role}): the chat template leaves out {said}; " + ADVICE[piece.kind].format(
        role_advice=_role_advice(role, message)
    )


def _role_advice(role: str, message: Message) -> str:
    if role == "assistant":
        return "remove the text beside the tool calls" if message.get("tool_calls") else "remove the message"
    if role == "system":
        return "put it at the beginning of the first user message"
    return f"rename the role {role!r} to one that the template knows, such as system or user"


class _Words:
    """Words that stand in no template, one after the other."""

    def __init__(self) -> None:
        self.count = 0

    def next(self) -> str:
        self.count += 1
        return f"qzx{self.count:05d}qzx"


def _shadow(chat: Chat) -> tuple[Chat, list[Piece]]:
    """The conversation with words in place of its texts, and what each word stands for."""
    words = _Words()
    pieces: list[Piece] = []
    messages = []
    for index, message in enumerate(chat.messages):
        shadow = dict(message)
        shadow["content"], thoughts, texts = _content(message.get("content"), words)
        if shadow["content"] is None:
            del shadow["content"]
        named = [key for key in THOUGHT_KEYS if isinstance(message.get(key), str) and message[key].strip()]
        if named:
            word = words.next()
            shadow.update(dict.fromkeys(named, word))
            thoughts.append(word)
        if message.get("tool_calls"):
            arguments: list[str] = []
            shadow["tool_calls"] = [_call(call, words, arguments) for call in message["tool_calls"]]
            pieces += [Piece(index, CALLS, frozenset({word})) for word in arguments]
        pieces += [Piece(index, TEXT, frozenset({word})) for word in texts]
        pieces += [Piece(index, THOUGHT, frozenset(thoughts))] if thoughts else []
        messages.append(shadow)
    tools = None
    if chat.tools:
        described: list[str] = []
        tools = [_tool(tool, words, described) for tool in chat.tools]
        pieces += [Piece(-1, TOOLS, frozenset({word})) for word in described]
    return Chat(messages, tools), pieces


def _content(content: Any, words: _Words) -> tuple[Any, list[str], list[str]]:
    """The content with words in place of its texts; the words of thoughts, and those of other texts."""
    if isinstance(content, list):
        texts: list[str] = []
        parts = []
        for part in content:
            text = part if isinstance(part, str) else part.get("text")
            if isinstance(text, str) and text.strip():
                texts.append(words.next())
                part = texts[-1] if isinstance(part, str) else {**part, "text": texts[-1]}
            parts.append(part)
        return parts, [], texts
    if not content or not content.strip():
        return content, [], []
    thought, closed, said = content.rpartition(CLOSED_THOUGHT)
    thoughts = [words.next()] if thought.replace("<think>", "").strip() else []
    texts = [words.next()] if said.strip() else []
    opened = "<think>" if "<think>" in thought else ""
    return f"{opened}{''.join(thoughts)}{closed}{''.join(texts)}", thoughts, texts


def _call(call: dict[str, Any], words: _Words, found: list[str]) -> dict[str, Any]:
    """The call with words in place of the texts in its arguments; without such texts its name stands for it."""
    function, before = call["function"], len(found)
    arguments = _leaves(function.get("arguments") or {}, words, found)
    if len(found) == before:
        found.append(str(function["name"]).lower())
    return {**call, "function": {**function, "arguments": arguments}}


def _leaves(value: Any, words: _Words, found: list[str]) -> Any:
    """The value with a word in place of each text in it."""
    if isinstance(value, dict):
        return {key: _leaves(each, words, found) for key, each in value.items()}
    if isinstance(value, list):
        return [_leaves(each, words, found) for each in value]
    if isinstance(value, str) and value.strip():
        found.append(words.next())
        return found[-1]
    return value


def _tool(tool: Any, words: _Words, found: list[str]) -> Any:
    """The schema with words in place of the function's description, or of its name if it has none."""
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict):
        return tool
    key = "description" if function.get("description") else "name"
    found.append(words.next())
    function = {**function, key: found[-1]}
    return {**tool, "function": function} if "function" in tool else function


def _literal(chat: Chat) -> Iterator[Piece]:
    """The texts of a conversation as they are."""
    for index, message in enumerate(chat.messages):
        said = text_of(message.get("content")).rpartition(CLOSED_THOUGHT)[2].strip().lower()
        if said:
            yield Piece(
                index, TEXT, frozenset({said, json.dumps(said)[1:-1], json.dumps(said, ensure_ascii=False)[1:-1]})
            )
