"""Where the next configuration comes from, and what training on the paused trials is worth.

Both are judged by the same draws of a surrogate: by the expected improvement of a full run on the best full run of its
variant. The prior is the surrogate's belief before the first score; it weighs less with every score, and is dropped
where they contradict it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from autolora.priors.prior import Prior
from autolora.search.acquisition import Acquisition, Acquisitions, Proposal
from autolora.search.candidates import candidates
from autolora.search.features import Features
from autolora.search.opening import next_short_run
from autolora.search.surrogate import Draws, Surrogate
from autolora.search.trials import Trial, TrialTable
from autolora.space import Config, Coordinates, Options, Range, Scope, Searchable, Space, Traits, registry, searchable

UNKNOWN_IMPROVEMENT = 1.0
"""Units of the response that a variant without a full run is taken to be worse than the median draw of its trials."""
RANGE_SDS = 3.0
"""Standard deviations that the searched range of learning rates counts as where there is no prior."""
LEADERS = 100
"""Full runs of a variant that one more is measured by: the best by their scores."""
RELIED = 6
"""Trials being trained, of one variant, that are relied on to be trained to the end."""
PROPOSALS = 32
"""That one set of draws serves for, each counting on those before it."""
TOLD = 0.05
"""Decades that the centre must have moved to be told of; less may be chance."""
DOUBTED = 0.5
"""Trust in the prior's centre below which a proposal says that it was dropped."""


@dataclass(frozen=True)
class Sampler:
    """Judges and proposes configurations, as a pure function of the trial table.

    Attributes:
        space: what is searched.
        traits: of each variant.
        prior: None for no belief but the searched range.
        rungs: fractions of a full run at which trials are scored.
        seed: of the study.
        starts: by variant, the options of its default configuration, where the space names any.
        opens: whether a variant begins with the short runs of :mod:`autolora.search.opening`. Not where a trial runs on
            unless somebody stops it: there they would be full runs.
        too_large: configurations by variant that do not fit into memory, as far as that is known beforehand.
    """

    space: Space
    traits: Mapping[str, Traits]
    prior: Prior | None
    rungs: tuple[float, ...]
    seed: int
    starts: Mapping[str, Options] = field(default_factory=dict)
    opens: bool = True
    too_large: Mapping[str, Sequence[Config]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        variants: Mapping[str, Searchable],
        space: Space,
        prior: Prior | None,
        rungs: tuple[float, ...],
        seed: int,
        too_large: Mapping[str, Sequence[Config]] | None = None,
    ) -> Sampler:
        """The sampler of a study of these variants, by name; the other arguments are its attributes."""
        traits = {name: searchable.traits_at_start(space, variant) for name, variant in variants.items()}
        if prior is not None:
            traits = {name: prior.traits(name, own) for name, own in traits.items()}
        starts = {name: searchable.start(space, variant, space.opening_rank) for name, variant in variants.items()}
        return cls(space, traits, prior, rungs, seed, starts, too_large=dict(too_large or {}))

    def opening(self, table: TrialTable, variant: str) -> Proposal | None:
        """The next of the short runs that a variant begins with; none without a prior, whose mode they surround."""
        if self.prior is None or not self.opens:
            return None
        ceiling = self._diverged_from(table, variant)
        found = next_short_run(self._scope(variant), self.prior, self.coordinates, table, ceiling)
        if found is None or self._is_too_large(table, variant, found[0]):
            return None
        return Proposal(*found, Acquisition.certain())

    def surrogate(self, table: TrialTable) -> Surrogate:
        """The model of everything that has been scored."""
        return Surrogate(self._features, table, self.seed, fades=self.prior is not None)

    def acquisitions(self, table: TrialTable, variant: str, surrogate: Surrogate) -> Acquisitions:
        """The new configuration of the largest expected improvement, and what the paused trials are worth."""
        return self.view(table, variant, surrogate).acquisitions(table)

    def paused_acquisitions(self, table: TrialTable, variant: str, surrogate: Surrogate) -> Mapping[int, Acquisition]:
        """Of the paused trials, by number: the part of :meth:`acquisitions` that is computed quickly."""
        return self.view(table, variant, surrogate, proposing=False).paused_acquisitions(table)

    def view(self, table: TrialTable, variant: str, surrogate: Surrogate, proposing: bool = True) -> View:
        """Joint draws for a variant's trials and, to propose one, for new configurations."""
        rng = self._rng(table)
        new = self._candidates(rng, table, variant, surrogate) if proposing else []
        known = _Contenders.of(table, variant).trials
        draws = surrogate.draws(variant, [*new, *(trial.config for trial in known)], rng)
        places = {trial.number: place for place, trial in enumerate(known, start=len(new))}
        return View(
            sampler=self,
            variant=variant,
            surrogate=surrogate,
            draws=draws,
            new=new,
            places=places,
            seen=len(table.of(variant)),
        )

    def shortfalls(self, table: TrialTable, tuned: Mapping[str, Config]) -> dict[str, float]:
        """How far behind the best of its variant a configuration may be at full length, by variant: the root mean
        square over what the surrogate leaves possible, in the metric's own units.

        Args:
            table: everything that has happened.
            tuned: by variant, each trained to full length.
        """
        if not tuned:
            return {}
        surrogate, found = self.surrogate(table), {}
        for variant, config in tuned.items():
            rng = self._rng(table)
            draws = surrogate.draws(variant, [config, *self._candidates(rng, table, variant, surrogate)], rng)
            found[variant] = math.sqrt(float(draws.weights @ surrogate.shortfalls(draws) ** 2))
        return found

    def origin(self, surrogate: Surrogate, acquisition: Acquisition) -> str:
        """Of a proposal, in words; the offset only where there is a prior that it moves."""
        words = f"model: {acquisition.probability_of_improvement:.0%} to improve"
        if self.prior is None:
            return words
        moved = surrogate.offset()
        words += f", centre moved by {moved:+.2f} decades" if abs(moved) > TOLD else ""
        return words + (", the prior's centre is doubted" if surrogate.trust < DOUBTED else "")

    def _scope(self, variant: str) -> Scope:
        return Scope(self.space, self.traits[variant], variant, self.starts.get(variant, ()))

    def _rng(self, table: TrialTable) -> np.random.Generator:
        return np.random.default_rng([self.seed, len(table.trials), table.scored])

    def _candidates(
        self, rng: np.random.Generator, table: TrialTable, variant: str, surrogate: Surrogate
    ) -> list[Config]:
        """Those that are neither tried nor known to diverge; where all are known to, the lowest learning rate."""
        traits = self.traits[variant]
        tried = table.tried(variant)
        drawn = candidates(rng, self._scope(variant), self.prior, surrogate, self.coordinates, table)
        drawn = [config for config in drawn if not self._is_too_large(table, variant, config)]
        untried = [config for config in drawn if config not in tried]
        if not untried:
            rest = self.space.enumerate(traits, variant)
            untried = [
                config
                for config in rest or ()
                if config not in tried and not self._is_too_large(table, variant, config)
            ]
        ceiling = self._diverged_from(table, variant)
        safe = [config for config in untried if self.coordinates.z(traits, config) < ceiling]
        return safe or sorted(untried, key=lambda config: self.coordinates.z(traits, config))[:1]

    def _is_too_large(self, table: TrialTable, variant: str, config: Config) -> bool:
        """Whether a configuration is at least as large in every size as one that does not fit into memory."""
        known = self.too_large.get(variant, ())
        found = [*known, *(trial.config for trial in table.too_large(variant))]
        return any(at_least_as_large(config, other) for other in found)

    def _diverged_from(self, table: TrialTable, variant: str) -> float:
        """z at and above which the variant is known to diverge: no draw goes there unless a healthy trial did."""
        trials = table.of(variant)
        healthy = (self._remembered_z(variant, trial.config) for trial in trials if trial.healthy and trial.scores)
        diverged = [self._remembered_z(variant, trial.config) for trial in trials if trial.outcome == "diverged"]
        highest = max(healthy, default=-math.inf)
        return min((z for z in diverged if z > highest), default=math.inf)

    def _remembered_z(self, variant: str, config: Config) -> float:
        """Of a trial's configuration, as it is asked for again and again."""
        known = self._known_z[variant]
        if config not in known:
            known[config] = self.coordinates.z(self.traits[variant], config)
        return known[config]

    @cached_property
    def _known_z(self) -> dict[str, dict[Config, float]]:
        return {variant: {} for variant in self.traits}

    @property
    def coordinates(self) -> Coordinates:
        return self._features.coordinates

    @cached_property
    def _features(self) -> Features:
        if self.prior is not None:
            return Features(self.space, self.traits, self.prior.coordinates, self.rungs, self.prior.sd)
        coordinates, sd = _uninformed(self.space, self.traits)
        return Features(self.space, self.traits, coordinates, self.rungs, sd)


@dataclass
class View:
    """Joint draws of full runs of one variant, and what they say at any moment.

    They are of configurations, so that they say as much when a trial among them has been started, scored or ended
    since: what is known better by then is another model's to say.

    Attributes:
        sampler: that made it, given ``surrogate``.
        new: configurations without a trial when it was made: the first columns of ``draws``.
        places: the columns of trials, by number.
        seen: trials that the variant had.
    """

    sampler: Sampler
    variant: str
    surrogate: Surrogate
    draws: Draws
    new: list[Config]
    places: dict[int, int]
    seen: int

    def holds(self, table: TrialTable) -> bool:
        """Whether the draws are of every trial that counts, and there are enough left to propose."""
        started = self._started(table)
        self.places |= started
        known = all(trial.number in self.places for trial in _Contenders.of(table, self.variant).trials)
        return known and not (started and len(started) >= min(PROPOSALS, len(self.new)))

    def acquisitions(self, table: TrialTable, room: float = 1.0) -> Acquisitions:
        """The new configuration of the largest expected improvement per full run that it costs, of those that cost at
        most ``room`` of them, and what the paused trials are worth.

        A new one is chosen for what it adds to those that are paused or being trained: so the trials of several
        workers spread.
        """
        values, weights = self.draws.values, self.draws.weights
        if not values.shape[1]:  # nothing is left that fits into memory
            return Acquisitions(None, {})
        contenders = _Contenders.of(table, self.variant)
        known = self._of(contenders.trials)
        best, left = contenders.to_beat(values, known)
        paused = contenders.paused_acquisitions(weights, best, left, known)
        opening = self.sampler.opening(table, self.variant)
        if opening is not None and table.cost(opening.config) <= room:
            return Acquisitions(opening, paused)
        started = list(self._started(table).values())
        if len(started) == len(self.new):
            return Acquisitions(None, paused)
        floor = known.min(axis=1, initial=np.inf)
        improvements = weights @ np.maximum(0.0, np.minimum(left, floor)[:, None] - values[:, : len(self.new)])
        costs = self._costs(table)
        improvements /= costs
        improvements[started] = -np.inf
        improvements[costs > room] = -np.inf
        if not np.isfinite(improvements).any():
            return Acquisitions(None, paused)
        chosen = int(np.argmax(improvements))
        acquisition = Acquisition.of(weights, best, left, values[:, chosen])
        proposal = Proposal(self.new[chosen], self.sampler.origin(self.surrogate, acquisition), acquisition)
        return Acquisitions(proposal, paused)

    def paused_acquisitions(self, table: TrialTable) -> Mapping[int, Acquisition]:
        """Of the paused trials, by number."""
        contenders = _Contenders.of(table, self.variant)
        known = self._of(contenders.trials)
        best, left = contenders.to_beat(self.draws.values, known)
        return contenders.paused_acquisitions(self.draws.weights, best, left, known)

    def _of(self, trials: Sequence[Trial]) -> np.ndarray:
        """(D, n) draws for trials."""
        return self.draws.values.take([self.places[trial.number] for trial in trials], axis=1)

    def _costs(self, table: TrialTable) -> np.ndarray:
        """Full runs that the new configurations cost."""
        return np.array([table.cost(config) for config in self.new])

    def _started(self, table: TrialTable) -> dict[int, int]:
        """Columns of the new configurations that have become trials, by number."""
        later = table.of(self.variant)[self.seen :]
        return {trial.number: self._columns[trial.config] for trial in later if trial.config in self._columns}

    @cached_property
    def _columns(self) -> dict[Config, int]:
        return {config: column for column, config in enumerate(self.new)}


@dataclass(frozen=True)
class _Contenders:
    """Trials of a variant that wait to be trained on, the best that are trained to the end, and those being trained."""

    paused: list[Trial]
    complete: list[Trial]
    running: list[Trial]

    @classmethod
    def of(cls, table: TrialTable, variant: str) -> _Contenders:
        complete = sorted(table.leaders(variant)[:LEADERS], key=lambda trial: trial.number)
        running = [trial for trial in table.pending(variant) if trial.first]
        return cls(table.paused(variant), complete, running)

    @property
    def trials(self) -> list[Trial]:
        return [*self.paused, *self.complete, *self.running]

    def to_beat(self, values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(D,) the best full run, and the best that full runs and those being trained leave to improve on.

        Without a full run, one of nearly anything is welcome. Of many that are being trained only those furthest on are
        likely to be trained to the end: counting on all, nothing would seem worth training on.

        Args:
            values: all draws.
            known: those of :attr:`trials`.
        """
        ends = len(self.paused), len(self.paused) + len(self.complete)
        _, complete, running = np.split(known, ends, axis=1)
        if self.complete:
            best = complete.min(axis=1)
        else:
            best = np.full(len(values), np.median(known if known.shape[1] else values) + UNKNOWN_IMPROVEMENT)
        furthest = sorted(range(len(self.running)), key=lambda place: -self.running[place].target)[:RELIED]
        return best, np.minimum(best, running[:, furthest].min(axis=1, initial=np.inf))

    def paused_acquisitions(
        self, weights: np.ndarray, best: np.ndarray, left: np.ndarray, known: np.ndarray
    ) -> dict[int, Acquisition]:
        return {trial.number: Acquisition.of(weights, best, left, known[:, at]) for at, trial in enumerate(self.paused)}


def at_least_as_large(config: Config, other: Config) -> bool:
    """Whether it is as large as the other, or larger, in all that memory grows with, and like it in all else that
    memory depends on; what the other has no value of is not looked at.
    """
    sizes = ((dimension.size(config), dimension.size(other)) for dimension in registry())
    keys = ((dimension.memory_key(config), dimension.memory_key(other)) for dimension in registry())
    return all(own is None or its is None or own >= its for own, its in sizes) and all(
        not its or own == its for own, its in keys
    )


def _uninformed(space: Space, traits: Mapping[str, Traits]) -> tuple[Coordinates, float]:
    """Coordinates whose z is 0 in the middle of the searched learning rates, on average, and the sd of the offset."""
    rates, origin = space.learning_rates, Coordinates(0.0, space.hidden_size, space.longest)
    low, high = (rates.low, rates.high) if isinstance(rates, Range) else (min(rates), max(rates))
    middle = math.sqrt(low * high)
    centres = []
    for own in traits.values():
        for rank in space.rank:
            alphas = space.alphas(own, rank)
            alpha = math.sqrt(alphas.low * alphas.high) if isinstance(alphas, Range) else float(np.median(alphas))
            centres += [origin.z(own, Config(middle, batch, rank, alpha)) for batch in space.batch_size]
    width = math.log10(high / low)
    return Coordinates(float(np.mean(centres)), space.hidden_size, space.longest), max(width, 0.1) / RANGE_SDS
