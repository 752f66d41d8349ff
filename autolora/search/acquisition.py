"""What training a configuration to the end is worth: values of the acquisition functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autolora.space import Config


@dataclass(frozen=True)
class Acquisition:
    """What a full run of a configuration is worth.

    Attributes:
        expected_improvement: on the variant's best full run and on what is being trained, in units of the response.
        probability_of_improvement: on the best full run.
    """

    expected_improvement: float
    probability_of_improvement: float

    @classmethod
    def certain(cls) -> Acquisition:
        """Of a run that comes first, whatever else is worth training."""
        return cls(expected_improvement=math.inf, probability_of_improvement=1.0)

    @classmethod
    def of(cls, weights: np.ndarray, best: np.ndarray, left: np.ndarray, values: np.ndarray) -> Acquisition:
        """From joint draws.

        Args:
            weights: (D,) of the draws, summing to 1.
            best: (D,) the best full run.
            left: (D,) the best that full runs and those being trained leave to improve on.
            values: (D,) of the configuration.
        """
        return cls(float(weights @ np.maximum(0.0, left - values)), float(weights @ (values < best)))


@dataclass(frozen=True)
class Proposal:
    """A configuration that was not tried yet, with the reason for it."""

    config: Config
    origin: str
    acquisition: Acquisition


@dataclass(frozen=True)
class Acquisitions:
    """What a variant may train next.

    Attributes:
        proposal: the new configuration of the largest expected improvement; None if a finite space is used up.
        paused: acquisitions of its paused trials, by number.
    """

    proposal: Proposal | None
    paused: Mapping[int, Acquisition]
