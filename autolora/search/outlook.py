"""What longer training buys: the best score at each duration, by the model of all trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, takewhile

import numpy as np

from autolora.search.sampler import Sampler
from autolora.search.trials import TrialTable
from autolora.space import Config, Range
from autolora.space.dimensions.duration import DURATION

SETTINGS = 6
"""Full runs, the best, whose settings are imagined at every duration."""
STEP = 2.0
"""Factor between the durations that a range is looked at, and from the longest to the one beyond it."""
TAIL = 0.05
"""Probability below and above an interval."""


@dataclass(frozen=True)
class Gain:
    """What training for ``stop`` gains on training for ``start``, each at its best setting.

    Attributes:
        start, stop: durations, in ``unit``.
        unit: "epochs" or "examples".
        expected: by how much the score is better, in the metric's own units; below 0 if it is worse.
        low, high: between which it lies with 90% probability.
        searched: whether trials were as long as ``stop``; else the model looks beyond them.
    """

    start: float
    stop: float
    unit: str
    expected: float
    low: float
    high: float
    searched: bool = True

    def as_dict(self) -> dict[str, object]:
        """As plain data, one key per field."""
        return asdict(self)


def outlook(sampler: Sampler, table: TrialTable, variant: str) -> tuple[Gain, ...]:
    """See :meth:`autolora.search.Search.outlook`."""
    space = sampler.space
    leaders = table.leaders(variant)[:SETTINGS]
    if not DURATION.searched(space) or not leaders:
        return ()
    durations = DURATION.durations(space)
    searched = _looked_at(durations.domain)
    every = [*searched, STEP * searched[-1]]
    configs = [[_lasting(sampler, variant, trial.config, each) for trial in leaders] for each in every]
    surrogate = sampler.surrogate(table)
    draws = surrogate.best_draws(variant, configs, np.random.default_rng([sampler.seed, len(table.trials)]))
    excess = surrogate.excess(draws.values)
    found = []
    for (before, start), (after, stop) in pairwise(enumerate(every)):
        low, middle, high = _quantiles(excess[:, before] - excess[:, after], draws.weights)
        gain = Gain(start, stop, durations.unit, middle, low, high, searched=after < len(searched))
        found.append(gain)
    return tuple(found)


def _looked_at(domain: Range | list[float]) -> list[float]:
    """Durations in ascending order: the choices, or the ends of a range and what lies between, a factor apart."""
    if isinstance(domain, list):
        return domain
    count = max(1, math.floor(math.log(domain.high / domain.low, STEP)))
    return [float(each) for each in np.geomspace(domain.low, domain.high, count + 1)]


def _lasting(sampler: Sampler, variant: str, config: Config, duration: float) -> Config:
    """A configuration at another duration, at the learning rate that the law of length carries it to."""
    traits, coordinates = sampler.traits[variant], sampler.coordinates
    z = coordinates.z(traits, config)
    longer = config.replaced(duration=duration)
    return longer.replaced(learning_rate=coordinates.rate_of(traits, z, longer))


def _quantiles(values: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """The weighted TAIL, median and 1 - TAIL."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    places = np.searchsorted(reached, np.array([TAIL, 0.5, 1 - TAIL]) * reached[-1])
    low, middle, high = values[order][np.minimum(places, len(values) - 1)]
    return float(low), float(middle), float(high)


def pays_until(gains: Sequence[Gain]) -> float:
    """The duration up to which each step is better with 95% probability; the shortest if the first is not."""
    surely = takewhile(lambda gain: gain.low > 0, gains)
    return max((gain.stop for gain in surely), default=gains[0].start)
