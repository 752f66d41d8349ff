"""Render a conversation with the tokenizer's chat template, and find the assistant's turns in the text.

Where the template marks them itself with ``{% generation %}``, these marks are taken. Otherwise a turn begins where the
rendering of the conversation before it, with the generation prompt, ends; it ends behind its own end-of-turn marker,
which is learned too, without the white space that the template puts after that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from autolora.tasks.causal_lm.examples import Message
from autolora.tasks.data.errors import DataError, show

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Turn:
    """An assistant turn: characters [start, end) of the text are learned; ``content`` is what the message said."""

    start: int
    end: int
    content: str


@dataclass(frozen=True)
class Dialogue:
    """A rendered conversation."""

    text: str
    turns: list[Turn]


def require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises :class:`DataError` where the tokenizer has no chat template."""
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            "the tokenizer has no chat template, so conversations cannot be turned into text: use the model's instruct "
            "version, set tokenizer.chat_template, or give prompt and completion columns"
        )


def render(tokenizer: PreTrainedTokenizerBase, messages: list[Message], where: str) -> Dialogue:
    """The text of a conversation and its assistant turns.

    A template that closes the last turn with nothing gets the EOS token there, so that the model learns to stop.

    Raises:
        DataError: the template refuses the conversation, or rewrites earlier turns so that they cannot be found.
    """
    import jinja2

    try:
        if tokenizer.is_fast and re.search(r"\{%-?\s*generation\s*-?%\}", str(tokenizer.chat_template)):
            return _marked(tokenizer, messages)
        return _found(tokenizer, messages, where)
    except jinja2.TemplateError as error:
        raise DataError(f"{where}: the chat template refuses the conversation: {error}") from None


def _marked(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> Dialogue:
    """The turns that ``{% generation %}`` marks."""
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    encoded = tokenizer.apply_chat_template(
        messages,
        return_dict=True,
        return_assistant_tokens_mask=True,
        tokenizer_kwargs={"return_offsets_mapping": True},
    )
    spans: list[tuple[int, int]] = []
    before = 0
    for learned, (start, end) in zip(encoded["assistant_masks"], encoded["offset_mapping"], strict=True):
        if learned and before:
            spans[-1] = (spans[-1][0], end)
        elif learned:
            spans.append((start, end))
        before = learned
    contents = [message["content"] or "" for message in messages if message["role"] == "assistant"]
    if len(contents) != len(spans):
        contents = [text[start:end] for start, end in spans]
    return Dialogue(text, [Turn(*span, content) for span, content in zip(spans, contents, strict=True)])


def _found(tokenizer: PreTrainedTokenizerBase, messages: list[Message], where: str) -> Dialogue:
    """The turns found by rendering the conversation up to them."""
    rendering = partial(tokenizer.apply_chat_template, tokenize=False)
    text = rendering(messages)
    turns = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        content = message["content"] or ""
        start = _start(rendering, text, messages[:index], content)
        last = index == len(messages) - 1
        end = None if start is None else _end(text, start, text if last else rendering(messages[: index + 1]), content)
        if start is None or end is None:
            raise DataError(
                f"{where}: the chat template rewrites earlier turns, so the assistant's turn {index + 1} "
                f"({show(content)}) cannot be found in the text; use a template with {{% generation %}} marks, or one "
                "exchange a row"
            )
        turns.append(Turn(start, end, content))
    if turns and tokenizer.eos_token and text[: turns[-1].end].endswith(turns[-1].content.strip()):
        text = text[: turns[-1].end] + tokenizer.eos_token
        turns[-1] = Turn(turns[-1].start, len(text), turns[-1].content)
    return Dialogue(text, turns)


def _start(rendering: Callable[..., str], text: str, history: Sequence[Message], content: str) -> int | None:
    if not history:
        return max(text.find(content.strip()), 0)
    opening = rendering(history, add_generation_prompt=True)
    if text.startswith(opening):
        return len(opening)
    # a generation prompt may hold more than a turn does, such as an opened <think>
    if text.startswith(rendering(history)):
        return common_prefix(text, opening)
    return None


def _end(text: str, start: int, alone: str, content: str) -> int | None:
    """Args: the conversation up to and with this turn, rendered ``alone``."""
    alone = alone.rstrip()
    if text.startswith(alone):
        return len(alone)
    # the last turn of a conversation is rendered in another way than earlier ones: look for its content and marker
    content = content.strip()
    inside, at = alone.rfind(content), text.find(content, start)
    if not content or inside < 0 or at < 0:
        return None
    marker = alone[inside + len(content) :].split()[:1]
    closing = re.compile(r"\s*" + re.escape("".join(marker))).match(text, at + len(content))
    return closing.end() if closing else None


def common_prefix(left: Sequence[object], right: Sequence[object]) -> int:
    """How many leading items two sequences share."""
    if left == right[: len(left)]:
        return len(left)
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), len(right))
