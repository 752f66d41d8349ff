"""Recipes that a user can follow by hand: from the laws' mode, steps around the best. No model, one variant at a time.

A diverged training is worse than every other; among those that are equally bad the lower learning rate is the better
one, so that a recipe that begins beyond the cliff walks down.
"""

from __future__ import annotations

import math

import numpy as np

from autolora.space import Config, Range
from studies.search.dimensions import config, dimensions, values
from studies.search.laws_prior import mode, scope
from studies.search.ledger import Ledger
from studies.search.own_methods import LENGTHS, laws

STEP = 0.5
"""Decades of the first step: good learning rates span about half a decade (LR-matters' curves), so that a longer step
can jump over them and a shorter one stays among them."""

LEAST_STEP = STEP / 8
"""Decades below which short runs no longer tell learning rates apart; full runs are then the better use of budget."""

TINY = 1e-6
"""Decades at which a recipe ends, as where every training diverges at once and costs next to nothing."""

Rank = tuple[float, float]
"""By which trainings are compared, lower is better: the score with the sign of a loss, and the learning rate."""


def pattern_search(ledger: Ledger) -> None:
    """Coordinate pattern search with memory, full runs: the laws' mode, then its neighbors, the better one from there.

    The learning rate goes half a decade to a random side and on while it improves, else to the other side. Then each
    other dimension, a choice or a step to either side, the learning rate moved along by the laws (the same z). Where
    nothing was better, the step is halved.

    Given the prior's mode and how the best learning rate moves with rank, batch size and alpha.

    Cannot use: the prior's width, short runs, other variants.
    """
    for place, variant in enumerate(ledger.problem.variants):
        _PatternSearch(ledger, variant, np.random.default_rng([ledger.seed, place, 6])).run()


def three_short_runs(ledger: Ledger) -> None:
    """Three short runs at the largest rank and smallest batch; the best to the end; then halved steps around the best.

    Short is the lowest rung in use, or full where a problem has nothing else. The three are the prior's mode there and
    half a decade to either side. Then, until the budget is used, the step is halved: a short run to either side of the
    best, then one at the next choice or step of each other dimension, at the same z. What beats the best one's short
    score goes to the end, and is the best if it also beats that one's full score. From a sixteenth of a decade on, what
    was not trained to the end is, in the order of short scores.

    Given the prior's mode and how the best learning rate moves with rank, batch size and alpha.

    Cannot use: the prior's width, the rungs between, other variants.
    """
    for variant in ledger.problem.variants:
        _ShortRuns(ledger, variant).run()


class _Recipe:
    """What both do: trainings that are remembered, and neighbors of a configuration."""

    def __init__(self, ledger: Ledger, variant: str) -> None:
        self.ledger, self.variant = ledger, variant
        self.space = ledger.problem.space
        self.traits = scope(ledger.problem, variant).traits
        self.coordinates = laws(ledger.problem).coordinates
        self.sign = 1.0 if ledger.problem.direction == "minimize" else -1.0
        self.step = STEP
        self.best = mode(ledger.problem, variant)
        self.others = [each.name for each in dimensions(self.space, variant) if each.name != "learning_rate"]

    def train(self, chosen: Config, known: dict[Config, Rank], stop: float = 1.0, start: float = 0.0) -> bool:
        """Train it unless it is known; whether it is then known, as the budget may not hold it."""
        if chosen not in known and self.ledger.holds(self.variant, stop - start):
            score = self.ledger.train(self.variant, chosen, stop, start)
            known[chosen] = (math.inf if score is None else self.sign * score), chosen.learning_rate
        return chosen in known

    def rate_moved(self, decades: float) -> Config:
        """The best with another learning rate, as far as it is searched."""
        return self.best.replaced(learning_rate=self._searched(self.best.learning_rate * 10**decades))

    def moved(self, name: str, side: int) -> Config:
        """The best with the next choice of another dimension, or a step in its range; the learning rate at the same z.

        At the end of what is searched it is the best itself.
        """
        placed = values(self.space, self.variant, self.best)
        dimension = next(each for each in dimensions(self.space, self.variant) if each.name == name)
        if dimension.choices:
            placed[name] = min(max(placed[name] + side, 0), dimension.last)
        else:
            placed[name] = min(max(placed[name] * 10 ** (side * self.step), dimension.low), dimension.high)
        setting = config(self.space, self.variant, placed)
        if setting == config(self.space, self.variant, values(self.space, self.variant, self.best)):
            return self.best
        return self.at_same_z(setting)

    def at_same_z(self, setting: Config) -> Config:
        """A setting with the learning rate that has the z of the best."""
        z = self.coordinates.z(self.traits, self.best)
        return setting.replaced(learning_rate=self._searched(self.coordinates.rate_of(self.traits, z, setting)))

    def _searched(self, rate: float) -> float:
        rates = self.space.learning_rates
        assert isinstance(rates, Range)
        return rates.clip(rate)


class _PatternSearch(_Recipe):
    def __init__(self, ledger: Ledger, variant: str, rng: np.random.Generator) -> None:
        super().__init__(ledger, variant)
        self.ranks: dict[Config, Rank] = {}
        self.side = int(rng.choice([-1, 1]))

    def run(self) -> None:
        self.train(self.best, self.ranks)
        while self.ledger.holds(self.variant, 1.0) and self.step > TINY:
            moved = self._along_rates()
            for name in self.others:
                moved |= any([self._improves(self.moved(name, -1)), self._improves(self.moved(name, 1))])
            if not moved:
                self.step /= 2

    def _along_rates(self) -> bool:
        """Go on to the side that improved last, else to the other."""
        for side in (self.side, -self.side):
            moved = False
            while self._improves(self.rate_moved(side * self.step)):
                moved = True
            if moved:
                self.side = side
                return True
        return False

    def _improves(self, chosen: Config) -> bool:
        """Train it and, where it is better, go there."""
        if self.train(chosen, self.ranks) and self.ranks[chosen] < self.ranks[self.best]:
            self.best = chosen
            return True
        return False


class _ShortRuns(_Recipe):
    def __init__(self, ledger: Ledger, variant: str) -> None:
        super().__init__(ledger, variant)
        self.length = ledger.problem.rungs[-LENGTHS:][0]
        self.short: dict[Config, Rank] = {}
        self.full: dict[Config, Rank] = {} if self.length < 1.0 else self.short
        largest = {each.name: each.last for each in dimensions(self.space, variant) if each.name == "rank"}
        placed = {**values(self.space, variant, self.best), **largest}  # the mode's batch is the smallest
        self.best = self.at_same_z(config(self.space, variant, placed))

    def run(self) -> None:
        three = [self.rate_moved(decades) for decades in (-STEP, 0.0, STEP)]
        self.best = min((each for each in three if self._try(each)), key=self.short.__getitem__, default=self.best)
        self._finish(self.best)
        while self.ledger.holds(self.variant, self.length) and self.step > TINY:
            self.step /= 2
            self._poll([self.rate_moved(side * self.step) for side in (-1, 1)])
            for name in self.others:
                self._poll([self.moved(name, side) for side in (-1, 1)])
            if self.step <= LEAST_STEP:
                for chosen in sorted(self.short, key=self.short.__getitem__):
                    self._finish(chosen)

    def _poll(self, near: list[Config]) -> None:
        """Short runs; the better one to the end where it beats the best's short score."""
        tried = [each for each in near if self._try(each)]
        if not tried:
            return
        better = min(tried, key=self.short.__getitem__)
        if self.short[better] < self.short[self.best]:
            self._finish(better)

    def _try(self, chosen: Config) -> bool:
        return self.train(chosen, self.short, self.length)

    def _finish(self, chosen: Config) -> None:
        """Train it to the end unless it diverged; it is the best if its full score is."""
        if chosen not in self.short:
            return
        if not math.isinf(self.short[chosen][0]):
            self.train(chosen, self.full, 1.0, self.length)
        if self._standing(chosen) < self._standing(self.best):
            self.best = chosen

    def _standing(self, chosen: Config) -> Rank:
        """By full score; without one worse than all that have one."""
        return self.full.get(chosen, (math.inf, chosen.learning_rate))
