"""The fractions of a full run at which a trial is scored, and what of a run optimizer steps make up.

A training in optimizer steps reaches a rung at the end of a step. All but the last one see a whole batch; the last is
cut, so that runs of every batch size see the same examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

RUNGS = (1 / 9, 1 / 3, 1.0)
"""Default rungs."""
WITHIN = 1e-9
"""Share of a step by which a rung may lie behind its end: fractions as 1/3 are rounded."""


def horizon(examples: int, batch_size: int) -> int:
    """Optimizer steps of a full run of so many training examples."""
    return max(1, math.ceil(examples / batch_size))


def steps_until(fraction: float, examples: int, batch_size: int) -> int:
    """Optimizer steps after which at least this fraction of a full run has been trained."""
    return share_of(fraction, horizon(examples, batch_size))


def share_of(fraction: float, steps: int) -> int:
    """Optimizer steps of a full run after which at least this fraction of it has been trained."""
    return min(steps, math.ceil(fraction * steps - WITHIN))


def examples_seen(steps: int, examples: int, batch_size: int) -> int:
    """Training examples of the first ``steps`` optimizer steps of a full run of ``examples``."""
    return min(steps * batch_size, examples)


def own_examples(examples: int, length: float) -> int:
    """Training examples of a trial whose length is this share of a full run of ``examples``."""
    return examples if length == 1.0 else max(1, round(length * examples))


def ascend_to_one(rungs: Sequence[float]) -> bool:
    """Whether these can be rungs: ascending, the first above 0, the last 1."""
    return bool(rungs) and rungs[0] > 0 and rungs[-1] == 1.0 and all(a < b for a, b in pairwise(rungs))


def rows_in_words(rungs: Sequence[float], rows: Sequence[int]) -> str:
    """Which rungs are scored on fewer rows than the last: "rungs 1/9 and 1/3 are scored on 64 and 85 of 256 ..."

    Args:
        rungs: fractions of a full run.
        rows: evaluation rows that each is scored on; empty if they are the same for all.

    Returns:
        One line; empty if all rungs are scored on the same rows.
    """
    fewer = [(_shown(rung), count) for rung, count in zip(rungs, rows, strict=False) if count < rows[-1]]
    if not fewer:
        return ""
    counts = [count for _, count in fewer]
    each = counts if len(set(counts)) > 1 else counts[:1]
    names = ("rungs {} are" if len(fewer) > 1 else "rung {} is").format(_listed([name for name, _ in fewer]))
    return f"{names} scored on {_listed(list(map(str, each)))} of {rows[-1]} evaluation rows"


def _shown(rung: float) -> str:
    near = Fraction(rung).limit_denominator(20)
    return str(near) if abs(near - rung) < 1e-3 else f"{rung:.2g}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
