"""Where the next configuration comes from: the prior, around an incumbent, or uniform.

The mixture follows PriorBand (arXiv 2306.12370): neighbours of an incumbent against draws of the prior, shared out by
how well either density explains the best trials. Two things differ. The uniform share is the prior's own constant one,
since a bracket's rungs are filled before the next bracket draws. And the prior's centre moves with what *all* variants
have shown: in scaling-law coordinates their good regions coincide up to one shift each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from autolora.priors.prior import (
    UNIFORM_SHARE,
    Prior,
    batch_weights,
    nearest_rate,
    uniform_density,
    uniform_sample,
)
from autolora.search.trials import Bracket, Trial, TrialTable
from autolora.space import Config, Coordinates, Range, Space, Traits

SAMPLE, STRATA = 1, 2
"""Purposes of randomness."""

LOCAL_RATE_SD = 0.2
"""Decades around an incumbent: half of a plateau's median width."""
LOCAL_ALPHA_SD = 0.75
KEEP_CHOICE = 0.6
"""Chance that a neighbour keeps the incumbent's rank, and likewise its batch size."""

INCUMBENT_SD = 0.25
"""How far, in decades, the best of a few trials lies from the true best."""
ENOUGH = 2
"""Scores at one rung above the cheapest before its best counts as an incumbent."""
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
    """

    space: Space
    traits: Mapping[str, Traits]
    prior: Prior | None
    factor: int
    seed: int

    def default(self, variant: str) -> tuple[Config, str]:
        """The first configuration of a variant where the user gave none: the prior's mode."""
        prior = self.prior or Prior.from_laws(self.space.hidden_size)
        name = "prior's mode" if self.prior else "laws' mode (no prior is used in the search)"
        return prior.mode(self.space, self.traits[variant]), name

    def propose(self, table: TrialTable, variant: str, number: int, bracket: Bracket) -> tuple[Config, str] | None:
        """A configuration for trial ``number`` with the reason for it, or None where a finite space is used up."""
        tried = {trial.config for trial in table.of(variant)}
        finite = self.space.enumerate(self.traits[variant])
        if finite is not None and all(config in tried for config in finite):
            return None
        rng = np.random.default_rng([self.seed, number, SAMPLE])
        ceiling = self._diverged_from(table, variant)
        quantile = self._stratum(table, variant, bracket)
        untried = []
        for config, origin in self._draws(rng, table, variant, quantile):
            if config in tried:
                continue
            if self._z(variant, config) < ceiling:
                return config, origin
            untried.append((config, origin))
        rest = self.space.enumerate(self.traits[variant])
        if rest is not None:
            untried = [(config, "untried") for config in rest if config not in tried]
        return min(untried, key=lambda draw: self._z(variant, draw[0]))

    def _draws(
        self, rng: np.random.Generator, table: TrialTable, variant: str, quantile: float | None
    ) -> Iterator[tuple[Config, str]]:
        """Draws from the mixture with their reasons; ``quantile`` is for the first."""
        traits = self.traits[variant]
        good = self._good(table, variant)
        offset = self._offset(table)
        neighbours = (1 - UNIFORM_SHARE) * self._trust_in_incumbent(variant, good, offset) if good else 0.0
        moved = f", centre moved by {offset:+.2f} decades" if abs(offset) > 0.005 else ""
        for _ in range(DRAWS):
            if rng.uniform() < neighbours:
                yield self._neighbour(rng, variant, good[0]), self._describe(table, good[0])
            elif self.prior is None:
                yield uniform_sample(rng, self.space, traits, quantile), "uniform"
            else:
                config, source = self.prior.draw(rng, self.space, traits, quantile, offset)
                yield config, source + moved if source == "prior" else source
            quantile = None

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

    def _trust_in_incumbent(self, variant: str, good: list[Trial], offset: float) -> float:
        """Share of neighbours against prior draws: how well either density explains the good trials, by rank."""
        traits = self.traits[variant]
        weights = [len(good) - place for place in range(len(good))]
        local = prior = 0.0
        for weight, trial in zip(weights, good, strict=True):
            local += weight * self._neighbour_density(variant, good[0], trial.config)
            if self.prior is None:
                prior += weight * uniform_density(self.space, traits, trial.config)
            else:
                prior += weight * math.exp(self.prior.log_pdf(self.space, traits, trial.config, offset))
        return local / (local + prior)

    def _neighbour(self, rng: np.random.Generator, variant: str, incumbent: Trial) -> Config:
        traits, config = self.traits[variant], incumbent.config
        # A user's baseline may have a rank and a batch size that are not searched.
        keep_rank = rng.uniform() < KEEP_CHOICE and config.rank in self.space.rank
        rank = config.rank if keep_rank else int(rng.choice(self.space.rank))
        keep_batch = rng.uniform() < KEEP_CHOICE and config.batch_size in self.space.batch_size
        batches = self.space.batch_size
        batch = config.batch_size if keep_batch else int(rng.choice(batches, p=batch_weights(self.space)))
        w = self._coordinates.w(traits, config)
        alphas = self.space.alphas(traits, rank)
        law = traits.law_alpha(rank, self._coordinates.hidden_size)
        if isinstance(alphas, Range):
            alpha = alphas.clip(float(law * 2 ** rng.normal(w, LOCAL_ALPHA_SD)))
        else:
            near = min(alphas, key=lambda choice: abs(math.log2(choice / law) - w))
            alpha = near if rng.uniform() < KEEP_CHOICE else float(rng.choice(alphas))
        z = float(rng.normal(self._z(variant, config), LOCAL_RATE_SD))
        eta = self._coordinates.learning_rate(traits, z, batch, rank, alpha)
        return Config(nearest_rate(self.space, eta), batch, rank, alpha)

    def _neighbour_density(self, variant: str, incumbent: Trial, config: Config) -> float:
        """Density of :meth:`_neighbour` over the same measure as ``Prior.log_pdf``, alpha's local choice left even."""
        traits, centre = self.traits[variant], incumbent.config
        z = NormalDist(self._z(variant, centre), LOCAL_RATE_SD).pdf(self._z(variant, config))
        rank = (1 - KEEP_CHOICE) / len(self.space.rank) + KEEP_CHOICE * (config.rank == centre.rank)
        batch = (1 - KEEP_CHOICE) / len(self.space.batch_size) + KEEP_CHOICE * (config.batch_size == centre.batch_size)
        alphas = self.space.alphas(traits, config.rank)
        if isinstance(alphas, Range):
            w = NormalDist(self._coordinates.w(traits, centre), LOCAL_ALPHA_SD).pdf(self._coordinates.w(traits, config))
        else:
            w = 1 / len(alphas)
        return z * rank * batch * w

    def _offset(self, table: TrialTable) -> float:
        """Posterior mean of the centre's error, in decades, from the incumbents of all variants.

        The error is normal with the prior's sd; an incumbent shows it up to its variant's own shift and to how well a
        few trials can locate a best.
        """
        if self.prior is None:
            return 0.0
        precision, total = self.prior.sd**-2, 0.0
        for variant, traits in self.traits.items():
            good = self._good(table, variant)
            if good:
                weight = 1 / (traits.shift_sd**2 + INCUMBENT_SD**2)
                precision += weight
                total += weight * self._z(variant, good[0].config)
        return total / precision

    def _diverged_from(self, table: TrialTable, variant: str) -> float:
        """z at and above which the variant is known to diverge: no draw goes there unless a healthy trial did."""
        healthy = [self._z(variant, trial.config) for trial in table.of(variant) if trial.healthy and trial.scores]
        diverged = [self._z(variant, trial.config) for trial in table.of(variant) if trial.outcome == "diverged"]
        beyond = [z for z in diverged if z > max(healthy, default=-math.inf)]
        return min(beyond, default=math.inf)

    def _stratum(self, table: TrialTable, variant: str, bracket: Bracket) -> float | None:
        """A quantile that no other trial of the bracket shares, so that a bracket covers the whole density.

        None for a trial that replaces a diverged one: all strata are taken.
        """
        used = sum(trial.bracket == bracket for trial in table.of(variant))
        if used >= bracket.size:
            return None
        place = list(self.traits).index(variant)
        rng = np.random.default_rng([self.seed, place, bracket.index, STRATA])
        return float((rng.permutation(bracket.size)[used] + rng.uniform(size=bracket.size)[used]) / bracket.size)

    @property
    def _coordinates(self) -> Coordinates:
        return self.prior.coordinates if self.prior else Coordinates(0.0, self.space.hidden_size)

    def _z(self, variant: str, config: Config) -> float:
        return self._coordinates.z(self.traits[variant], config)

    def _describe(self, table: TrialTable, trial: Trial) -> str:
        rung = trial.reached
        return f"near trial {trial.number} ({trial.scores[rung]:.4g} at {table.rungs[rung]:.3g} of a run)"
