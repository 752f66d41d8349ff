"""The longest row in tokens: as asked, or found from the rows, and never more than the model can take."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from autolora.tasks.causal_lm.limits import Limits

PERCENTILE = 99
"""Of the training rows' lengths, with "auto": the longest hundredth may be far longer, and memory goes with it."""
MULTIPLE, LEAST = 8, 8
"""With "auto" the length is a multiple of the first, and at least the second."""

MaxLength: TypeAlias = int | Literal["auto"] | None
"""Tokens, or "auto" or None, which mean the same."""


@dataclass(frozen=True)
class Length:
    """The longest row.

    Attributes:
        tokens: its length.
        remedy: what to do if it is too short, for errors and warnings.
        notes: plain lines on how it came about; none if it is just as asked.
        warning: what may go wrong with it; None if nothing.
    """

    tokens: int
    remedy: str
    notes: tuple[str, ...] = ()
    warning: str | None = None


def resolved(asked: MaxLength, limits: Limits, percentile: Callable[[], int]) -> Length:
    """The length to cut rows to.

    Args:
        asked: by the specification.
        limits: of the model.
        percentile: of the training rows' lengths, see :func:`percentile_of`; called for "auto" alone.
    """
    most = sys.maxsize if limits.positions is None else limits.positions
    at_most = f"shorten the rows, for the model has {most} positions"
    if asked is None or isinstance(asked, str):
        wanted = max(LEAST, math.ceil(percentile() / MULTIPLE) * MULTIPLE)
        if wanted > most:
            return Length(most, at_most, (f"max_length: {most} tokens (auto: the model's positions)",))
        note = f"max_length: {wanted} tokens (auto: {PERCENTILE}% of the training rows are no longer)"
        return Length(wanted, "raise training.max_length", (note,))
    if asked > most and limits.hard:
        return Length(most, at_most, (f"max_length: {most} tokens, not {asked}: the model has {most} positions",))
    if asked > most:
        warning = (
            f"training.max_length is {asked}, but the model was made for {most} positions and may get worse beyond; "
            f"set training.max_length: {most}, or leave it out"
        )
        return Length(asked, at_most, warning=warning)
    return Length(asked, at_most if asked == most else "raise training.max_length, or leave it out")


def percentile_of(lengths: Sequence[int]) -> int:
    """The length that PERCENTILE of 100 rows do not exceed, one of those given; 0 if there are none."""
    return int(np.percentile(lengths, PERCENTILE, method="inverted_cdf")) if lengths else 0
