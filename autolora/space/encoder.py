"""How the surrogate sees a dimension: what moves the best rate, what moves the score, what makes runs alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autolora.space.config import Config

SMOOTHEST = 3
"""Functions kept for the level over the choices of a dimension."""


class Encoder:
    """Turns configurations into numbers. The default adds none.

    Attributes:
        shift_sds: standard deviations, in decades, of the parameters that :meth:`shifts` multiply.
        line_sds: standard deviations, in units of the response, of the parameters that :meth:`lines` multiply.
        end_beliefs: mean and standard deviation, likewise, of the parameters that :meth:`ends` multiply.
        decay_beliefs: mean and standard deviation of the parameters that :meth:`decays` multiply.
        choice_count: functions that :meth:`choices` gives, of a level that is free at every choice.
        width: numbers that :meth:`settings` gives.
    """

    shift_sds: tuple[float, ...] = ()
    line_sds: tuple[float, ...] = ()
    end_beliefs: tuple[tuple[float, float], ...] = ()
    decay_beliefs: tuple[tuple[float, float], ...] = ()
    choice_count: int = 0
    width: int = 0

    def shifts(self, variant: str, config: Config) -> list[float]:
        """What moves log10 of the best learning rate."""
        return []

    def lines(self, variant: str, config: Config) -> list[float]:
        """What moves the score at the best learning rate, along a line."""
        return []

    def ends(self, variant: str, config: Config) -> list[float]:
        """What moves the score of a trial that is trained to its end, and none before, along a line."""
        return []

    def decays(self, variant: str, config: Config) -> list[float]:
        """What the score at the end loses, as the exponential of the product with their parameters."""
        return []

    def choices(self, config: Config) -> np.ndarray:
        """(choice_count,) what moves the score at the best learning rate, choice by choice."""
        return np.empty(0)

    def settings(self, variant: str, config: Config) -> list[float]:
        """Coordinates in which what the laws do not explain is smooth over a distance of 1."""
        return []


class SmoothLevels:
    """The leading functions of a smooth random function over choices on a log axis; none for a single choice.

    Its covariance is exp(-d^2 / 2) over d decades; its mean over the choices is left to other parameters.
    """

    def __init__(self, choices: Sequence[int]) -> None:
        self._at = np.log10(np.array(choices, dtype=float))
        covariance = self._covariance(self._at)
        centering = np.eye(len(choices)) - 1 / len(choices)
        values, vectors = np.linalg.eigh(centering @ covariance @ centering)
        kept = np.argsort(-values)[: min(SMOOTHEST, len(choices) - 1)]
        basis = vectors[:, kept] * np.sqrt(np.maximum(values[kept], 0.0))
        self._weights = np.linalg.solve(covariance + 1e-6 * np.eye(len(choices)), basis)
        self._known: dict[int, np.ndarray] = {}

    @property
    def count(self) -> int:
        return int(self._weights.shape[1])

    def __call__(self, choice: int) -> np.ndarray:
        """(count,) values there, also between and beyond the choices."""
        if choice not in self._known:
            self._known[choice] = self._covariance(np.array([math.log10(choice)]))[0] @ self._weights
        return self._known[choice]

    def _covariance(self, at: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(-0.5 * (at[:, None] - self._at) ** 2))


class LogChoiceEncoder(Encoder):
    """Of whole numbers on a log axis, whose laws know by what exponent they move the best learning rate.

    Args:
        name: of the dimension.
        choices: of the space.
        exponent_sd: how uncertain the exponent is.
        length: decades over which scores stay alike.
    """

    width = 1

    def __init__(self, name: str, choices: Sequence[int], exponent_sd: float, length: float) -> None:
        self._name, self._length = name, length
        self._levels = SmoothLevels(choices)
        self._middle = float(np.mean(np.log10(choices)))
        self.shift_sds, self.choice_count = (exponent_sd,), self._levels.count

    def shifts(self, variant: str, config: Config) -> list[float]:
        return [self._decades(config)]

    def choices(self, config: Config) -> np.ndarray:
        return self._levels(self._value(config))

    def settings(self, variant: str, config: Config) -> list[float]:
        return [self._decades(config) / self._length]

    def _decades(self, config: Config) -> float:
        return math.log10(self._value(config)) - self._middle

    def _value(self, config: Config) -> int:
        value: int = getattr(config, self._name)
        return value
