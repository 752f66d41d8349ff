"""Scaling-law coordinates, in which all variants look alike.

Notation: ``s`` is the factor in ``y = W x + s B A x``; ``r`` the rank; ``b`` the global batch size; ``eta`` the
learning rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from autolora import laws
from autolora.space.config import Config
from autolora.space.traits import Traits


@dataclass(frozen=True)
class Coordinates:
    """Map between configurations and scaling-law coordinates (z, w).

    ``z = log10(eta s^p sqrt(r)) - q log10(b) - shift - centre``, with p and the shift from the variant's traits, the
    rest from :mod:`autolora.laws`, and ``w = log2(alpha / law_alpha(r))``. In them the good region of every variant,
    rank and batch size lies near z = 0.

    Attributes:
        centre: log10(eta) of plain LoRA's best at s = r = b = 1.
        hidden_size: the width that ``law_alpha`` uses, or None.
        longest: the duration that the centre is of, where configurations have one; None: all are as long.
    """

    centre: float
    hidden_size: int | None = None
    longest: float | None = None

    def _log_rate_at_origin(self, traits: Traits, batch_size: int, rank: int, alpha: float) -> float:
        return (
            self.centre
            + traits.shift
            + laws.batch_factor(batch_size)
            + laws.scale_factor(traits.scale(alpha, rank), traits.exponent)
            + laws.rank_factor(rank)
        )

    def z(self, traits: Traits, config: Config) -> float:
        origin = self._log_rate_at_origin(traits, config.batch_size, config.rank, config.alpha)
        return math.log10(config.learning_rate) - origin - self._of_length(config)

    def w(self, traits: Traits, config: Config) -> float:
        return math.log2(config.alpha / traits.law_alpha(config.rank, self.hidden_size))

    def learning_rate(self, traits: Traits, z: float, batch_size: int, rank: int, alpha: float) -> float:
        """The inverse of :meth:`z` at given batch size, rank and alpha."""
        return 10 ** (z + self._log_rate_at_origin(traits, batch_size, rank, alpha))

    def rate_of(self, traits: Traits, z: float, config: Config) -> float:
        """The inverse of :meth:`z` at a configuration's other values."""
        moved = z + self._of_length(config)
        return self.learning_rate(traits, moved, config.batch_size, config.rank, config.alpha)

    def length(self, config: Config) -> float:
        """Duration of a configuration, as a share of the longest."""
        duration: float | None = config.value("duration")
        return 1.0 if self.longest is None or duration is None else duration / self.longest

    def _of_length(self, config: Config) -> float:
        """Decades that a duration shorter than the longest adds to the best learning rate."""
        return laws.carried(self.length(config))
