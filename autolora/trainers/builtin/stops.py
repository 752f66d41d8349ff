"""Where a generated answer ends: where the model says so, and where training taught it to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from autolora.bases import Base
from autolora.tasks.causal_lm.split import PreparedData

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]

ROWS = 2000
"""Rows of a split that are looked at."""
RARE = 0.05
"""Share of rows that may be otherwise: those that were cut, and what a text happens to contain."""
LONGEST = 32
"""Tokens of an end marker that is written as plain text."""


@dataclass(frozen=True)
class Stops:
    """Token sequences, most of them of one token, each of which ends an answer."""

    sequences: tuple[Ids, ...]

    @classmethod
    def of(cls, base: Base, data: PreparedData) -> Stops:
        """The stops of the tokenizer, of the model's generation config, and of what is learned last in the rows."""
        own: set[Ids] = {(token,) for token in _own(base)}
        answers = [
            tuple(split.answer_tokens(row).tolist())
            for split in data.splits.values()
            for row in islice(range(len(split)), ROWS)
        ]
        return cls(tuple(sorted(own | _learned(answers, own, base.tokenizer))))

    def cut(self, answer: Sequence[int]) -> list[int]:
        """The answer before its first stop."""
        ids = tuple(answer)
        for end in range(1, len(ids) + 1):
            for stop in self.sequences:
                if ids[max(0, end - len(stop)) : end] == stop:
                    return list(ids[: end - len(stop)])
        return list(ids)

    def reached(self, generated: Tensor) -> Tensor:
        """(batch,) bool: whether the tokens generated so far, (batch, tokens), end in a stop."""
        import torch

        done = torch.zeros(len(generated), dtype=torch.bool, device=generated.device)
        for stop in self.sequences:
            if len(stop) <= generated.shape[1]:
                done |= (generated[:, -len(stop) :] == torch.tensor(stop, device=generated.device)).all(dim=1)
        return done


def _own(base: Base) -> set[int]:
    """EOS of the tokenizer, and of the model's generation config, which may name several."""
    import torch

    named = getattr(getattr(base.model, "generation_config", None), "eos_token_id", None)
    found = [] if named is None else torch.as_tensor(named).flatten().tolist()
    return {int(token) for token in [*found, base.tokenizer.eos_token_id] if token is not None}


def _learned(answers: Sequence[Ids], own: set[Ids], tokenizer: PreTrainedTokenizerBase) -> set[Ids]:
    """What ends the answers: special tokens of their own, or else a text that ends nearly all of them."""
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    blank = lru_cache(maxsize=None)(lambda token: not tokenizer.decode([token]).strip() and token not in special)

    def marker(answer: Ids) -> int:
        """The last token but for white space, which a template may put behind its end marker."""
        return next((token for token in reversed(answer) if not blank(token)), answer[-1])

    last = Counter(marker(answer) for answer in answers)
    everywhere = Counter(token for answer in answers for token in answer)
    markers = {
        (token,)
        for token, count in last.items()
        if token in special and everywhere[token] - count <= RARE * count  # not one that answers contain
    }
    others = [answer for answer in answers if (marker(answer),) not in markers | own]
    text = _common_end(others) if 2 * len(others) > len(answers) else ()
    return markers | ({text} if text else set())


def _common_end(answers: Sequence[Ids]) -> Ids:
    """The longest sequence in which nearly all answers end, and which they do not contain before; () if none.

    It is never a whole answer, which would be cut to nothing.
    """
    least = (1 - RARE) * len(answers)
    found: Ids = ()
    while len(found) < LONGEST:
        width = len(found) + 1
        ends = Counter(answer[-width:] for answer in answers if len(answer) > width and answer[-width:][1:] == found)
        [(longer, count)] = ends.most_common(1) or [((), 0)]
        if count < least:
            break
        found = longer
    within = sum(_contains(answer[:-1], found) for answer in answers) if found else 0
    return found if within <= RARE * len(answers) else ()


def _contains(answer: Ids, part: Ids) -> bool:
    return any(answer[at : at + len(part)] == part for at in range(len(answer) - len(part) + 1))
