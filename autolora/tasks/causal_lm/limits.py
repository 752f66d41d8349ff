"""What a model can take of a row: which tokens, and how many."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of a model. The default has none.

    Attributes:
        vocabulary: rows of its input embedding: token ids are below that. None: not known.
        positions: tokens of a row that it was made for. None: any number.
        hard: whether it fails beyond ``positions``, as with a table of them; with rotary embeddings it only gets worse.
    """

    vocabulary: int | None = None
    positions: int | None = None
    hard: bool = False
