"""Which runs the table holds: every cell is one full training of a variant at one setting and seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from autolora import variants

RATES = [round(mantissa * 10.0**exponent, 10) for exponent in range(-5, 0) for mantissa in (1.1247, 2, 3.5566, 6.3246)]
"""Four a decade."""

CORE_VARIANTS = ("lora", "pissa", "olora", "dora", "rslora", "lora_plus", "milora", "init_ab", "lora_ga")
CORE_START, WINDOW = RATES.index(1.1247e-3), 8
"""The core cells' rates run from 1.1e-3 to 6.3e-2: past the cliff of every variant on both models."""

OTHER_VARIANTS = (
    "lora_fa",
    "lora_one",
    "lora_da",
    "init_ab_plus",
    "eva",
    "corda",
    "corda_kpm",
    "gora",
    "gralora",
    "randlora",
    "loft",
)
OTHER_START, OTHER_WINDOW = RATES.index(3.5566e-4), 10

LATER_RANGES = {
    "adalora": (2e-3, 1.1247e-1),
    "delora": (2e-3, 1.1247e-1),
    "denselora": (2e-3, 1.1247e-1),
    "goat": (3.5566e-4, 6.3246e-2),
    "hira": (6.3246e-3, 3.5566e-1),
    "hydralora": (1.1247e-3, 6.3246e-2),
    "loha": (1.1247e-3, 6.3246e-2),
    "lokr": (1.1247e-3, 6.3246e-2),
    "lora_pro": (3.5566e-4, 6.3246e-2),
    "loramoe": (1.1247e-3, 6.3246e-2),
    "melora": (1.1247e-3, 6.3246e-2),
    "moslora": (1.1247e-3, 6.3246e-2),
    "rasa": (1.1247e-3, 6.3246e-2),
    "relora": (1.1247e-3, 6.3246e-2),
    "rplora": (3.5566e-4, 6.3246e-2),
    "vera": (6.3246e-3, 3.5566e-1),
}
"""The lowest and the highest rate, from what is published of each, and higher where the best was at the end."""

SEEDS = (1, 2)
SEED_VARIANTS = ("lora", "pissa", "olora")

BATCH, RANK = 8, 8
GRID_VARIANTS = ("lora", "pissa", "dora")
GRID_RANKS, GRID_BATCHES = (2, 8, 32), (8, 32)


class Cell(NamedTuple):
    """One training. ``part`` is the reason it is in the table: core, others, later, seeds or grid."""

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
    """The nine variants over the learning rate at one batch size and rank, s = 1."""
    for variant in CORE_VARIANTS:
        for rate in RATES[CORE_START : CORE_START + WINDOW]:
            yield Cell("core", variant, rate, BATCH, RANK, _unit_alpha(variant), 0)


def _others(width: int) -> Iterator[Cell]:
    """The other variants likewise, over more rates, as less is known of them; RandLoRA at its own s = 20."""
    for variant in OTHER_VARIANTS:
        for rate in RATES[OTHER_START : OTHER_START + OTHER_WINDOW]:
            yield Cell("others", variant, rate, BATCH, RANK, _unit_alpha(variant), 0)


def _later(width: int) -> Iterator[Cell]:
    """The architectures and optimizers that came later, likewise."""
    for variant, (lowest, highest) in LATER_RANGES.items():
        for rate in RATES:
            if lowest <= rate <= highest:
                yield Cell("later", variant, rate, BATCH, RANK, _unit_alpha(variant), 0)


def _unit_alpha(variant: str) -> float:
    """The alpha of s = 1, or of what stands for it."""
    traits = variants.get(variant).traits
    scale = traits.alpha_law if isinstance(traits.alpha_law, float) else 1.0
    return scale * traits.unit_alpha(RANK)


def _seeds(width: int) -> Iterator[Cell]:
    """Two further seeds of some core cells: the noise, on the plateau and at the cliff."""
    for cell in _core(width):
        if cell.variant in SEED_VARIANTS:
            for seed in SEEDS:
                yield cell._replace(part="seeds", seed=seed)


def _grid(width: int) -> Iterator[Cell]:
    """Batch size x rank x alpha (alpha = r and the square-root law), windows moved to where the laws expect the best.

    Where alpha only rescales the learning rate, as for PiSSA, it stays at r.
    """
    for variant in GRID_VARIANTS:
        for law in (False,) if variants.get(variant).traits.alpha_redundant else (True, False):
            for batch in GRID_BATCHES:
                for rank in GRID_RANKS:
                    alpha = round(math.sqrt(3 * width * rank), 4) if law else rank
                    start = CORE_START - 2 * law + (batch > BATCH) + (rank < RANK) - (rank > RANK)
                    for rate in RATES[start : start + WINDOW]:
                        yield Cell("grid", variant, rate, batch, rank, alpha, 0)


PARTS = {"core": _core, "others": _others, "later": _later, "seeds": _seeds, "grid": _grid}
