"""Where the assistant's turns are in the text of a conversation.

If the template marks them with ``{% generation %}``, these marks are taken. Otherwise a turn begins where the rendering
of the conversation before it, with the generation prompt, ends, and it ends behind its own end marker, which is
learned too, without the white space that the template puts after that.

Some templates write earlier turns in another way than the last one. Such a turn is found by what differs if the message
says something else. Where even the beginning of an answer without a thought differs (Qwen 3), the turn is written as if
it were the last: this is how the model is asked for it. Where only the thought is dropped or another marker ends the
turn (GPT-OSS, GLM, Nemotron), it stays as the template writes it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from autolora.tasks.causal_lm.chat.completeness import CLOSED_THOUGHT, Completeness, rewritten, thought_of
from autolora.tasks.causal_lm.chat.template import OPENED_THOUGHT, TAG, RefusedError, Template
from autolora.tasks.causal_lm.examples import ALL_UNLEARNED, NO_TURN, Chat, Message, text_of
from autolora.tasks.causal_lm.prefixes import common_prefix

RENDERING = 2
"""Raise it if the same conversations come out as other texts, or with other turns."""
NOT_FOUND = "the chat template writes the answers so that they cannot be found in the text"
GOES_ON = "the chat template writes more behind the last answer than its end, so that the end cannot be learned"
MISSED = "answers that the chat template writes so that they cannot be found, and that are not learned"
EARLIER_THOUGHTS = "thoughts of earlier answers that the chat template drops"
LAST_THOUGHTS = "thoughts of last answers that the chat template drops"
REWRITTEN = "messages that the chat template shortens or rewrites"
WORDS = ("qzxw", "zqxw")
"""Two words that stand in no template and begin differently, to say instead of a message's text."""
OPENED_TAG = re.compile(r"[<\[][^<>\[\]\s]*$")
MARKER = re.compile(rf"{TAG.pattern}|\S+")


@dataclass(frozen=True)
class Turn:
    """An assistant turn: characters [start, end) of the text are learned; ``answer`` is that without its end marker."""

    start: int
    end: int
    answer: str


@dataclass(frozen=True)
class Dialogue:
    """A rendered conversation.

    Attributes:
        text: as the template writes it, but for turns that are written as if they were the last, and EOS.
        turns: those that are learned, in order.
        reason: why there is none; "" if there is one.
        left_out: how many pieces of the conversation the template leaves out or are not learned, by what they are.
    """

    text: str
    turns: list[Turn]
    reason: str = ""
    left_out: Counter[str] = field(default_factory=Counter)


class Renderer:
    """Turns conversations into dialogues.

    Raises:
        DataError: the tokenizer has no chat template.
    """

    def __init__(self, template: Template) -> None:
        self.template = template
        self._completeness = Completeness(template)

    def dialogue(self, chat: Chat, where: str) -> Dialogue:
        """The text of a conversation and the turns in it that are learned.

        A template that closes the last turn with nothing gets the EOS token there, so that the model learns to stop.

        Raises:
            DataError: the template leaves out a part of the conversation that is not a thought.
        """
        answers = [index for index, message in enumerate(chat.messages) if message["role"] == "assistant"]
        learned = [index for index in answers if index not in chat.unlearned]
        if not learned:
            return Dialogue("", [], ALL_UNLEARNED if answers else NO_TURN)
        try:
            text = self.template.text(chat.messages, chat.tools)
            thoughts = self._completeness.thoughts_left_out(chat, where)
            if self.template.marked(chat.tools):
                found = _marked(self.template, chat, text, learned)
            else:
                found = _Search(self.template, chat, text).turns(learned)
            if self.template.goes_on:
                return Dialogue(text, [], GOES_ON)
        except RefusedError as refusal:
            return Dialogue("", [], f"the chat template refuses the conversation: {refusal}")
        written = {index: found.text[start:end] for index, start, end in found.spans}
        left_out = Counter(
            LAST_THOUGHTS if index == learned[-1] else EARLIER_THOUGHTS
            for index in thoughts
            if thought_of(chat.messages[index]) not in written.get(index, "")
        )
        if others := rewritten(chat, text):
            left_out[REWRITTEN] = others
        if len(written) < len(learned):
            left_out[MISSED] = len(learned) - len(written)
        turns = [
            Turn(start, end, self._answer(found.text[start:end], chat.messages[i])) for i, start, end in found.spans
        ]
        return Dialogue(found.text, turns, "" if turns else NOT_FOUND, left_out)

    def _answer(self, learned: str, message: Message) -> str:
        said = text_of(message.get("content"))
        if said.strip() and learned.startswith(said.strip()) and not message.get("tool_calls"):
            return said
        return self.template.without_special(learned.rstrip().removesuffix(self.template.closing or ""))


@dataclass(frozen=True)
class _Place:
    """[begin, end) of a text is a turn; ``opening`` takes the place of [start, begin), as a rule both are empty."""

    start: int
    opening: str
    begin: int
    end: int


@dataclass(frozen=True)
class _Found:
    """The text, and (index of the message, start, end) of each turn found in it, in order."""

    text: str
    spans: list[tuple[int, int, int]]


def _marked(template: Template, chat: Chat, text: str, learned: list[int]) -> _Found:
    """The stretches that the template marks; one belongs to the last message that begins before its end."""
    marks = template.marks(chat.messages, chat.tools)
    if not chat.unlearned:
        # neighbors are one stretch, as an end marker that has marks of its own
        joined: list[tuple[int, int]] = []
        for start, end in marks:
            if joined and joined[-1][1] == start:
                start = joined.pop()[0]
            joined.append((start, end))
        indices = learned if len(learned) == len(joined) else [learned[-1]] * len(joined)
        return _Found(text, [(index, *span) for index, span in zip(indices, joined, strict=True)])
    search = _Search(template, chat, text)
    answers = [index for index, message in enumerate(chat.messages) if message["role"] == "assistant"]
    begins = {index: search.begin_of_text(index, len(chat.messages)) or 0 for index in answers}
    spans = []
    for start, end in marks:
        index = max((index for index in answers if begins[index] < end), default=answers[0])
        if index in learned:
            spans.append((index, start, end))
    return _Found(text, spans)


class _Search:
    """Looks for the turns of one conversation in its text.

    A count stands for the conversation up to so many messages, rendered alone.
    """

    def __init__(self, template: Template, chat: Chat, text: str) -> None:
        self._template = template
        self._messages = chat.messages
        self._tools = chat.tools
        self._text = text
        self._alone = {(len(chat.messages), False): text}

    def turns(self, learned: list[int]) -> _Found:
        """The turns in the text, which is changed where one is written as if it were the last."""
        spans: list[tuple[int, int, int]] = []
        text, done = "", 0  # what is written, and how much of the template's text that is
        for index in learned:
            place = self._place(index, done)
            if place is None:
                continue
            text += self._text[done : place.start] + place.opening
            spans.append((index, len(text) - len(place.opening), len(text) + place.end - place.begin))
            text += self._text[place.begin : place.end]
            done = place.end
        return self._closed(text + self._text[done:], spans)

    def begin_of_text(self, index: int, count: int) -> int | None:
        """Where the text of a message begins, or would, in that of ``count`` messages; None if nothing shows it."""
        message = self._messages[index]
        thought, closed, said = text_of(message.get("content")).rpartition(CLOSED_THOUGHT)
        word = next(word for word in WORDS if not said.lstrip().startswith(word[0]))
        others: list[Message] = [{**message, "content": thought + closed + word}]
        if message.get("tool_calls"):  # beside which a template may drop the text
            calls = [
                {**call, "function": {**call["function"], "arguments": {w: w for w in WORDS}}}
                for call in message["tool_calls"]
            ]
            others.append({**message, "tool_calls": calls})
        text = self._rendered(count)
        for other in others:
            changed = self._render([*self._messages[:index], other, *self._messages[index + 1 : count]])
            if changed not in ("", text):
                return common_prefix(text, changed)
        return None

    def _rendered(self, count: int, *, prompt: bool = False) -> str:
        """The first messages alone; "" if there is none, or the template refuses them."""
        if (count, prompt) not in self._alone:
            self._alone[count, prompt] = self._render(self._messages[:count], prompt=prompt) if count else ""
        return self._alone[count, prompt]

    def _render(self, messages: list[Message], *, prompt: bool = False) -> str:
        try:
            return self._template.text(messages, self._tools, prompt=prompt)
        except RefusedError:  # a part of a conversation, or one with another word in it, need not be one
            return ""

    def _place(self, index: int, floor: int) -> _Place | None:
        """Where the turn of a message is in the text behind ``floor``; None if it cannot be found."""
        whole = self._rendered(index + 1).rstrip()
        start, header = self._start(index)
        if not whole or start is None:
            return None
        if self._text.startswith(whole):
            return _Place(start, "", start, len(whole)) if start >= floor else None
        begin_alone, begin = self.begin_of_text(index, index + 1), self.begin_of_text(index, len(self._messages))
        if begin_alone is None or begin is None or begin < floor:
            return None
        begin_alone, begin = _behind_space(whole, begin_alone), _behind_space(self._text, begin)
        start_here = self._behind_header(header, index, len(self._messages), begin)
        end = self._end(whole[begin_alone:], begin)
        if start_here is None or end is None:
            return None
        if self._template.opens_earlier_turns_otherwise:
            return _Place(start_here, whole[start:begin_alone], begin, end)
        return _Place(start_here, "", start_here, end)

    def _start(self, index: int) -> tuple[int | None, str]:
        """Where the turn begins, as the model generates it, in the conversation that ends with it; its header."""
        alone, before = self._rendered(index + 1), self._rendered(index).rstrip()
        opening = self._rendered(index, prompt=True)
        start = common_prefix(opening, alone)
        if not opening or (start < len(opening) and (start < len(before) or not alone.startswith(before))):
            header, begin = self._template.prompt, self.begin_of_text(index, index + 1)
            return begin and self._behind_header(header, index, index + 1, begin), header
        if start < len(opening):
            # the prompt may hold more than a turn does, such as an opened thought, or other white space
            start = _behind(opening[start:], alone, _before(OPENED_TAG, alone, start))
        start = _behind(self._template.prompt, alone, start)
        # an opened thought is learned, since without it the model would have to be asked otherwise
        start = _before(OPENED_THOUGHT, alone, start)
        return start, alone[common_prefix(before, alone) : start]

    def _behind_header(self, header: str, index: int, count: int, begin: int) -> int | None:
        """Where the header of a turn ends whose text begins at ``begin`` in that of ``count`` messages.

        Without a header the turn begins with its text; None if it has no text, but calls tools.
        """
        previous = self.begin_of_text(index - 1, count) if index else None
        found = self._rendered(count).find(header, previous or 0, begin) if header else -1
        if found >= 0:
            return found + len(header)
        return begin if text_of(self._messages[index].get("content")) else None

    def _end(self, alone: str, begin: int) -> int | None:
        """Where the turn ends whose text begins here, and reads ``alone`` if it is the last turn."""
        same = common_prefix(alone, self._text[begin : begin + len(alone)])
        if same == len(alone):
            return begin + same
        closing = self._template.closing or ""
        body = len(alone) - len(closing)
        if not closing or same < body:
            return None
        other = MARKER.search(self._text, begin + body)  # another marker ends it
        return other.end() if other else None

    def _closed(self, text: str, spans: list[tuple[int, int, int]]) -> _Found:
        """The turns with what the convention adds, and with EOS if the template closes the last one with nothing."""
        convention = self._template.convention
        closed = []
        for index, start, end in spans:
            calls = bool(self._messages[index].get("tool_calls"))
            if index == len(self._messages) - 1 and self._unclosed(text[start:end], self._messages[index]):
                stop = convention.stop_after(calls) or self._template.tokenizer.eos_token or ""
                text = text[:end] + stop
                end = len(text)
            closed.append((index, *convention.widened(text, start, end, calls)))
        return _Found(text, closed)

    def _unclosed(self, turn: str, message: Message) -> bool:
        """Whether nothing follows what the last message says."""
        said = text_of(message.get("content")).rpartition(CLOSED_THOUGHT)[2].strip()
        if said and not message.get("tool_calls"):
            return turn.endswith(said)
        return self._template.closing == ""


def _before(pattern: re.Pattern[str], text: str, end: int) -> int:
    """Where the pattern begins that ends at ``end``; ``end`` where it doesn't."""
    found = pattern.search(text, max(0, end - 64), end)
    return found.start() if found else end


def _behind(header: str, text: str, start: int) -> int:
    """Where a header ends that follows here, white space aside; ``start`` if none does."""
    begin = len(text) - len(text[start:].lstrip())
    for form in (header.lstrip(), header.strip()):
        if form and text.startswith(form, begin):
            return begin + len(form)
    return start


def _behind_space(text: str, place: int) -> int:
    """The next place that holds no white space."""
    return len(text) - len(text[place:].lstrip())
