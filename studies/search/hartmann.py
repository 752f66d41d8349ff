"""MF-Hartmann in 3 and 6 dimensions: the Hartmann functions with a bias and noise that shrink with the log fidelity.

Kandasamy et al. (arXiv 1703.06240), in the form of mf-prior-bench (PriorBand, arXiv 2306.12370): fidelity 3 to 100, log
scaled to 0 to 1; the bias is taken from the four weights, noise is |N(0, 1)|; correlations "good" (bias 2.5, noise 2)
to "terrible" (bias 4, noise 5). A full run has neither.

Mapped on the Space, exactly: learning rate and alpha are the first two coordinates on log scales, the others are
choices with 33 levels over [0, 1]: the rank in 3 dimensions; rank, batch size and the two multipliers of Init[AB] in 6.
The best is that of the levels. Nothing about LoRA is in it: the laws' prior is then a prior that is wrong by chance.
"""

from __future__ import annotations

import itertools
import math
from functools import cached_property

import numpy as np
from scipy.optimize import minimize

from autolora.search.trials import Direction
from autolora.space import Config, Range, Space
from studies.search.problem import draw

WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
SHAPES = {
    3: np.array([[3.0, 10, 30], [0.1, 10, 35], [3.0, 10, 30], [0.1, 10, 35]]),
    6: np.array(
        [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
    ),
}
PLACES = {
    3: 1e-4 * np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]]),
    6: 1e-4
    * np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    ),
}
OPTIMA = {3: (0.114614, 0.555649, 0.852547), 6: (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573)}
CORRELATIONS = {"good": (2.5, 2.0), "terrible": (4.0, 5.0)}
FIDELITIES = (3.0, 100.0)
LEVELS = 33
RATES, ALPHAS = (1e-5, 1e-1), (1.0, 1024.0)


def hartmann(x: np.ndarray, bias: float = 0.0) -> float:
    """The function at x (dimensions,), to be minimized; ``bias`` is taken from its weights."""
    dimensions = len(x)
    inner = np.sum(SHAPES[dimensions] * (x - PLACES[dimensions]) ** 2, axis=1)
    return float(-np.sum((WEIGHTS - bias) * np.exp(-inner)))


class MFHartmann:
    rungs: tuple[float, ...] = (1 / 27, 1 / 9, 1 / 3, 1.0)
    direction: Direction = "minimize"
    examples: int | None = None

    def __init__(self, dimensions: int, correlation: str) -> None:
        self.name = f"hartmann/{dimensions}-{correlation}"
        self.dimensions = dimensions
        self._bias, self._noise = CORRELATIONS[correlation]
        levels: list[int | float] = list(range(1, LEVELS + 1))
        self.variants: tuple[str, ...] = ("lora",) if dimensions == 3 else ("init_ab",)
        self.space = Space(
            learning_rate=Range(low=RATES[0], high=RATES[1]),
            alpha=Range(low=ALPHAS[0], high=ALPHAS[1]),
            rank=list(range(1, LEVELS + 1)),
            batch_size=[16] if dimensions == 3 else list(range(1, LEVELS + 1)),
            options={} if dimensions == 3 else {"init_ab.gamma_a": levels, "init_ab.gamma_b": levels},
        )

    def point(self, config: Config) -> np.ndarray:
        """(dimensions,) in the unit cube."""
        ranged = [_unit(config.learning_rate, RATES), _unit(config.alpha, ALPHAS)]
        own = dict(config.options)
        levels: list[float] = [config.rank]
        if self.dimensions == 6:
            levels += [config.batch_size, own["gamma_a"], own["gamma_b"]]
        return np.array(ranged + [(level - 1) / (LEVELS - 1) for level in levels])

    def evaluate(self, variant: str, config: Config, fraction: float, seed: int) -> float | None:
        low, high = FIDELITIES
        missing = 1 - math.log(max(fraction * high, low) / low) / math.log(high / low)
        noise = abs(draw(seed, config, round(fraction, 6))) * self._noise * missing if missing > 1e-12 else 0.0
        return hartmann(self.point(config), self._bias * missing) + noise

    def truth(self, variant: str, config: Config) -> float | None:
        return hartmann(self.point(config))

    def diverges_at(self, variant: str, config: Config) -> float:
        return 1.0

    def best(self, variant: str) -> float:
        return self._best

    def worst(self, variant: str) -> float:
        return 0.0

    def noise(self, variant: str) -> float:
        """A full run has none: within noise is taken as within a thousandth."""
        return 1e-3 * abs(self._best)

    @cached_property
    def _best(self) -> float:
        """The optimum over the levels: of those next to the known optimum, the first two coordinates refined."""
        optimum = OPTIMA[self.dimensions]
        step = 1 / (LEVELS - 1)
        near = [(math.floor(x / step) * step, math.ceil(x / step) * step) for x in optimum[2:]]
        return min(
            minimize(lambda x, rest=rest: hartmann(np.array([*x, *rest])), optimum[:2]).fun
            for rest in itertools.product(*near)
        )


def _unit(value: float, interval: tuple[float, float]) -> float:
    low, high = interval
    return math.log(value / low) / math.log(high / low)
