"""Where the next configuration comes from: the prior, around an incumbent, or uniform.

The mixture follows PriorBand (arXiv 2306.12370): neighbours of an incumbent against draws of the prior, shared out by
how well either density explains the best trials. Two things differ. The uniform share is the prior's own constant one,
since a bracket's rungs are filled before the next bracket draws. And the prior's centre moves with what *all* variants
have shown: in scaling-law coordinates their good regions coincide up to one shift each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import numpy as np

from autolora.priors.prior import (
    UNIFORM_SHARE,
    Prior,
    Quantiles,
    even,
    nearest_rate,
    pick,
    prior_batch_weights,
    random_quantiles,
    uniform_density,
    uniform_sample,
)
from autolora.search.trials import Bracket, Trial, TrialTable
from autolora.space import Config, Coordinates, Options, Range, Space, Traits

SAMPLE, STRATA = 1, 2
"""Purposes of randomness."""

INCUMBENT_SD = 0.25
"""How far, in decades, the best of one bracket lies from the true best."""
SHARPEST_SD = 0.15
"""Neighbours spread at least this far, in decades: closer ones would only measure noise."""
LOCAL_ALPHA_SD = 0.75
KEEP_CHOICE = 0.5
"""Chance that a neighbour keeps the incumbent's rank, and likewise its batch size and each of its options."""

ENOUGH = 2
"""Scores at one rung above the cheapest before its best counts as an incumbent."""
VAGUE_SD = 2.0
"""Decades; what is expected of a variant without a prior."""
DRAWS = 64
"""Draws for one proposal that is neither tried already nor known to diverge."""


@dataclass(frozen=True)
class Sampler:
    """Proposes configurations, as a pure function of the trial table.

    Attributes:
        space: what is searched.
        traits: of each variant.
        prior: None for a uniform one.
        factor: reduction factor of the brackets; the share 1/factor of a rung counts as good.
        seed: of the study.
        starts: by variant, the options of its default configuration, where the space names any.
    """

    space: Space
    traits: Mapping[str, Traits]
    prior: Prior | None
    factor: int
    seed: int
    starts: Mapping[str, Options] = field(default_factory=dict)

    def default(self, variant: str) -> tuple[Config, str]:
        """The first configuration of a variant where the user gave none: the prior's mode."""
        prior = self.prior or Prior.from_laws(self.space.hidden_size)
        name = "prior's mode" if self.prior else "laws' mode (no prior is used in the search)"
        mode = prior.mode(self.space, self.traits[variant])
        return replace(mode, options=self.starts.get(variant, ())), name

    def propose(self, table: TrialTable, variant: str, number: int, bracket: Bracket) -> tuple[Config, str] | None:
        """A configuration for trial ``number`` with the reason for it, or None where a finite space is used up."""
        tried = {trial.config for trial in table.of(variant)}
        finite = self.space.enumerate(self.traits[variant], variant)
        if finite is not None and all(config in tried for config in finite):
            return None
        rng = np.random.default_rng([self.seed, number, SAMPLE])
        ceiling = self._diverged_from(table, variant)
        quantiles = self._stratum(table, variant, bracket)
        untried = []
        for config, origin in self._draws(rng, table, variant, quantiles):
            if config in tried:
                continue
            if self._z(variant, config) < ceiling:
                return config, origin
            untried.append((config, origin))
        rest = self.space.enumerate(self.traits[variant], variant)
        if rest is not None:
            untried = [(config, "untried") for config in rest if config not in tried]
        return min(untried, key=lambda draw: self._z(variant, draw[0]))

    def _draws(
        self, rng: np.random.Generator, table: TrialTable, variant: str, quantiles: Quantiles | None
    ) -> Iterator[tuple[Config, str]]:
        """Draws from the mixture with their reasons; ``quantiles`` are for the first."""
        traits, choices = self.traits[variant], self.space.options_of(variant)
        good = self._good(table, variant)
        offset = self._offset(table, self.traits).mean
        ranks = self._learned(table, "rank", even(self.space.rank))
        batches = self._learned(table, "batch_size", prior_batch_weights(self.space))
        neighbours = (1 - UNIFORM_SHARE) * self._trust_in_incumbent(table, variant, good, offset) if good else 0.0
        moved = f", centre moved by {offset:+.2f} decades" if abs(offset) > 0.005 else ""
        for _ in range(DRAWS):
            where = quantiles or random_quantiles(rng)
            quantiles = None
            kept: Options = ()
            if rng.uniform() < neighbours:
                around, kept = self._location(table, variant, good[0]), good[0].config.options
                config = self._neighbour(rng, variant, good[0], around, where, ranks, batches)
                origin = _describe(table, good[0])
            elif self.prior is None:
                config, origin = uniform_sample(rng, self.space, traits, where), "uniform"
            else:
                config, source = self.prior.draw(rng, self.space, traits, where, offset, ranks, batches)
                origin = source + moved if source == "prior" else source
            # Last: what else is drawn does not depend on which options are opened.
            yield replace(config, options=_draw_options(rng, choices, kept)), origin

    def _good(self, table: TrialTable, variant: str) -> list[Trial]:
        """The best third of the highest rung with enough scores, best first; empty before there is one.

        The cheapest rung is left out: its ranking is the bracket's business, and its first few scores would narrow
        the draws that the rest of the bracket is meant to spread.
        """
        for rung in reversed(range(min(1, len(table.rungs) - 1), len(table.rungs))):
            scored = [trial for trial in table.of(variant) if trial.healthy and rung in trial.scores]
            if len(scored) >= ENOUGH:
                return table.ranked(scored, rung)[: max(1, math.ceil(len(scored) / self.factor))]
        return []

    def _learned(self, table: TrialTable, name: str, weights: np.ndarray) -> np.ndarray:
        """Probabilities of the ranks, or batch sizes: the given weights times how often each was among the good.

        All variants count: the share of a choice's trials that their bracket ranked in its best third at the first
        rung, with one good trial in three as a prior.
        """
        choices = getattr(self.space, name)
        good = dict.fromkeys(choices, 1.0)
        seen = dict.fromkeys(choices, float(self.factor))
        for variant in self.traits:
            for trials in table.brackets(variant).values():
                if any(trial.pending and trial.target == 0 for trial in trials):
                    continue
                ordered = table.ranked((trial for trial in trials if 0 in trial.scores), 0)
                if len(ordered) < self.factor:  # too few for a best third
                    continue
                for place, trial in enumerate(ordered):
                    choice = getattr(trial.config, name)
                    seen[choice] += 1
                    good[choice] += place < len(ordered) / self.factor
        weights = weights * np.array([good[choice] / seen[choice] for choice in choices])
        return weights / weights.sum()

    def _trust_in_incumbent(self, table: TrialTable, variant: str, good: list[Trial], offset: float) -> float:
        """Share of neighbours against prior draws: how well either density explains the good trials, by rank."""
        traits = self.traits[variant]
        around = self._location(table, variant, good[0])
        local = prior = 0.0
        for weight, trial in zip(range(len(good), 0, -1), good, strict=True):
            local += weight * self._neighbour_density(variant, good[0], around, trial.config)
            if self.prior is None:
                prior += weight * uniform_density(self.space, traits, trial.config)
            else:
                prior += weight * math.exp(self.prior.log_pdf(self.space, traits, trial.config, offset))
        return local / (local + prior)

    def _neighbour(
        self,
        rng: np.random.Generator,
        variant: str,
        incumbent: Trial,
        around: NormalDist,
        quantiles: Quantiles,
        ranks: np.ndarray,
        batches: np.ndarray,
    ) -> Config:
        traits, config = self.traits[variant], incumbent.config
        rank = pick(self.space.rank, _keeping(self.space.rank, config.rank, ranks), quantiles.rank)
        kept = _keeping(self.space.batch_size, config.batch_size, batches)
        batch = pick(self.space.batch_size, kept, quantiles.batch_size)
        w = self._coordinates.w(traits, config)
        alphas = self.space.alphas(traits, rank)
        law = traits.law_alpha(rank, self._coordinates.hidden_size)
        if isinstance(alphas, Range):
            alpha = alphas.clip(float(law * 2 ** rng.normal(w, LOCAL_ALPHA_SD)))
        else:
            near = min(alphas, key=lambda choice: abs(math.log2(choice / law) - w))
            alpha = near if rng.uniform() < KEEP_CHOICE else float(rng.choice(alphas))
        z = around.inv_cdf(min(max(quantiles.rate, 1e-9), 1 - 1e-9))
        eta = self._coordinates.learning_rate(traits, z, batch, rank, alpha)
        return Config(nearest_rate(self.space, eta), batch, rank, alpha)

    def _neighbour_density(self, variant: str, incumbent: Trial, around: NormalDist, config: Config) -> float:
        """Density of :meth:`_neighbour` over the measure of ``Prior.log_pdf``, with nothing learned of the choices."""
        traits, centre = self.traits[variant], incumbent.config
        rank = (1 - KEEP_CHOICE) / len(self.space.rank) + KEEP_CHOICE * (config.rank == centre.rank)
        batch = (1 - KEEP_CHOICE) / len(self.space.batch_size) + KEEP_CHOICE * (config.batch_size == centre.batch_size)
        alphas = self.space.alphas(traits, config.rank)
        if isinstance(alphas, Range):
            w = NormalDist(self._coordinates.w(traits, centre), LOCAL_ALPHA_SD).pdf(self._coordinates.w(traits, config))
        else:
            w = 1 / len(alphas)
        return around.pdf(self._z(variant, config)) * rank * batch * w

    def _offset(self, table: TrialTable, variants: Iterable[str]) -> NormalDist:
        """Posterior of the centre's error, in decades, from the incumbents of these variants.

        The error is normal with the prior's sd; an incumbent shows it up to its variant's own shift and to how well a
        few trials can locate a best.
        """
        if self.prior is None:
            return NormalDist(0.0, VAGUE_SD)
        precision, total = self.prior.sd**-2, 0.0
        for variant in variants:
            good = self._good(table, variant)
            if good:
                weight = 1 / (self.traits[variant].shift_sd ** 2 + INCUMBENT_SD**2)
                precision += weight
                total += weight * self._z(variant, good[0].config)
        return NormalDist(total / precision, precision**-0.5)

    def _location(self, table: TrialTable, variant: str, incumbent: Trial) -> NormalDist:
        """Posterior of the variant's best z: its incumbent, and what the other variants and the prior expect of it.

        A cheap ranking of a few draws locates a best only roughly; the more of its trials ran to full length, the
        less the expectation counts.
        """
        others = self._offset(table, [name for name in self.traits if name != variant])
        expected = NormalDist(others.mean, math.hypot(others.stdev, self.traits[variant].shift_sd))
        found = INCUMBENT_SD**2 / max(1, len(table.complete(variant)) - 1)
        share = expected.variance / (expected.variance + found)
        mean = share * self._z(variant, incumbent.config) + (1 - share) * expected.mean
        return NormalDist(mean, max(SHARPEST_SD, math.sqrt(share * found)))

    def _diverged_from(self, table: TrialTable, variant: str) -> float:
        """z at and above which the variant is known to diverge: no draw goes there unless a healthy trial did."""
        healthy = [self._z(variant, trial.config) for trial in table.of(variant) if trial.healthy and trial.scores]
        diverged = [self._z(variant, trial.config) for trial in table.of(variant) if trial.outcome == "diverged"]
        beyond = [z for z in diverged if z > max(healthy, default=-math.inf)]
        return min(beyond, default=math.inf)

    def _stratum(self, table: TrialTable, variant: str, bracket: Bracket) -> Quantiles | None:
        """Quantiles that no other trial of the bracket shares (a Latin hypercube): it covers the whole density.

        None for a trial that replaces a diverged one: all strata are taken.
        """
        used = len(table.brackets(variant).get(bracket, []))
        if used >= bracket.size:
            return None
        place = list(self.traits).index(variant)
        rng = np.random.default_rng([self.seed, place, bracket.index, STRATA])
        strata = np.stack([rng.permutation(bracket.size) for _ in Quantiles._fields])
        inside = rng.uniform(size=strata.shape)
        return Quantiles(*(float(q) for q in (strata + inside)[:, used] / bracket.size))

    @property
    def _coordinates(self) -> Coordinates:
        return self.prior.coordinates if self.prior else Coordinates(0.0, self.space.hidden_size)

    def _z(self, variant: str, config: Config) -> float:
        return self._coordinates.z(self.traits[variant], config)


def _keeping(choices: Sequence[int], current: int, weights: np.ndarray) -> np.ndarray:
    """Weights with KEEP_CHOICE of the mass on the current choice, where that is one (a user's baseline may not be)."""
    if current not in choices:
        return weights
    return (1 - KEEP_CHOICE) * weights + KEEP_CHOICE * (np.array(choices) == current)


def _draw_options(
    rng: np.random.Generator, choices: Mapping[str, Sequence[int | float]], incumbent: Options
) -> Options:
    """Each option as the incumbent has it, with the chance KEEP_CHOICE where that is a choice, or else uniform."""
    current, drawn = dict(incumbent), []
    for name, values in choices.items():
        keep = current.get(name) in values and rng.uniform() < KEEP_CHOICE
        drawn.append((name, current[name] if keep else values[int(rng.integers(len(values)))]))
    return tuple(drawn)


def _describe(table: TrialTable, trial: Trial) -> str:
    rung = trial.reached
    return f"near trial {trial.number} ({trial.scores[rung]:.4g} at {table.rungs[rung]:.3g} of a run)"
