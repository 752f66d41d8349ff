"""Successive-halving arithmetic: how many trials a bracket keeps at each rung, what it costs, which size fits."""

from __future__ import annotations

import itertools
import math
from typing import Literal

TOLERANCE = 1e-9


def widths(size: int, rungs: tuple[float, ...]) -> tuple[int, ...]:
    """Trials scored at each rung of a bracket that starts with ``size``: every rung costs about the same in total.

    ``widths(9, (1/9, 1/3, 1)) == (9, 3, 1)`` and ``widths(6, ...) == (6, 2, 1)``.
    """
    result = [size]
    for below, here in itertools.pairwise(rungs):
        result.append(max(1, math.floor(result[-1] * below / here + TOLERANCE)))
    return tuple(result)


def steps(rungs: tuple[float, ...]) -> tuple[float, ...]:
    """Share of a full run that each rung adds to the one below."""
    return tuple(here - below for below, here in zip((0.0, *rungs), rungs, strict=False))


def cost(size: int, rungs: tuple[float, ...]) -> float:
    """Full-run equivalents of a whole bracket: 2.33 for 9-3-1 at 1/9, 1/3, 1; 1.78 for 6-2-1."""
    return sum(width * step for width, step in zip(widths(size, rungs), steps(rungs), strict=True))


def promotion_cost(size: int, rungs: tuple[float, ...]) -> float:
    """The part of :func:`cost` that the rungs above the first take."""
    return cost(size, rungs) - size * rungs[0]


def sizes(rungs: tuple[float, ...], first: bool) -> list[int]:
    """Sizes a bracket may have, the largest first.

    Multiples of the reduction factor, so that no rung wastes a slot. The ``first`` bracket of a variant may also be
    smaller: with little budget one searched configuration still beats none.
    """
    largest = max(1, round(1.0 / rungs[0]))
    factor = max(1, round(rungs[1] / rungs[0])) if len(rungs) > 1 else 1
    regular = list(range(largest, 0, -factor))
    return regular + (list(range(regular[-1] - 1, 0, -1)) if first else [])


def fitting(budget: float, rungs: tuple[float, ...], first: bool) -> int | None:
    """The largest bracket that costs no more than ``budget`` full runs, or None."""
    return next((size for size in sizes(rungs, first) if cost(size, rungs) <= budget + TOLERANCE), None)


def planned(budget: float, rungs: tuple[float, ...]) -> list[int]:
    """Sizes of the brackets that are opened one after the other until the budget holds no more."""
    found: list[int] = []
    while (size := fitting(budget, rungs, first=not found)) is not None:
        found.append(size)
        budget -= cost(size, rungs)
    return found


def seeds_kept(confirm: int | Literal["auto"], budget: float) -> int:
    """Full runs kept for further seeds, as asked for or by :func:`confirmation_seeds`."""
    return confirmation_seeds(budget) if confirm == "auto" else confirm


def confirmation_seeds(budget: float) -> int:
    """Full runs kept for further seeds of the finalists: min(4, floor(budget / 4))."""
    return min(4, math.floor(budget / 4))
