"""Which runs the table holds: every cell is one full training of a variant at one setting and seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

RATES = [round(mantissa * 10.0**exponent, 10) for exponent in range(-5, 0) for mantissa in (1.1247, 2, 3.5566, 6.3246)]
"""Four a decade."""

CORE_VARIANTS = ("lora", "pissa", "olora", "dora", "rslora", "lora_plus", "milora", "init_ab", "lora_ga")
CORE_START, WINDOW = RATES.index(1.1247e-3), 8
"""The core cells' rates run from 1.1e-3 to 6.3e-2: past the cliff of every variant on both models."""

SEEDS = (1, 2)
SEED_VARIANTS = ("lora", "pissa", "olora")

BATCH, RANK = 8, 8
GRID_VARIANTS = ("lora", "pissa", "dora")
GRID_RANKS, GRID_BATCHES = (2, 8, 32), (8, 32)


class Cell(NamedTuple):
    """One training. ``part`` is the reason it is in the table: core, seeds or grid."""

    part: str
    variant: str
    learning_rate: float
    batch_size: int
    rank: int
    alpha: float
    seed: int


def cells(width: int, parts: tuple[str, ...]) -> Iterator[Cell]:
    """The cells of these parts for a model of this width, no setting twice."""
    seen = set()
    for part in parts:
        for cell in PARTS[part](width):
            if cell[1:] not in seen:
                seen.add(cell[1:])
                yield cell


def _core(width: int) -> Iterator[Cell]:
    """Every variant over the learning rate at one batch size and rank, s = 1."""
    for variant in CORE_VARIANTS:
        alpha = math.sqrt(RANK) if variant == "rslora" else RANK
        for rate in RATES[CORE_START : CORE_START + WINDOW]:
            yield Cell("core", variant, rate, BATCH, RANK, alpha, 0)


def _seeds(width: int) -> Iterator[Cell]:
    """Two further seeds of some core cells: the noise, on the plateau and at the cliff."""
    for cell in _core(width):
        if cell.variant in SEED_VARIANTS:
            for seed in SEEDS:
                yield cell._replace(part="seeds", seed=seed)


def _grid(width: int) -> Iterator[Cell]:
    """Batch size x rank x alpha (alpha = r and the square-root law), windows moved to where the laws expect the best.

    For PiSSA alpha only rescales the learning rate, so there it stays at r.
    """
    for variant in GRID_VARIANTS:
        for law in (False,) if variant == "pissa" else (True, False):
            for batch in GRID_BATCHES:
                for rank in GRID_RANKS:
                    alpha = round(math.sqrt(3 * width * rank), 4) if law else rank
                    start = CORE_START - 2 * law + (batch > BATCH) + (rank < RANK) - (rank > RANK)
                    for rate in RATES[start : start + WINDOW]:
                        yield Cell("grid", variant, rate, batch, rank, alpha, 0)


PARTS = {"core": _core, "seeds": _seeds, "grid": _grid}
