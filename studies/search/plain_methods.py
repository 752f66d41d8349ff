"""What needs no library: grid, random draws, and one rung with the best few finished. One variant at a time."""

from __future__ import annotations

import math

import numpy as np

from autolora import variants
from autolora.space import Config, Range, Space, searchable
from studies.search.dimensions import uniform
from studies.search.laws_prior import mode, sample
from studies.search.ledger import Ledger

PER_DECADE = 4
"""Learning rates of LR-matters' grid: 1.1247, 2, 3.5566 and 6.3246 in every decade."""

ROUND, KEPT = 9, 2


def random_search(ledger: Ledger) -> None:
    """Uniform over choices, log-uniform over ranges, full runs.

    Cannot use: short runs, a prior, other variants.
    """
    for place, variant in enumerate(ledger.problem.variants):
        rng = np.random.default_rng([ledger.seed, place, 1])
        while ledger.holds(variant, 1.0):
            ledger.train(variant, uniform(ledger.problem.space, variant, rng))


def random_from_prior(ledger: Ledger) -> None:
    """Draws from the laws' prior, its mode first, full runs.

    Given the prior as it is, so that the learning rate is drawn for the rank, batch size and alpha that were drawn.

    Cannot use: short runs, scores, other variants.
    """
    for place, variant in enumerate(ledger.problem.variants):
        rng = np.random.default_rng([ledger.seed, place, 5])
        chosen = mode(ledger.problem, variant)
        while ledger.holds(variant, 1.0):
            ledger.train(variant, chosen)
            chosen = sample(ledger.problem, variant, rng)


def one_rung(ledger: Ledger) -> None:
    """Nine uniform configurations to the lowest rung, the best two to the end, and so on until the budget is used.

    After "one epoch, then the top k" (arXiv 2307.15422), in rounds of 2.8 full runs so that there is an answer before
    the budget ends. Where a problem has full runs only, it is random search.

    Cannot use: the rungs between, a prior, other variants.
    """
    problem = ledger.problem
    if len(problem.rungs) == 1:
        return random_search(ledger)
    lowest = problem.rungs[-3]
    sign = 1.0 if problem.direction == "minimize" else -1.0
    for place, variant in enumerate(problem.variants):
        rng = np.random.default_rng([ledger.seed, place, 2])
        while ledger.left(variant) >= 1.0:
            scored: list[tuple[float, Config]] = []
            affordable = math.floor((ledger.left(variant) - (1 - lowest)) / lowest + 1e-9)
            for _ in range(min(ROUND, affordable)):
                config = uniform(problem.space, variant, rng)
                score = ledger.train(variant, config, lowest)
                if score is not None:
                    scored.append((sign * score, config))
            for _, config in sorted(scored, key=lambda pair: pair[0])[:KEPT]:
                if ledger.holds(variant, 1 - lowest):
                    ledger.train(variant, config, 1.0, lowest)


def grid(ledger: Ledger) -> None:
    """LR-matters' grid with its advice on order: learning rate first, at a medium batch and rank; then the rest.

    Four rates a decade, where the first lies at random: on the paper's own rates, which are the cells of the tables and
    hence the kinks of surfaces that are linear between them, a grid would be flattered. Every second rate in random
    order, then the two grid neighbors of the best, then that rate at every other setting,
    scaled by the square root of the batch size, then what is left of the grid, in random order. Choices are the grid;
    a range of alpha gets five values.

    Cannot use: short runs, a prior, other variants.
    """
    for place, variant in enumerate(ledger.problem.variants):
        rng = np.random.default_rng([ledger.seed, place, 3])
        _Grid(ledger, variant, rng).run()


class _Grid:
    def __init__(self, ledger: Ledger, variant: str, rng: np.random.Generator) -> None:
        self.ledger = ledger
        self.variant = variant
        self.rng = rng
        space = ledger.problem.space
        self.rates = _rates(space, rng)
        self.settings = _settings(space, variant)
        self.medium = _medium(self.settings)
        self.scores: dict[Config, float] = {}

    def run(self) -> None:
        at = {rate: self._cell(rate, self.medium) for rate in self.rates}
        coarse = self.rates[::2]
        self._train([at[rate] for rate in self.rng.permutation(coarse).tolist()])
        if not self.scores:
            return
        best = self.rates.index(self._best().learning_rate)
        self._train([at[self.rates[near]] for near in (best - 1, best + 1) if 0 <= near < len(self.rates)])
        best_rate = self._best().learning_rate
        scaled = []
        for index in self.rng.permutation(len(self.settings)):
            setting = self.settings[int(index)]
            wanted = best_rate * math.sqrt(setting.batch_size / self.medium.batch_size)
            scaled.append(self._cell(min(self.rates, key=lambda rate: abs(math.log(rate / wanted))), setting))
        self._train(scaled)
        while self.ledger.holds(self.variant, 1.0) and len(self.scores) < len(self.rates) * len(self.settings):
            rate = self.rates[int(self.rng.integers(len(self.rates)))]
            self._train([self._cell(rate, self.settings[int(self.rng.integers(len(self.settings)))])])

    def _cell(self, rate: float, setting: Config) -> Config:
        return Config(rate, setting.batch_size, setting.rank, setting.alpha, setting.options)

    def _train(self, configs: list[Config]) -> None:
        """Those not trained yet, as far as the budget goes."""
        problem = self.ledger.problem
        sign = 1.0 if problem.direction == "minimize" else -1.0
        for config in configs:
            if config not in self.scores and self.ledger.holds(self.variant, 1.0):
                score = self.ledger.train(self.variant, config)
                self.scores[config] = math.inf if score is None else sign * score

    def _best(self) -> Config:
        return min(self.scores, key=lambda config: self.scores[config])


def _rates(space: Space, rng: np.random.Generator) -> list[float]:
    """A grid of the searched range, its phase at random."""
    rates = space.learning_rates
    if not isinstance(rates, Range):
        return rates
    low, high = math.log10(rates.low), math.log10(rates.high)
    return [10**place for place in np.arange(low + rng.uniform() / PER_DECADE, high, 1 / PER_DECADE).tolist()]


def _medium(settings: list[Config]) -> Config:
    """The middle batch size, rank and alpha, the lower of two."""
    left = settings
    for name in ("batch_size", "rank", "alpha", "options"):
        values = sorted({getattr(setting, name) for setting in left})
        left = [setting for setting in left if getattr(setting, name) == values[(len(values) - 1) // 2]]
    return left[0]


def _settings(space: Space, variant: str) -> list[Config]:
    """Every setting but the rate; long lists of choices are thinned to five, ranges of alpha are given five."""
    found = []
    traits = searchable.traits_at_start(space, variants.get(variant))
    for batch in _thinned(space.batch_size):
        for rank in _thinned(space.rank):
            alphas = space.alphas(traits, rank)
            if isinstance(alphas, Range):
                alphas = [float(value) for value in np.geomspace(alphas.low, alphas.high, 5)]
            for alpha in alphas:
                for own in space.combinations(variant)[:: max(1, len(space.combinations(variant)) // 5)]:
                    found.append(Config(1.0, batch, rank, alpha, own))
    return found


def _thinned(choices: list[int]) -> list[int]:
    return choices if len(choices) <= 5 else [choices[int(i)] for i in np.linspace(0, len(choices) - 1, 5)]
