"""Turn examples into token ids and the mask of the tokens that are learned.

The first token of a row is never a target, because nothing predicts it: the number of targets is the number of terms
in the loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from autolora.tasks.causal_lm.chat.template import RefusedError, Template
from autolora.tasks.causal_lm.chat.turns import Dialogue, Renderer
from autolora.tasks.causal_lm.examples import Chat, Example, Message, Pair, Skipped, Tokens
from autolora.tasks.causal_lm.formats.format import registry
from autolora.tasks.causal_lm.prefixes import common_prefix
from autolora.tasks.causal_lm.split import last_run
from autolora.tasks.data.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class Encoded:
    """One example as tokens.

    Args:
        ids: (length,) int32.
        targets: (length,) bool.
        text: (prompt, completion), the text before the last learned stretch, and its own without EOS; None where the
            example came as tokens.
        cut: whether the right end was cut off.
        left_out: how many pieces of the example are not in the tokens, or not learned, by what they are.
        lost: targets in what was cut off.
    """

    ids: np.ndarray
    targets: np.ndarray
    text: tuple[str, str] | None
    cut: bool = False
    lost: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Unlearnable:
    """An example with nothing to learn: why, and its text as far as there is one."""

    reason: str
    text: str = ""


TOO_LONG = Unlearnable("the prompt leaves no room for a target")
NO_TARGET = "no token to learn from, all are masked or the row is empty"
EMPTY = "empty completions, of which the end alone is learned"


class Encoder:
    """Tokenizes examples in batches.

    Args:
        tokenizer: a ``transformers`` tokenizer.
        max_length: tokens that a row may have.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length

    def encode(self, examples: Sequence[Example], places: Sequence[str]) -> list[Encoded | Unlearnable]:
        """One entry an example; :data:`TOO_LONG` where the prompt leaves no room for a target.

        Args:
            examples: all of one kind, as they come from one table, or skipped.
            places: file and row of each, for errors.

        Raises:
            DataError: an example cannot be turned into tokens.
        """
        skipped = {i: Unlearnable(e.reason) for i, e in enumerate(examples) if isinstance(e, Skipped)}
        kept = [i for i in range(len(examples)) if i not in skipped]
        encoded = self._encode([examples[i] for i in kept], [places[i] for i in kept]) if kept else []
        rows = {i: self._cut(row) if isinstance(row, Encoded) else row for i, row in zip(kept, encoded, strict=True)}
        return [skipped.get(i) or rows[i] for i in range(len(examples))]

    def _encode(self, examples: Sequence[Example], places: Sequence[str]) -> Sequence[Encoded | Unlearnable]:
        """Whole rows, of examples of one kind."""
        pairs = [example for example in examples if isinstance(example, Pair)]
        if pairs:
            return self._encode_pairs(pairs)
        if isinstance(examples[0], Chat):
            return self._encode_chats([e for e in examples if isinstance(e, Chat)], places)
        return [self._encode_tokens(e, place) for e, place in zip(examples, places, strict=True)]

    def texts(self, row: Encoded) -> dict[str, str]:
        """The row's "prompt" and "completion"; decoded where the row came as tokens."""
        if row.text is not None:
            return {"prompt": row.text[0], "completion": row.text[1]}
        first, last = last_run(row.targets)
        return {
            "prompt": self._tokenizer.decode(row.ids[:first].tolist()),
            "completion": self._tokenizer.decode(row.ids[first:last].tolist(), skip_special_tokens=True),
        }

    @cached_property
    def start(self) -> list[int]:
        """The tokens that open a row, BOS as a rule; [] where the model expects none.

        What the tokenizer itself puts in front of a text is taken. One that puts nothing there although it has a BOS
        token gets it, unless BOS is also its EOS, or its configuration says ``add_bos_token: false``, or it has a
        chat template whose conversations do not open with exactly one BOS.
        """
        tokenizer = self._tokenizer
        plain = self._ids(["a"])[0]
        own = tokenizer("a")["input_ids"]
        added: list[int] = next((own[:i] for i in range(len(own)) if own[i : i + len(plain)] == plain), [])
        bos = tokenizer.bos_token_id
        if added or bos is None or bos == tokenizer.eos_token_id:
            return added
        if getattr(tokenizer, "init_kwargs", {}).get("add_bos_token") is False:
            return []
        return [bos] if self._conversations_open_with_bos() else []

    def notes(self, formats: Collection[str]) -> tuple[str, ...]:
        """How rows of these formats begin and end, in plain lines."""
        notes = []
        kinds = {registry()[format].makes for format in formats}
        if Chat in kinds:
            as_last = self._renderer.template.opens_earlier_turns_otherwise
            notes.append(
                "conversations: as the chat template renders them; the assistant's turns are learned"
                + ", each written as if it were the last, since the template begins earlier ones otherwise" * as_last
            )
        if Pair in kinds:
            start = "".join(self._tokenizer.convert_ids_to_tokens(self.start)) or "no BOS token"
            end = self._tokenizer.eos_token or "nothing, since the tokenizer has no EOS token"
            notes.append(f"texts: begin with {start} and end with {end}")
        return tuple(notes)

    def _conversations_open_with_bos(self) -> bool:
        if not getattr(self._tokenizer, "chat_template", None):
            return True
        probe: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        try:
            text = Template(self._tokenizer).text(probe)
        except RefusedError:  # a template for other roles tells nothing
            return True
        bos = self._tokenizer.bos_token
        # a token that opens every message, such as <|im_start|>, is not the beginning of a text
        return text.lstrip().startswith(bos) and text.count(bos) == 1

    def _ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids without special tokens."""
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )["input_ids"]
        return ids

    def _encode_pairs(self, pairs: Sequence[Pair]) -> list[Encoded]:
        eos = self._tokenizer.eos_token_id
        eos_text = self._tokenizer.eos_token
        prompts = [pair.prompt for pair in pairs if pair.prompt]
        encoded = self._ids([pair.prompt + pair.completion for pair in pairs] + prompts)
        prompt_ids = iter(encoded[len(pairs) :])
        rows = []
        for pair, ids in zip(pairs, encoded, strict=False):
            boundary = common_prefix(next(prompt_ids), ids) if pair.prompt else 0
            if ids[: len(self.start)] != self.start:
                ids = self.start + ids
                boundary += len(self.start)
            if eos is not None and ids[-1:] != [eos]:
                ids.append(eos)
            targets = np.arange(len(ids)) >= max(boundary, 1)
            completion = pair.completion.removesuffix(eos_text) if eos_text else pair.completion
            left_out = Counter[str]() if completion else Counter([EMPTY])
            rows.append(Encoded(np.array(ids, dtype=np.int32), targets, (pair.prompt, completion), left_out=left_out))
        return rows

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(Template(self._tokenizer))

    def _encode_chats(self, chats: Sequence[Chat], places: Sequence[str]) -> list[Encoded | Unlearnable]:
        """The template is the whole truth about special tokens here: none is added to what it renders."""
        dialogues = [self._renderer.dialogue(chat, place) for chat, place in zip(chats, places, strict=True)]
        spans = self._token_spans(dialogues)
        return [self._encode_dialogue(*row) for row in zip(dialogues, spans, strict=True)]

    def _encode_dialogue(
        self, dialogue: Dialogue, spans: tuple[list[int], list[tuple[int, int]]]
    ) -> Encoded | Unlearnable:
        if dialogue.reason:
            return Unlearnable(dialogue.reason, dialogue.text)
        ids, turns = spans
        targets = np.zeros(len(ids), dtype=bool)
        for start, end in turns:
            targets[max(start, 1) : end] = True
        # the last turn of which something is left after cutting
        shown = [t for t, (start, _) in zip(dialogue.turns, turns, strict=True) if start < self._max_length]
        text = (dialogue.text[: shown[-1].start], shown[-1].answer) if shown else ("", "")
        return Encoded(np.array(ids, dtype=np.int32), targets, text, left_out=dialogue.left_out)

    def _token_spans(self, dialogues: Sequence[Dialogue]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Per dialogue its token ids, and [start, end) of each assistant turn in tokens."""
        texts = [dialogue.text for dialogue in dialogues]
        if not self._tokenizer.is_fast:
            return [self._token_spans_by_prefix(dialogue) for dialogue in dialogues]
        encoded = self._tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans = []
        for dialogue, ids, offsets in zip(dialogues, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
            # a token glued across the edge of a turn belongs to the turn, as with prompt and completion
            turns = [
                (int(np.searchsorted(ends, turn.start, side="right")), int(np.searchsorted(starts, turn.end)))
                for turn in dialogue.turns
            ]
            spans.append((ids, turns))
        return spans

    def _token_spans_by_prefix(self, dialogue: Dialogue) -> tuple[list[int], list[tuple[int, int]]]:
        """For a tokenizer written in Python, which knows no offsets."""
        edges = [edge for turn in dialogue.turns for edge in (turn.start, turn.end)]
        ids, *parts = self._ids([dialogue.text] + [dialogue.text[:edge] for edge in edges])
        bounds = [common_prefix(part, ids) for part in parts]
        return ids, list(zip(bounds[::2], bounds[1::2], strict=True))

    def _encode_tokens(self, example: Example, place: str) -> Encoded:
        assert isinstance(example, Tokens)
        ids, targets = example.ids, example.targets.copy()
        targets[:1] = False
        outside = ids[(ids < 0) | (ids >= len(self._tokenizer))]
        if outside.size:
            raise DataError(
                f"{place}, column 'input_ids': {outside[0]} is no token of this tokenizer, which has "
                f"{len(self._tokenizer)}; tokenize the data with the tokenizer of the model"
            )
        return Encoded(ids, targets, None)

    def _cut(self, row: Encoded) -> Encoded | Unlearnable:
        if not row.targets.any():
            return Unlearnable(NO_TARGET, self._tokenizer.decode(row.ids.tolist()))
        if len(row.ids) <= self._max_length:
            return row
        targets = row.targets[: self._max_length]
        if not targets.any():
            return TOO_LONG
        lost = int(row.targets[self._max_length :].sum())
        return replace(row, ids=row.ids[: self._max_length], targets=targets, cut=True, lost=lost)
