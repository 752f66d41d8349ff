"""What a score looks like over the learning rate: a plateau, a slow decline to its left, a cliff to its right.

Scores are seen as ``asinh(excess)``, the excess over the best of a rung in units of a few percent: linear near the
best, logarithmic beyond, so that noise which grows on the cliff is even, and a divergence is not infinitely far. What
would be better than the best seen stays linear, or a bad baseline would make all that is to gain look alike.
"""

from __future__ import annotations

import math

import numpy as np

from autolora.search.features import Features, Points

SHAPE = {
    "log height, left": (math.log(4.0), 0.7),
    "log width, left": (math.log(0.4), 0.4),
    "log height, right": (math.log(60.0), 0.7),
    "log width, right": (0.0, 0.4),
    "height by depth": (-0.5, 0.7),
}
"""Mean and sd of the shape's parameters. With them the excess is within 1 of its best over half a decade, as is the
median of LR-matters' curves (0.3 to 1.3 by model), grows by 10 a decade to the left and by many times that to the
right. It is e^0.5 times as high in a run cut to a tenth."""


CHOICE_UNIT = 1.0
"""What the best choice of batch size, rank or the like gains on a middling one at most, in units. What a bad one loses
has no such bound: a large batch may leave a short run no time to learn anything."""
LARGEST_EXPONENT = 10.0


class Response:
    """``seen(levels . b + CHOICE_UNIT (exp(choices . q) - 1) + height (sqrt(1 + (d / width)^2) - 1))``.

    ``d = z - shifts . g``. Height and width differ left and right of ``d = 0``; the height is multiplied by
    ``exp(c depth)``. Parameters are (g, b, q, shape), each with a normal belief.

    Attributes:
        mean, sd: (P,) of the beliefs.
    """

    def __init__(self, features: Features) -> None:
        parts = [features.shift_beliefs, features.level_beliefs, features.choice_beliefs.reshape(-1, 2)]
        self._shifts, self._levels, self._choices = (len(part) for part in parts)
        beliefs = np.concatenate([*parts, np.array(list(SHAPE.values()))])
        self.mean, self.sd = beliefs[:, 0], beliefs[:, 1]

    def best_z(self, parameters: np.ndarray, points: Points) -> np.ndarray:
        """(K, n) coordinates of the best learning rate at the points' other settings, for K sets of parameters."""
        return np.asarray(parameters[:, : self._shifts] @ points.shifts.T)

    def values(self, parameters: np.ndarray, points: Points) -> np.ndarray:
        """(K, n) responses."""
        level, _, _, excess, *_ = self._parts(parameters, points)
        return _seen(level + excess)

    def linearized(self, parameters: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """(K, n) responses and their (K, n, P) derivatives by the parameters."""
        level, cost, left, excess, height, width, t = self._parts(parameters, points)
        raw = level + excess
        slope = np.where(raw < 0, 1.0, 1 / np.sqrt(1 + raw * raw))
        root = np.sqrt(1 + t * t)
        by_distance = slope * height * t / (root * width)
        by_height, by_width = slope * excess, -slope * height * t * t / root
        shape = [np.where(left, by_height, 0), np.where(left, by_width, 0)]
        shape += [np.where(left, 0, by_height), np.where(left, 0, by_width), by_height * points.depth]
        jacobian = np.concatenate(
            [
                -by_distance[:, :, None] * points.shifts,
                slope[:, :, None] * points.levels,
                (slope * cost)[:, :, None] * points.choices,
                np.stack(shape, axis=2),
            ],
            axis=2,
        )
        return _seen(raw), jacobian

    def _parts(self, parameters: np.ndarray, points: Points) -> tuple[np.ndarray, ...]:
        ends = np.cumsum([self._shifts, self._levels, self._choices])
        _, levels, choices, shape = np.split(parameters, ends, axis=1)
        exponents = np.clip(choices @ points.choices.T, -LARGEST_EXPONENT, LARGEST_EXPONENT)
        cost = CHOICE_UNIT * np.exp(exponents)
        level = levels @ points.levels.T + cost - CHOICE_UNIT
        distance = points.z - self.best_z(parameters, points)
        left = distance < 0
        height = np.exp(np.where(left, shape[:, [0]], shape[:, [2]]) + shape[:, [4]] * points.depth)
        width = np.exp(np.where(left, shape[:, [1]], shape[:, [3]]))
        t = distance / width
        return level, cost, left, height * (np.sqrt(1 + t * t) - 1), height, width, t


def _seen(excess: np.ndarray) -> np.ndarray:
    """asinh; below the best seen as it is, so that what is to gain is not compressed."""
    return np.where(excess < 0, excess, np.arcsinh(excess))
