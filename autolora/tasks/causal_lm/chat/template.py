"""A tokenizer's chat template, and the form of messages that it takes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from autolora.tasks.causal_lm.chat.conventions import PLAIN, Convention, convention_of
from autolora.tasks.causal_lm.examples import Message, text_of
from autolora.tasks.data.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
CLOCK = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
TAG = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")
OPENED_THOUGHT = re.compile(r"<think>\s*(?:</think>\s*)?$")
LONGEST_MARKER = 40  # characters of an end marker that has no tags
QUESTION, ANSWER, ARGUMENT = "qzxu", "qzxa", "qzxc"
"""Words that stand in no template, for probing it."""

EXCHANGE: list[Message] = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
CALL = {"id": "qzx000001", "type": "function", "function": {"name": "look_up", "arguments": {"what": ARGUMENT}}}
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "qzxd",
        "parameters": {"type": "object", "properties": {"what": {"type": "string", "description": "qzxe"}}},
    },
}
CALLING: list[Message] = [
    EXCHANGE[0],
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "name": "look_up", "tool_call_id": "qzx000001", "content": "qzxt"},
    EXCHANGE[1],
]


class RefusedError(Exception):
    """The template refuses a conversation; the message is what it says."""


@dataclass(frozen=True)
class Form:
    """The form of messages that a template takes.

    Attributes:
        parts: content is a list of parts, as vision models have it, and not text.
        mixed: content may also be a list of parts.
        empty: content is "" where a message has tool calls and nothing else; otherwise it has no content.
        written_arguments: the arguments of a tool call are JSON text, and not an object.
    """

    parts: bool = False
    mixed: bool = False
    empty: bool = False
    written_arguments: bool = False

    def message(self, message: Message) -> Message:
        """The message in this form; keys without a value are left out, since templates would print None."""
        adapted = {key: value for key, value in message.items() if value is not None}
        if "content" in adapted:
            adapted["content"] = self._content(adapted["content"])
        elif self.empty:
            adapted["content"] = self._content("")
        if self.written_arguments and "tool_calls" in adapted:
            adapted["tool_calls"] = [_written(call) for call in adapted["tool_calls"]]
        return adapted

    def _content(self, content: Any) -> Any:
        if self.parts:
            return content if isinstance(content, list) else [{"type": "text", "text": content}]
        if isinstance(content, list) and not self.mixed:
            return text_of(content)
        return content


def _written(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or isinstance(function.get("arguments"), str):
        return call
    return {**call, "function": {**function, "arguments": json.dumps(function.get("arguments"), ensure_ascii=False)}}


class Template:
    """Renders conversations.

    Raises:
        DataError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise DataError(
                "the tokenizer has no chat template, so conversations cannot be turned into text: use the model's "
                "instruct version, set tokenizer.chat_template, or give prompt and completion columns"
            )
        self.tokenizer = tokenizer
        self._now = datetime.now()

    def text(self, messages: Sequence[Message], tools: list[Any] | None = None, *, prompt: bool = False) -> str:
        """The conversation as text, with ``prompt`` up to where the assistant's next turn is generated.

        Raises:
            RefusedError: the template does not take this conversation.
        """
        return self._rendered(self.form, messages, tools, prompt)

    def marked(self, tools: list[Any] | None) -> bool:
        """Whether the template marks what the assistant generates."""
        return GENERATION.search(self._source(tools)) is not None

    def marks(self, messages: Sequence[Message], tools: list[Any] | None) -> list[tuple[int, int]]:
        """[start, end) in characters of each stretch that ``{% generation %}`` marks and that is not empty."""
        from transformers.utils.chat_template_utils import render_jinja_template

        _, marks = _guarded(
            render_jinja_template,
            conversations=[[self.form.message(message) for message in messages]],
            tools=tools or None,
            chat_template=self._source(tools),
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        return [(start, end) for start, end in marks[0] if start < end]

    @cached_property
    def convention(self) -> Convention:
        """What another trainer learns with this template; :data:`PLAIN` where none ships it."""
        return convention_of(self._written(None)) if not self.marked(None) else PLAIN

    @cached_property
    def closing(self) -> str | None:
        """What follows the text of a last turn; "" if the template closes it with nothing, None if it is not known."""
        text = self._probed(EXCHANGE)
        return None if text is None else text.rpartition(ANSWER)[2].strip()

    @cached_property
    def prompt(self) -> str:
        """What the template writes to ask for an answer, without an opened thought; "" if it writes nothing."""
        before, text = self._probed(EXCHANGE[:1]), self._probed(EXCHANGE[:1], prompt=True)
        if not before or not text or not text.startswith(before):
            return ""
        return OPENED_THOUGHT.sub("", text[len(before) :])

    def without_special(self, text: str) -> str:
        """The text as decoding tokens leaves it if special ones are skipped."""
        for token in self._special:
            text = text.replace(token, "")
        return text

    @cached_property
    def _special(self) -> set[str]:
        added = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        return added | set(self.tokenizer.all_special_tokens)

    @cached_property
    def goes_on(self) -> bool:
        """Whether more than an end marker follows the last answer, such as a prompt for the next one, asked for or not.

        A prompt shows by its last tag and what follows it, which stands before an answer, and not before a question.
        """
        text = self._probed([*EXCHANGE, *EXCHANGE]) or ""
        tail = self.closing or ""
        tags = TAG.findall(tail)
        before = re.findall(rf"{QUESTION}(.*?){ANSWER}", text, re.DOTALL)
        after = re.findall(rf"{ANSWER}(.*?){QUESTION}", text, re.DOTALL)
        last = tail[tail.rfind(tags[-1]) :] if tags else ""
        prompts = bool(last and before and after) and last in before[-1] and last not in after[0]
        return prompts or len(TAG.sub("", tail)) > LONGEST_MARKER

    @cached_property
    def opens_earlier_turns_otherwise(self) -> bool:
        """Whether an earlier answer begins otherwise than the last one, as with Qwen 3, although none has a thought.

        The model would learn to begin turns in a way in which it never begins the turn that it is asked for.
        """
        text = self._probed([*EXCHANGE, *EXCHANGE]) or ""
        between = re.findall(rf"{QUESTION}(.*?){ANSWER}", text, re.DOTALL)
        return len(between) == 2 and between[0] != between[1]

    @cached_property
    def form(self) -> Form:
        """The form of messages that this template takes, found by trying them."""
        form = next((form for form in (Form(), Form(parts=True)) if self._shows(form, EXCHANGE, ANSWER)), Form())
        parts = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in EXCHANGE]
        if not form.parts and self._tried(Form(mixed=True), parts) == self._tried(form, EXCHANGE) is not None:
            form = replace(form, mixed=True)
        forms = [replace(form, empty=e, written_arguments=w) for w in (False, True) for e in (False, True)]
        for calls in (CALLING, CALLING[:2]):
            shown = next((each for each in forms if self._shows(each, calls, ARGUMENT)), None)
            if shown is not None:
                return shown
        return next((each for each in forms if self._tried(each, CALLING[:2]) is not None), form)

    def _probed(self, messages: list[Message], *, prompt: bool = False) -> str | None:
        """A conversation of probing words, with a tool if the template wants one; None if it is for other roles."""
        for tools in (None, [TOOL]):
            try:
                return self.text(messages, tools, prompt=prompt)
            except RefusedError:
                continue
        return None

    def _shows(self, form: Form, messages: list[Message], word: str) -> bool:
        return word in (self._tried(form, messages) or "")

    def _tried(self, form: Form, messages: list[Message]) -> str | None:
        try:
            return self._rendered(form, messages, None, False)
        except RefusedError:
            return None

    def _rendered(self, form: Form, messages: Sequence[Message], tools: list[Any] | None, prompt: bool) -> str:
        text: str = _guarded(
            self.tokenizer.apply_chat_template,
            [form.message(message) for message in messages],
            tools=tools or None,
            chat_template=self._source(tools),
            tokenize=False,
            add_generation_prompt=prompt,
        )
        return text

    def _source(self, tools: list[Any] | None) -> str:
        """The template with the time standing still, since turns are found by what differs between renderings."""
        source = self._written(tools)
        if "strftime_now" not in source:
            return source
        return CLOCK.sub(lambda call: json.dumps(self._now.strftime(call[2])), source)

    def _written(self, tools: list[Any] | None) -> str:
        source: str = _guarded(self.tokenizer.get_chat_template, None, tools or None)
        return source


def _guarded(render: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What ``render`` returns; what a template's own program raises becomes :class:`RefusedError`."""
    import jinja2

    try:
        return render(*args, **kwargs)
    except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise RefusedError(" ".join(str(error).split()) or type(error).__name__) from error
