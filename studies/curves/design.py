"""Which runs the tables hold: every cell is one full training of a variant at one setting and seed.

A table's name picks its design; the parts of a design are made in order. Some parts depend on what the table holds:
which rates are beyond the end of a window, and which are beside the best.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple

from autolora import variants

RATES = [round(mantissa * 10.0**exponent, 10) for exponent in range(-5, 0) for mantissa in (1.1247, 2, 3.5566, 6.3246)]
RATES_PER_DECADE = 4

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
    """One training. ``part`` is the reason it is in the table: the part of the design that has it."""

    part: str
    variant: str
    learning_rate: float
    batch_size: int
    rank: int
    alpha: float
    seed: int


FULL_SCORE = "score@1"
Rows = Sequence[Mapping[str, Any]]
Part = Callable[[int, Rows], Iterator[Cell]]
"""The cells of a part, from the model's width and the table so far."""


def cells(width: int, parts: tuple[str, ...], table: str = "quickstart", rows: Rows = ()) -> Iterator[Cell]:
    """The cells of these parts of a table's design, no setting twice.

    Args:
        width: the model's hidden size.
        table: name of the table; one without a design of its own has that of the first two.
        rows: what the table holds already.
    """
    seen, known = set(), design(table)
    for part in parts:
        for cell in known[part](width, rows):
            if cell[1:] not in seen:
                seen.add(cell[1:])
                yield cell


def design(table: str) -> Mapping[str, Part]:
    """The parts of a table, in the order in which they are made."""
    return DESIGNS.get(table, PARTS)


def _core(width: int, rows: Rows) -> Iterator[Cell]:
    """The nine variants over the learning rate at one batch size and rank, s = 1."""
    for variant in CORE_VARIANTS:
        for rate in RATES[CORE_START : CORE_START + WINDOW]:
            yield Cell("core", variant, rate, BATCH, RANK, _unit_alpha(variant), 0)


def _others(width: int, rows: Rows) -> Iterator[Cell]:
    """The other variants likewise, over more rates, as less is known of them; RandLoRA at its own s = 20."""
    for variant in OTHER_VARIANTS:
        for rate in RATES[OTHER_START : OTHER_START + OTHER_WINDOW]:
            yield Cell("others", variant, rate, BATCH, RANK, _unit_alpha(variant), 0)


def _later(width: int, rows: Rows) -> Iterator[Cell]:
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


def _seeds(width: int, rows: Rows) -> Iterator[Cell]:
    """Two further seeds of some core cells: the noise, on the plateau and at the cliff."""
    for cell in _core(width, rows):
        if cell.variant in SEED_VARIANTS:
            for seed in SEEDS:
                yield cell._replace(part="seeds", seed=seed)


def _grid(width: int, rows: Rows) -> Iterator[Cell]:
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


class Grid(NamedTuple):
    """Batch size x rank of one table, with a window of rates for each variant, seeds and further alphas.

    Attributes:
        width: the model's hidden size.
        examples: of a full run, as its specification has it.
        batches: batch sizes.
        ranks: ranks.
        lowest: the first rate of each variant's window at the middle batch size and rank.
        window: rates in a window before it is extended.
        scales: alpha / r of LoRA's further curves, at the middle batch size.
        alpha_ranks: ranks of these curves.
    """

    width: int
    examples: int
    batches: tuple[int, ...]
    ranks: tuple[int, ...]
    lowest: Mapping[str, float]
    window: int = 6
    scales: tuple[float, ...] = (1.0, 32.0)
    alpha_ranks: tuple[int, ...] = ()

    def parts(self) -> dict[str, Part]:
        """A grid whose windows are extended until they hold the best, seeds beside the best, and other alphas."""
        return {
            "grid": self.grid,
            "ends": self.ends,
            "seeds": partial(beside_the_best, part="seeds"),
            "alphas": self.other_alphas,
        }

    def grid(self, width: int, rows: Rows) -> Iterator[Cell]:
        """Every variant at every batch size and rank; alpha by the square-root law, or r where it is redundant."""
        for variant in self.lowest:
            for batch in self.batches:
                for rank in self.ranks:
                    alpha = law_alpha(variant, rank, width)
                    yield from self._window("grid", width, variant, batch, rank, alpha)

    def ends(self, width: int, rows: Rows) -> Iterator[Cell]:
        """One rate further at an end of each curve whose best is there; upwards also if the best is next to it."""
        for curve in _trained(rows):
            best = _best(curve)
            if best == 0:
                yield _moved(curve[0].cell, -1)._replace(part="ends")
            if best >= len(curve) - 2:
                yield _moved(curve[-1].cell, 1)._replace(part="ends")

    def other_alphas(self, width: int, rows: Rows) -> Iterator[Cell]:
        """LoRA at other alphas, at the middle batch size."""
        batch, _ = self._middle
        for rank in self.alpha_ranks:
            for scale in self.scales:
                yield from self._window("alphas", width, "lora", batch, rank, scale * rank)

    def _window(self, part: str, width: int, variant: str, batch: int, rank: int, alpha: float) -> Iterator[Cell]:
        """Rates around where the laws expect the best, b^1/2 r^-1/2 s^-1/2, from what is expected in the middle."""
        middle_batch, middle_rank = self._middle
        scaling, middle_scaling = alpha / rank, law_alpha(variant, middle_rank, width) / middle_rank
        decades = math.log10(batch / middle_batch * middle_rank / rank * middle_scaling / scaling) / 2
        start = RATES.index(self.lowest[variant]) + round(RATES_PER_DECADE * decades)
        for rate in RATES[start : start + self.window]:
            yield Cell(part, variant, rate, batch, rank, alpha, 0)

    @property
    def _middle(self) -> tuple[int, int]:
        return self.batches[len(self.batches) // 2], self.ranks[len(self.ranks) // 2]


def beside_the_best(width: int, rows: Rows, part: str = "near") -> Iterator[Cell]:
    """Two further seeds at and beside the best rate of curves with alpha by the law; each variant's best first."""
    curves = [curve for curve in _trained(rows) if _by_law(curve[0].cell, width)]
    by_variant = defaultdict(list)
    for curve in sorted(curves, key=lambda curve: curve[_best(curve)].score):
        by_variant[curve[0].cell.variant].append(curve)
    # In turns, so that an interruption leaves every variant with seeds at its best settings.
    for turn in zip_longest(*by_variant.values()):
        for curve in filter(None, turn):
            best = _best(curve)
            for trained in curve[max(0, best - 1) : best + 2]:
                for seed in SEEDS:
                    yield trained.cell._replace(part=part, seed=seed)


class _Trained(NamedTuple):
    """A cell of the table with its score at full length; infinite if it diverged."""

    cell: Cell
    score: float


def _trained(rows: Rows) -> list[list[_Trained]]:
    """The curves of seed 0, by ascending learning rate."""
    curves = defaultdict(list)
    for row in rows:
        cell = Cell(*(row[field] for field in Cell._fields))
        if cell.seed == 0:
            score = row[FULL_SCORE]
            curves[cell._replace(part="", learning_rate=0.0)].append(
                _Trained(cell, math.inf if score is None else score)
            )
    return [sorted(curve, key=lambda trained: trained.cell.learning_rate) for curve in curves.values()]


def _best(curve: list[_Trained]) -> int:
    """Place of the lowest score."""
    return min(range(len(curve)), key=lambda place: curve[place].score)


def _moved(cell: Cell, places: int) -> Cell:
    """The cell at a lower or higher learning rate."""
    return cell._replace(learning_rate=RATES[RATES.index(cell.learning_rate) + places])


def law_alpha(variant: str, rank: int, width: int) -> float:
    """Alpha by the square-root law; r where alpha only rescales the learning rate."""
    redundant = variants.get(variant).traits.alpha_redundant
    return float(rank) if redundant else round(math.sqrt(3 * width * rank), 4)


def _by_law(cell: Cell, width: int) -> bool:
    return cell.alpha == law_alpha(cell.variant, cell.rank, width)


GRIDS: Mapping[str, Grid] = {
    "qwen3-orders": Grid(
        width=160,
        examples=1200,
        batches=(2, 8, 32),
        ranks=(2, 16, 64),
        lowest={"lora": 1.1247e-3, "pissa": 1.1247e-3},
        alpha_ranks=(16,),
    ),
    "stories260k-scenes": Grid(
        width=64,
        examples=400,
        batches=(1, 2, 4, 16),
        ranks=(2, 8, 32),
        lowest={"lora": 1.1247e-3, "pissa": 1.1247e-3},
        alpha_ranks=(8, 2),
    ),
}
"""The grids of the later tables, by name."""

PARTS: Mapping[str, Part] = {
    "core": _core,
    "others": _others,
    "later": _later,
    "seeds": _seeds,
    "grid": _grid,
    "near": beside_the_best,
}
"""The design of the first two tables."""

DESIGNS: Mapping[str, Mapping[str, Part]] = {name: grid.parts() for name, grid in GRIDS.items()}


class Table(NamedTuple):
    """A table as it is searched: what has a curve at every batch size and rank, with alpha by the law.

    Attributes:
        width: the model's hidden size.
        examples: of a full run, as its specification has it.
        variants: those with all of the curves.
        batches: batch sizes.
        ranks: ranks.
    """

    width: int
    examples: int
    variants: tuple[str, ...]
    batches: tuple[int, ...]
    ranks: tuple[int, ...]


TABLES: Mapping[str, Table] = {
    "quickstart": Table(96, 800, ("lora", "dora", "pissa"), GRID_BATCHES, GRID_RANKS),
    "stories260k": Table(64, 800, ("lora", "pissa"), GRID_BATCHES, GRID_RANKS),
    **{
        name: Table(grid.width, grid.examples, tuple(grid.lowest), grid.batches, grid.ranks)
        for name, grid in GRIDS.items()
    },
}
