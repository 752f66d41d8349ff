"""The laws as a mixed model: exponents that all share, an offset of its own for every model and task.

    log10 eta* = centre + width log10(n / 4096) + length log10(T / 100,000) + batch log10(b / 128)
                 + rank log10(r / 16) - scale log10(s) + shift(variant) + offset(model and task) + error

The offsets have Student's t distribution, since what a model was trained on can move its best rate by far more than
usual. A bound adds the probability of what it leaves open. The offset of each model is integrated out on a grid, and
what is maximized is the posterior density: :data:`BELIEFS` are what the sources say beside the tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from autolora import laws
from studies.laws.tables import Best

BELIEFS: Mapping[str, tuple[float, float]] = {
    "centre": (math.log10(laws.ALPHA_EMPIRICAL * laws.FULL_FINE_TUNING_RATE) - 0.5 * math.log10(16), 0.5),
    "width": (-0.5, 0.15),
    "length": (-0.26, 0.1),
    "batch": (0.5, 0.1),
    "rank": (-0.5, 0.1),
    "scale": (0.75, 0.25),
    "dora": (0.0, 0.15),
    "init_ab": (0.0, 0.2),
    "milora": (-0.1, 0.2),
    "pissa": (-0.4, 0.2),
}
"""Mean and sd. The centre: LoRA-alpha's 256 times a rate of full fine-tuning, and its eta ~ 1 / sqrt(r). Width: that
rate falls as 1/n where alpha's analytic law rises as sqrt(n). Length: LR-matters, 3.1x from 395,000 examples to 5,000.
Batch: Adam's square-root rule. Scale: between 1/2, if A moves as much as B, and 1, if B alone does."""

VARIANTS = ("dora", "init_ab", "milora", "pissa")
SPREADS = {"between models": (math.log(0.25), 0.5), "within": (math.log(0.1), 0.5)}
"""Mean and sd of the logarithms of the offsets' scale and of the error's."""

FREEDOM = 4.0
"""Degrees of freedom of the offsets."""
GRID = np.linspace(-8, 8, 161)
LOG_WEIGHTS = stats.t.logpdf(GRID, FREEDOM) + math.log(GRID[1] - GRID[0])

SIGNS = {"exact": 0, "at least": 1, "at most": -1}
FAR = 100.0
"""Decades that stand for no bound on the other side."""


@dataclass(frozen=True)
class Fitted:
    """A fit.

    Attributes:
        means, sds: of every term of the model, by name; the spreads in decades.
        covariance: of the terms of BELIEFS, in their order.
    """

    means: Mapping[str, float]
    sds: Mapping[str, float]
    covariance: np.ndarray

    @property
    def between_models(self) -> float:
        """Standard deviation of a new model's offset."""
        return self.means["between models"] * math.sqrt(FREEDOM / (FREEDOM - 2))


def fit(bests: Sequence[Best]) -> Fitted:
    """The most probable terms, and their standard deviations by the curvature there."""
    objective = _Objective(bests)
    names = [*BELIEFS, *SPREADS]
    start = np.array([mean for mean, _ in BELIEFS.values()] + [mean for mean, _ in SPREADS.values()])
    found = optimize.minimize(objective, start, method="L-BFGS-B").x
    covariance = np.linalg.inv(_curvature(objective, found))
    sds = np.sqrt(np.diag(covariance))
    terms = len(BELIEFS)
    values = np.concatenate([found[:terms], np.exp(found[terms:])])
    return Fitted(
        dict(zip(names, values.tolist(), strict=True)),
        dict(zip(names, np.concatenate([sds[:terms], values[terms:] * sds[terms:]]).tolist(), strict=True)),
        covariance[:terms, :terms],
    )


def predicted(fitted: Fitted, best: Best) -> float:
    """log10 of the best learning rate that a fit expects at a setting."""
    row, known = _terms(best)
    return known + float(row @ np.array([fitted.means[name] for name in BELIEFS]))


def spread(fitted: Fitted, best: Best) -> float:
    """Standard deviation of a new model's best rate there: its offset, and what is uncertain of the terms."""
    row, _ = _terms(best)
    return math.sqrt(fitted.between_models**2 + float(row @ fitted.covariance @ row))


def _terms(best: Best) -> tuple[np.ndarray, float]:
    """What a setting multiplies each term by, and what is known without: where alpha is redundant, s^-1/2."""
    scale = math.log10(best.scale)
    redundant = best.traits.alpha_redundant
    row = [
        1.0,
        math.log10(best.width / laws.REFERENCE_WIDTH),
        math.log10(best.examples / laws.REFERENCE_LENGTH),
        math.log10(best.batch_size / laws.REFERENCE_BATCH),
        math.log10(best.rank / laws.REFERENCE_RANK),
        0.0 if redundant else -scale,
        *(float(best.variant == variant) for variant in VARIANTS),
    ]
    return np.array(row), -best.traits.exponent * scale if redundant else 0.0


class _Objective:
    """Minus the log posterior density."""

    def __init__(self, bests: Sequence[Best]) -> None:
        terms = [_terms(best) for best in bests]
        self._rows = np.array([row for row, _ in terms])
        self._values = np.array([best.log_rate for best in bests]) - np.array([known for _, known in terms])
        self._signs = np.array([SIGNS[best.kind] for best in bests])
        self._room = np.array([min(best.below - best.log_rate, FAR) for best in bests])
        models = np.array([best.model for best in bests])
        self._groups = [np.flatnonzero(models == model) for model in dict.fromkeys(models.tolist())]
        self._means, self._sds = np.array([*BELIEFS.values(), *SPREADS.values()]).T

    def __call__(self, parameters: np.ndarray) -> float:
        between, within = np.exp(parameters[-2:])
        residuals = self._values - self._rows @ parameters[:-2]
        total = -0.5 * float((((parameters - self._means) / self._sds) ** 2).sum())
        for group in self._groups:
            scaled = (residuals[group][:, None] - between * GRID) / within
            signs = self._signs[group][:, None]
            exact = stats.norm.logpdf(scaled) - math.log(within)
            densities = np.where(signs == 0, exact, _log_bounded(scaled, signs, self._room[group][:, None] / within))
            densities = densities.sum(axis=0) + LOG_WEIGHTS
            total += float(np.logaddexp.reduce(densities))
        return -total


def _log_bounded(scaled: np.ndarray, signs: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Log probability that a best lies beyond its bound, and if that is a lower one within ``room`` of it.

    "At least" says that the best lies above the value: the error is more than the residual.
    """
    beyond = stats.norm.logcdf(-signs * scaled)
    too_far = np.where(signs > 0, stats.norm.logcdf(-(scaled + room)), -np.inf)
    return beyond + np.log1p(-np.exp(np.minimum(too_far - beyond, -1e-12)))


def _curvature(objective: _Objective, at: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """Second derivatives by central differences."""
    size = len(at)
    steps = step * np.eye(size)
    found = np.empty((size, size))
    for i in range(size):
        for j in range(i + 1):
            corners = [objective(at + a * steps[i] + b * steps[j]) for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
            found[i, j] = found[j, i] = (corners[0] - corners[1] - corners[2] + corners[3]) / (4 * step**2)
    return found
