"""This project's search with a part left out, and with a part that it leaves out by default."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from autolora import variants
from autolora.priors import Prior
from autolora.search.features import Features
from autolora.search.sampler import RANGE_SDS, Sampler
from autolora.search.surrogate import Surrogate
from autolora.search.trials import Trial, TrialTable
from autolora.space import Config, Coordinates, Range, Traits, searchable
from studies.search.ledger import Ledger
from studies.search.loop import Loop, by_policy, by_rule
from studies.search.own_methods import LENGTHS, laws, registered, searched

EXPONENT_SD, SHIFT_SD = 0.5, 0.5
"""Where no law is known: of the exponents of scale, rank and batch size, and of a variant's decades off plain LoRA."""

REDUCTION = 3
BRACKETS = (9, 3, 1)
"""Trials that a bracket may begin with, as many as the budget holds: 9 - 3 - 1 by rungs, 3 - 1 - 1 or 1 - 1 - 1."""

TOLERANCE = 1e-6


def no_transfer(ledger: Ledger) -> None:
    """Every variant tuned in a study of its own; what is known is the laws alone."""
    for place, variant in enumerate(ledger.problem.variants):
        searched(ledger, "laws", variants=registered([variant]), seed=ledger.seed + place)


def no_short_runs(ledger: Ledger) -> None:
    """Full runs only."""
    searched(ledger, "laws", rungs=(1.0,))


def confirm(ledger: Ledger) -> None:
    """With full runs kept for further seeds of the finalists, as by default: three of twelve."""
    searched(ledger, "laws", confirm="auto")


def no_laws(ledger: Ledger) -> None:
    """Coordinates that are log10 of the learning rate, and no prior.

    The model has the same terms for scale, rank, batch size and variant, and has to learn them: it believes each
    exponent, and each variant's shift, to be 0, give or take 0.5.
    """
    by_policy(Loop(ledger, _sampler(ledger, None, Lawless)))


def no_opening(ledger: Ledger) -> None:
    """Expected improvement from the first trial on, in place of three short runs around the prior's mode."""
    by_policy(Loop(ledger, _sampler(ledger, laws(ledger.problem), Unopened)))


def promotion_by_rank(ledger: Ledger) -> None:
    """The model proposes; what goes on is decided by successive halving of raw scores, in brackets of nine."""
    by_rule(Loop(ledger, _sampler(ledger, laws(ledger.problem))), _halving)


def no_early_stop(ledger: Ledger) -> None:
    """Every trial to the end; the model sees its scores on the way."""
    by_rule(Loop(ledger, _sampler(ledger, laws(ledger.problem))), _to_the_end)


@dataclass(frozen=True)
class Raw(Coordinates):
    """z is the learning rate's decades from the centre, whatever the variant, rank, batch size and alpha."""

    def z(self, traits: Traits, config: Config) -> float:
        return math.log10(config.learning_rate) - self.centre

    def learning_rate(self, traits: Traits, z: float, batch_size: int, rank: int, alpha: float) -> float:
        return 10 ** (z + self.centre)


@dataclass(frozen=True)
class Unopened(Sampler):
    """The sampler whose model proposes the first trials, too."""

    def opening(self, table: TrialTable, variant: str) -> None:
        return None


@dataclass(frozen=True)
class Lawless(Sampler):
    """The sampler without a prior and without the laws' exponents and shifts."""

    @property
    def coordinates(self) -> Coordinates:
        return self._raw.coordinates

    def surrogate(self, table: TrialTable) -> Surrogate:
        return Surrogate(self._raw, table, self.seed, fades=False)

    @cached_property
    def _raw(self) -> Features:
        rates = self.space.learning_rates
        assert isinstance(rates, Range)
        low, high = math.log10(rates.low), math.log10(rates.high)
        unknown = {
            name: replace(own, shift=0.0, shift_sd=SHIFT_SD, alpha_redundant=False) for name, own in self.traits.items()
        }
        coordinates = Raw((low + high) / 2, self.space.hidden_size)
        features = Features(self.space, unknown, coordinates, self.rungs, (high - low) / RANGE_SDS)
        features.shift_beliefs[1:4, 1] = EXPONENT_SD
        return features


def _sampler(ledger: Ledger, prior: Prior | None, kind: type[Sampler] = Sampler) -> Sampler:
    """As Search has it."""
    problem = ledger.problem
    space, names = problem.space, problem.variants
    return kind(
        space=space,
        traits={name: searchable.traits_at_start(space, variants.get(name)) for name in names},
        prior=prior,
        rungs=problem.rungs[-LENGTHS:],
        seed=ledger.seed,
        starts={name: searchable.start(space, variants.get(name), space.opening_rank) for name in names},
    )


def _halving(loop: Loop, variant: str) -> Iterator[None]:
    rungs = loop.table.rungs
    while size := next((size for size in BRACKETS if _cost(size, rungs) <= loop.left(variant) + TOLERANCE), 0):
        bracket: list[Trial] = []
        for _ in range(size if loop.last else 1):
            fresh = loop.acquisitions(variant).proposal
            if fresh is not None:
                bracket.append(loop.start(variant, fresh.config))
                yield
        if not bracket:
            return
        for rung in range(loop.last):
            ranked = loop.table.ranked((trial for trial in bracket if rung in trial.scores and trial.healthy), rung)
            kept = max(1, len(bracket) // REDUCTION)
            for trial in ranked[kept:]:
                loop.finish(trial.number, "pruned")
            bracket = ranked[:kept]
            for trial in bracket:
                loop.promote(trial)
                yield


def _to_the_end(loop: Loop, variant: str) -> Iterator[None]:
    while loop.left(variant) >= 1 - TOLERANCE:
        fresh = loop.acquisitions(variant).proposal
        if fresh is None:
            return
        trial = loop.start(variant, fresh.config)
        yield
        while trial.live:
            loop.promote(trial)
            yield


def _cost(size: int, rungs: tuple[float, ...]) -> float:
    """Full runs of a bracket."""
    kept = [max(1, size // REDUCTION**place) for place in range(len(rungs))]
    added = [after - before for before, after in itertools.pairwise((0.0, *rungs))]
    return sum(count * share for count, share in zip(kept, added, strict=True))
