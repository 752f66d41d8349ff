"""LR-matters' tables 6 to 8 (arXiv 2602.04998) as surfaces over learning rate and batch, full runs only.

Each is two problems: the learning rate searched over the table's own window, 2.75 decades that the paper's authors knew
to hold the best, and over the five decades of the Space's default, as by somebody who does not know. Below the window a
score stays as at its lower end, above it falls to 0 within a grid step; neither is near the best.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autolora.search.trials import Direction
from autolora.space import Config, Range, Space
from studies.search.problem import draw, interpolated

VARIANTS = {"LoRA": "lora", "DoRA": "dora", "Init[AB]": "init_ab", "MiLoRA": "milora", "PiSSA": "pissa"}
WIDTHS = {"Qwen3-0.6B": 1024, "Gemma-3-1B": 1152}
"""Hidden sizes, which a user's tool reads from the model."""

EXAMPLES = 100_000
BATCHES = (16, 32, 64, 128)
"""Searched where the table spans them; 32 lies between two columns."""

PLATEAU = 0.02
FALL = 0.25
"""Decades above the window over which the score falls to 0."""


@dataclass(frozen=True)
class Surface:
    """Scores of one method.

    Attributes:
        log_batches: (batches,) log10, ascending.
        log_rates: (rates,) log10, ascending.
        scores, stds: (batches, rates) mean and standard deviation of the accuracy in percent.
    """

    log_batches: np.ndarray
    log_rates: np.ndarray
    scores: np.ndarray
    stds: np.ndarray

    def at(self, config: Config) -> tuple[float, float]:
        """Mean and standard deviation, linear in log10 of batch and of learning rate."""
        rate, batch = math.log10(config.learning_rate), math.log10(config.batch_size)
        both = np.stack([self.scores, self.stds], axis=-1)
        mean, std = interpolated(rate, self.log_rates, interpolated(batch, self.log_batches, both))
        left = max(0.0, 1 - max(0.0, rate - self.log_rates[-1]) / FALL)
        return float(mean) * left, float(std) * left


class PaperTables:
    """All methods of one model, task and rank; alpha = rank, as in the paper."""

    rungs: tuple[float, ...] = (1.0,)
    direction: Direction = "maximize"
    examples: int | None = EXAMPLES

    def __init__(self, model: str, task: str, rank: int, surfaces: dict[str, Surface], wide: bool) -> None:
        self.name = f"{'paper-wide' if wide else 'paper'}/{model}-{task}-r{rank}"
        self.variants = tuple(surfaces)
        self.surfaces = surfaces
        low = 10 ** max(surface.log_rates[0] for surface in surfaces.values())
        high = 10 ** min(surface.log_rates[-1] for surface in surfaces.values())
        tabulated = [round(10**batch) for batch in next(iter(surfaces.values())).log_batches]
        batches = [batch for batch in BATCHES if tabulated[0] <= batch <= tabulated[-1]]
        self.space = Space(
            learning_rate="auto" if wide else Range(low=float(low), high=float(high)),
            batch_size=batches,
            rank=[rank],
            alpha="rank",
            hidden_size=WIDTHS.get(model),
        )

    def evaluate(self, variant: str, config: Config, fraction: float, seed: int) -> float | None:
        """Accuracy with its tabulated noise, not below 0; a failed run scores near 0 and is not called diverged."""
        mean, std = self.surfaces[variant].at(config)
        return max(0.0, mean + std * draw(seed, variant, config))

    def truth(self, variant: str, config: Config) -> float | None:
        return self.surfaces[variant].at(config)[0]

    def diverges_at(self, variant: str, config: Config) -> float:
        return 1.0

    def best(self, variant: str) -> float:
        return float(self._inside(variant)[0].max())

    def worst(self, variant: str) -> float:
        return 0.0

    def noise(self, variant: str) -> float:
        """Root mean square over the cells within 2% of the best: three seeds say little of one cell."""
        scores, stds = self._inside(variant)
        return float(np.sqrt(np.mean(stds[scores >= (1 - PLATEAU) * scores.max()] ** 2)))

    def _inside(self, variant: str) -> tuple[np.ndarray, np.ndarray]:
        """Scores and deviations of the cells in the space: one table reaches further for some methods."""
        surface = self.surfaces[variant]
        rates = self.space.learning_rates
        assert isinstance(rates, Range)
        inside = np.array([rates.contains(10**rate) for rate in surface.log_rates])
        return surface.scores[:, inside], surface.stds[:, inside]


def load(path: Path) -> list[PaperTables]:
    """Every model, task and rank of the table, with the learning rates of the table and with many more."""
    cells: dict[tuple[str, str, int], dict[str, dict[tuple[int, float], tuple[float, float]]]]
    cells = defaultdict(lambda: defaultdict(dict))
    with path.open() as file:
        for row in csv.DictReader(file):
            study = (row["model"], row["task"], int(row["rank"]))
            at = (int(row["batch"]), float(row["lr"]))
            cells[study][VARIANTS[row["method"]]][at] = (float(row["score"]), float(row["std"]))
    return [
        PaperTables(*study, {variant: _surface(own) for variant, own in methods.items()}, wide)
        for wide in (False, True)
        for study, methods in cells.items()
    ]


def _surface(cells: dict[tuple[int, float], tuple[float, float]]) -> Surface:
    batches, rates = sorted({batch for batch, _ in cells}), sorted({rate for _, rate in cells})
    both = np.array([[cells[batch, rate] for rate in rates] for batch in batches])
    return Surface(np.log10(batches), np.log10(rates), both[..., 0], both[..., 1])
