"""The fractions of a full run at which a trial is scored."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

RUNGS = (1 / 9, 1 / 3, 1.0)
"""Default rungs."""


def ascend_to_one(rungs: Sequence[float]) -> bool:
    """Whether these can be rungs: ascending, the first above 0, the last 1."""
    return bool(rungs) and rungs[0] > 0 and rungs[-1] == 1.0 and all(a < b for a, b in pairwise(rungs))
