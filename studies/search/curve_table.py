"""The learning-curve table of studies/curves, replayed: real LoRA runs on tiny models, at four lengths."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from autolora import variants
from autolora.search.trials import Direction
from autolora.space import Config, Range, Space, searchable
from studies.curves.collect import read
from studies.curves.design import CORE_VARIANTS, OTHER_VARIANTS, TABLES
from studies.curves.surface import Curve, curves
from studies.search.problem import draw

CURVES = Path(__file__).parent.parent / "curves"
RATES = Range(low=1e-5, high=1e-1)
"""Four decades, those of the table's grid; below a curve's own window its score rises to the untrained model's."""

RUNGS = (1 / 27, 1 / 9, 1 / 3, 1.0)
LARGEST = 3.0
"""Noise is cut at so many standard deviations."""


class CurveTable:
    """One model of the table, with variants that share a space: a curve for every batch size, rank and alpha."""

    rungs: tuple[float, ...] = RUNGS
    direction: Direction = "minimize"

    def __init__(self, name: str, model: str, variants: tuple[str, ...], space: Space) -> None:
        self.name = name
        self.variants = variants
        self.space = space
        self.examples: int | None = TABLES[model].examples
        self._table = curves(CURVES / f"{model}.csv")
        self._spread = spread(CURVES / f"{model}.csv")
        self._found: dict[tuple[str, int, int, float], tuple[Curve, float]] = {}

    @classmethod
    def grid(cls, model: str) -> CurveTable:
        """Variants with curves at every batch size and rank; alpha by the law."""
        table = TABLES[model]
        space = Space(
            learning_rate=RATES,
            batch_size=list(table.batches),
            rank=list(table.ranks),
            alpha="law",
            hidden_size=table.width,
        )
        return cls(f"curves/{model}", model, table.variants, space)

    @classmethod
    def many(cls, model: str) -> CurveTable:
        """The core and other variants that were run at batch 8, r = 8 and alpha = 8: the learning rate alone is
        searched. Later ones are left out, so that the recorded benchmark's problem stays the same."""
        table = curves(CURVES / f"{model}.csv", seeds=(0,))
        known = (*CORE_VARIANTS, *OTHER_VARIANTS)
        names = [key.variant for key in table if key.variant in known and key[1:] == (8, 8, 8.0)]
        space = Space(learning_rate=RATES, batch_size=[8], rank=[8], alpha="rank", hidden_size=TABLES[model].width)
        return cls(f"curves/{model}-variants", model, tuple(dict.fromkeys(names)), space)

    def curve(self, variant: str, config: Config) -> Curve:
        """The table's curve of this setting."""
        return self._lookup(variant, config)[0]

    def _lookup(self, variant: str, config: Config) -> tuple[Curve, float]:
        """The curve and log10 of its best learning rate; the table's alphas are rounded."""
        key = (variant, config.batch_size, config.rank, config.alpha)
        if key not in self._found:
            of = [setting for setting in self._table if setting[:3] == key[:3]]
            nearest = min(of, key=lambda setting: abs(math.log(setting.alpha / config.alpha)))
            if abs(math.log(nearest.alpha / config.alpha)) > 0.05:
                raise KeyError(f"{self.name}: no curve of {variant} at {config}")
            self._found[key] = self._table[nearest], self._table[nearest].best()[0]
        return self._found[key]

    def evaluate(self, variant: str, config: Config, fraction: float, seed: int) -> float | None:
        curve, best_rate = self._lookup(variant, config)
        rung = int(np.argmin([abs(fraction - rung) for rung in RUNGS]))
        score = curve.score(config.learning_rate, rung)
        if math.isinf(score):
            return None
        beyond = math.log10(config.learning_rate) > best_rate
        normal = min(max(draw(seed, variant, config, rung), -LARGEST), LARGEST)
        return score * math.exp(self._spread[rung, int(beyond)] * normal)

    def truth(self, variant: str, config: Config) -> float | None:
        score = self.curve(variant, config).score(config.learning_rate, -1)
        return None if math.isinf(score) else score

    def diverges_at(self, variant: str, config: Config) -> float:
        curve = self.curve(variant, config)
        return curve.stop(config.learning_rate) if math.isinf(curve.score(config.learning_rate, -1)) else 1.0

    def best(self, variant: str) -> float:
        return self._best[variant]

    def worst(self, variant: str) -> float:
        return next(iter(self._table.values())).untrained

    def noise(self, variant: str) -> float:
        return float(self._spread[-1, 0]) * self.best(variant)

    @cached_property
    def _best(self) -> dict[str, float]:
        """The lowest cell of each variant: between cells the surface is linear."""
        found = {}
        for variant in self.variants:
            traits = searchable.traits_at_start(self.space, variants.get(variant))
            settings = [
                Config(1e-3, batch, rank, alpha)
                for batch in self.space.batch_size
                for rank in self.space.rank
                for alpha in _listed(self.space.alphas(traits, rank))
            ]
            found[variant] = float(min(np.min(self.curve(variant, setting).scores[:, -1]) for setting in settings))
        return found


def _listed(alphas: Range | list[float]) -> list[float]:
    assert isinstance(alphas, list), "the table has no range of alpha"
    return alphas


def spread(table: Path) -> np.ndarray:
    """(rungs, 2) relative standard deviation over seeds: up to the best learning rate, and beyond it.

    Pooled over the cells that were run with three seeds, those left out where one of them diverged. It takes the
    median over cells: a few near the cliff would set the mean. The median of a squared deviation on two degrees of
    freedom is ln 2 of its mean.
    """
    cells: dict[tuple[Any, ...], dict[float, list[list[float | None]]]] = defaultdict(lambda: defaultdict(list))
    for row in read(table):
        scores = [row[column] for column in row if column.startswith("score@")]
        cells[row["variant"], row["batch_size"], row["rank"], row["alpha"]][row["learning_rate"]].append(scores)
    squares: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for by_rate in cells.values():
        repeated = {
            rate: runs for rate, runs in by_rate.items() if len(runs) > 1 and all(None not in run for run in runs)
        }
        if repeated:
            full = {rate: np.mean([run[-1] for run in runs]) for rate, runs in repeated.items()}
            best = min(full, key=lambda rate: full[rate])
            for rate, runs in repeated.items():
                relative = np.std(np.log(np.array(runs, dtype=float)), axis=0, ddof=1)
                squares[rate > best].append(relative**2)
    return np.sqrt(np.stack([np.median(side, axis=0) for side in squares], axis=1) / math.log(2))
