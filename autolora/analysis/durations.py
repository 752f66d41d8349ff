"""What longer training buys: the best configuration of each duration beside that of the next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, takewhile
from statistics import fmean

from autolora.analysis.best import scored_runs, seed_noise
from autolora.analysis.comparison import Difference, Runs, difference
from autolora.search.runs import runs_by_config
from autolora.search.trials import Trial, TrialTable
from autolora.space import Space
from autolora.space.dimensions.duration import DURATION

BEYOND = 2.0
"""Times the longest duration that the gains are carried on to."""
DECAYS = (0.0, 0.3, 1.0)
"""Exponents b of the power law T^-b by which scores fall with training: the lowest, a usual and the highest. Each
doubling gains 2^-b of what the one before has gained."""


@dataclass(frozen=True)
class Gain:
    """What training for ``stop`` gains on training for ``start``, each at its best configuration.

    Attributes:
        start, stop: durations, in ``unit``.
        unit: "epochs" or "examples".
        expected: by how much the score is better, in the metric's own units; below 0 if it is worse.
        low, high: its 95% interval, over new seeds and new evaluation examples; None if seed noise is not known.
        searched: whether trials were as long as ``stop``; else a power law carries the last gain on to it.
    """

    start: float
    stop: float
    unit: str
    expected: float
    low: float | None
    high: float | None
    searched: bool = True

    def as_dict(self) -> dict[str, object]:
        """As plain data, one key per field."""
        return asdict(self)


def gains(table: TrialTable, space: Space, variants: Iterable[str]) -> dict[str, tuple[Gain, ...]]:
    """By variant, the gains from each duration to the next one, and from the longest to twice as much.

    Durations without a trial that came to its end are left out. Of a range, those within a factor of sqrt(2) of one
    another are taken together. Without variants of which two durations were trained to the end, and where durations are
    not searched, there are none.
    """
    if not DURATION.searched(space):
        return {}
    variants = list(variants)
    noise, unit = seed_noise(table, variants), DURATION.durations(space).unit
    found = {}
    for name in variants:
        best = _best_by_duration(table, name)
        steps = []
        for (start, one), (stop, other) in pairwise(best):
            steps.append(_gain(start, stop, unit, difference(one, other, noise), table.sign))
        if steps:
            found[name] = (*steps, _beyond(steps[-1]))
    return found


def pays_until(steps: Sequence[Gain]) -> float:
    """The duration up to which each step is surely better; the shortest if the first is not, or noise is not known."""
    surely = takewhile(lambda step: step.low is not None and step.low > 0, steps)
    return max((step.stop for step in surely), default=steps[0].start)


def _best_by_duration(table: TrialTable, variant: str) -> list[tuple[float, Runs]]:
    """Durations in ascending order, each with the runs of its best configuration."""
    last = len(table.rungs) - 1
    groups: dict[int, list[list[Trial]]] = {}
    for config, trials in runs_by_config(table, variant).items():
        groups.setdefault(round(2 * math.log2(table.length(config))), []).append(trials)

    def score(trials: Sequence[Trial]) -> float:
        return table.sign * fmean(trial.scores[last] for trial in trials)

    chosen = [min(groups[place], key=score) for place in sorted(groups)]
    return [
        (trials[0].config.value(DURATION.name), scored_runs(table, [trial.number for trial in trials]))
        for trials in chosen
    ]


def _gain(start: float, stop: float, unit: str, shorter_minus_longer: Difference, sign: float) -> Gain:
    found = shorter_minus_longer
    ends = [None if end is None else sign * end for end in (found.low, found.high)]
    low, high = ends if sign > 0 else reversed(ends)
    return Gain(start, stop, unit, sign * found.value, low, high)


def _beyond(last: Gain) -> Gain:
    """The gain of BEYOND times the longest duration, by power laws through the last gain."""
    doublings, further = math.log2(last.stop / last.start), math.log2(BEYOND)
    shares = [_share(2**-decay, doublings, further) for decay in DECAYS]
    low = None if last.low is None else min(last.low * share for share in shares)
    high = None if last.high is None else max(last.high * share for share in shares)
    stop = BEYOND * last.stop
    return Gain(last.stop, stop, last.unit, last.expected * shares[1], low, high, searched=False)


def _share(ratio: float, doublings: float, further: float) -> float:
    """What ``further`` doublings gain of what the ``doublings`` before have gained, if each gains ``ratio`` of the one
    before.
    """
    if ratio == 1.0:
        return further / doublings
    share: float = ratio**doublings * (1 - ratio**further) / (1 - ratio**doublings)
    return share
