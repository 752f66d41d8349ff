"""A density over the Space: where good configurations are expected, with sampling and log_pdf.

Its centre, and the variants' shifts from it, are normal beliefs in decades that every piece of evidence narrows. Rank
and batch size are drawn from weighted choices, alpha from its choices or from the two customs (law and s = 1), and the
learning rate from a normal in scaling-law coordinates, truncated to the searched range. A share of the mass is uniform
over the Space, so that nothing has probability 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from statistics import NormalDist, fmean
from typing import Any, TypeVar

import numpy as np

from autolora import laws
from autolora.space import Config, Coordinates, Range, Space, Traits

Choice = TypeVar("Choice", int, float)

UNIFORM_SHARE = 0.1
ALPHA_MODE_SD = 1.0
"""Octaves around each of the two customs of alpha, the square-root law and alpha = r."""

FAR = 4.0
"""Standard deviations outside the searched range beyond which a belief's distance no longer counts."""

LARGE_BATCH = 128
"""Beyond 128 to 256, larger batches lower the ceiling even when the learning rate is tuned (LR-matters)."""


CENTRE = "centre"


@dataclass(frozen=True)
class Evidence:
    """One source's normal belief, in decades.

    Attributes:
        source: "laws", "curvature", "probe", "user" or "study".
        about: "centre", or the variant whose shift from plain LoRA it is about.
        mean, sd: of the centre, log10 of plain LoRA's best learning rate at s = r = b = 1; or of the shift.
    """

    source: str
    about: str
    mean: float
    sd: float


@dataclass(frozen=True)
class Prior:
    """Beliefs in scaling-law coordinates, shared by all variants of one model and task.

    Attributes:
        centre: expected log10 learning rate of plain LoRA at s = r = b = 1.
        sd: its standard deviation, in decades.
        hidden_size: width of the model, or None where unknown.
        shifts: (mean, sd) in decades of variants of which more is known than their own traits say.
        evidence: what went into it, for explanation.
        cost: full runs that the evidence took, over all variants.
    """

    centre: float
    sd: float
    hidden_size: int | None = None
    shifts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    cost: float = 0.0

    @classmethod
    def from_laws(cls, hidden_size: int | None = None, examples: int | None = None) -> Prior:
        """The prior of the scaling laws for a model of this width trained on this many examples."""
        centre, sd = laws.log_centre(hidden_size, examples), laws.centre_sd(hidden_size, examples)
        return cls(centre, sd, hidden_size, evidence=(Evidence("laws", CENTRE, centre, sd),))

    def informed(self, evidence: Iterable[Evidence], traits: Mapping[str, Traits], cost: float = 0.0) -> Prior:
        """This prior with further, independent evidence: each belief is the product of normals, so it only narrows.

        Args:
            evidence: about the centre or about variants.
            traits: of the variants, whose own shift is what evidence about them is combined with.
            cost: full runs that gathering it took.
        """
        evidence = tuple(evidence)
        centre, shifts = (self.centre, self.sd), dict(self.shifts)
        for piece in evidence:
            if piece.about == CENTRE:
                centre = _combined(centre, (piece.mean, piece.sd))
            else:
                own = traits[piece.about]
                before = shifts.get(piece.about, (own.shift, own.shift_sd))
                shifts[piece.about] = _combined(before, (piece.mean, piece.sd))
        return Prior(*centre, self.hidden_size, shifts, self.evidence + evidence, self.cost + cost)

    def share(self, variants: int) -> float:
        """Full runs charged to each of so many variants for the evidence."""
        return self.cost / variants

    def traits(self, variant: str, own: Traits) -> Traits:
        """A variant's traits with what is known of its shift."""
        if variant not in self.shifts:
            return own
        mean, sd = self.shifts[variant]
        return replace(own, shift=mean, shift_sd=sd)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it: lists for tuples."""
        plain = asdict(self)
        plain["shifts"] = {name: list(shift) for name, shift in self.shifts.items()}
        plain["evidence"] = [asdict(piece) for piece in self.evidence]
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Prior:
        shifts = {name: (mean, sd) for name, (mean, sd) in data.get("shifts", {}).items()}
        evidence = tuple(Evidence(**piece) for piece in data.get("evidence", ()))
        return cls(**{**data, "shifts": shifts, "evidence": evidence})

    @cached_property
    def coordinates(self) -> Coordinates:
        return Coordinates(self.centre, self.hidden_size)

    def spread(self, traits: Traits, config: Config) -> float:
        """Standard deviation of z for a variant at this alpha: model and task, variant, and the uncertain exponent."""
        decades = math.log10(traits.scale(config.alpha, config.rank))
        exponent = 0.0 if traits.alpha_redundant else laws.EXPONENT_SD * decades
        return math.hypot(self.sd, traits.shift_sd, exponent)

    def interval(self, traits: Traits, config: Config, share: float) -> tuple[float, float]:
        """Learning rates between which the central ``share`` of the informed density lies, at a setting's other values.

        The searched range does not cut it.
        """
        belief = self._log_rate(traits, config)
        return 10 ** belief.inv_cdf(0.5 - share / 2), 10 ** belief.inv_cdf(0.5 + share / 2)

    def mode(self, space: Space, traits: Traits) -> Config:
        """The most plausible configuration: the middle rank, the smallest batch, alpha's first custom, z = 0."""
        rank = space.middle_rank
        batch = space.batch_size[0]
        alpha = _conventional_alpha(space, traits, rank)
        eta = self.coordinates.learning_rate(traits, 0.0, batch, rank, alpha)
        return Config(nearest_rate(space, eta), batch, rank, alpha)

    def sample(self, rng: np.random.Generator, space: Space, traits: Traits) -> Config:
        """Draw a configuration from the density of :meth:`log_pdf`."""
        if rng.uniform() < UNIFORM_SHARE:
            return uniform_sample(rng, space, traits)
        rank = any_of(rng, space.rank)
        batch = int(rng.choice(space.batch_size, p=prior_batch_weights(space)))
        alpha = self._sample_alpha(rng, space, traits, rank)
        belief = self._log_rate(traits, Config(1.0, batch, rank, alpha))
        rates = space.learning_rates
        if isinstance(rates, list):
            eta = float(rng.choice(rates, p=_weights(belief, rates)))
        else:
            truncated = _Truncated.to(belief, math.log10(rates.low), math.log10(rates.high))
            eta = rates.clip(10 ** truncated.inv_cdf(float(rng.uniform())))
        return Config(eta, batch, rank, alpha)

    def log_pdf(self, space: Space, traits: Traits, config: Config) -> float:
        """Log density of a configuration of the space, the uniform share included.

        Over (log10 learning rate, log2 alpha) where they are ranges; a probability over what are choices.
        """
        informed = 0.0
        if config.batch_size in space.batch_size and config.rank in space.rank:
            choices = float(prior_batch_weights(space)[space.batch_size.index(config.batch_size)]) / len(space.rank)
            rate = self._rate_density(space, traits, config)
            informed = choices * rate * self._alpha_density(space, traits, config)
        return math.log((1 - UNIFORM_SHARE) * informed + UNIFORM_SHARE * uniform_density(space, traits, config))

    def _log_rate(self, traits: Traits, config: Config) -> NormalDist:
        origin = self.coordinates.learning_rate(traits, 0.0, config.batch_size, config.rank, config.alpha)
        return NormalDist(math.log10(origin), self.spread(traits, config))

    def _rate_density(self, space: Space, traits: Traits, config: Config) -> float:
        belief = self._log_rate(traits, config)
        rates = space.learning_rates
        if isinstance(rates, list):
            return float(_weights(belief, rates)[rates.index(nearest_rate(space, config.learning_rate))])
        truncated = _Truncated.to(belief, math.log10(rates.low), math.log10(rates.high))
        return truncated.pdf(math.log10(config.learning_rate))

    @staticmethod
    def _alpha_customs(space: Space, traits: Traits, rank: int, alphas: Range) -> list[_Truncated]:
        customs = (traits.law_alpha(rank, space.hidden_size), traits.unit_alpha(rank))
        low, high = math.log2(alphas.low), math.log2(alphas.high)
        return [_Truncated.to(NormalDist(math.log2(custom), ALPHA_MODE_SD), low, high) for custom in customs]

    def _sample_alpha(self, rng: np.random.Generator, space: Space, traits: Traits, rank: int) -> float:
        alphas = space.alphas(traits, rank)
        if isinstance(alphas, list):
            return float(rng.choice(alphas))
        customs = self._alpha_customs(space, traits, rank, alphas)
        return alphas.clip(2 ** customs[rng.integers(len(customs))].inv_cdf(float(rng.uniform())))

    def _alpha_density(self, space: Space, traits: Traits, config: Config) -> float:
        alphas = space.alphas(traits, config.rank)
        if isinstance(alphas, list):
            return 1.0 / len(alphas)
        return fmean(
            custom.pdf(math.log2(config.alpha)) for custom in self._alpha_customs(space, traits, config.rank, alphas)
        )


@dataclass(frozen=True)
class _Truncated:
    """A normal cut to [low, high]."""

    normal: NormalDist
    below: float
    inside: float

    @classmethod
    def to(cls, normal: NormalDist, low: float, high: float) -> _Truncated:
        """A mean far outside is moved to ``FAR`` sds from the interval: still piled up at its nearer end."""
        reach = FAR * normal.stdev
        normal = NormalDist(min(max(normal.mean, low - reach), high + reach), normal.stdev)
        below = normal.cdf(low)
        return cls(normal, below, normal.cdf(high) - below)

    def pdf(self, x: float) -> float:
        return self.normal.pdf(x) / self.inside

    def inv_cdf(self, quantile: float) -> float:
        return self.normal.inv_cdf(min(max(self.below + quantile * self.inside, 1e-12), 1 - 1e-12))


def _combined(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Mean and standard deviation of the product of two normal densities."""
    weight_a, weight_b = a[1] ** -2, b[1] ** -2
    return (weight_a * a[0] + weight_b * b[0]) / (weight_a + weight_b), (weight_a + weight_b) ** -0.5


def _weights(belief: NormalDist, rates: list[float]) -> np.ndarray:
    """Probabilities of the choices of the learning rate in proportion to the density at each."""
    exponents = np.array([-0.5 * belief.zscore(math.log10(rate)) ** 2 for rate in rates])
    weights = np.exp(exponents - exponents.max())
    return weights / weights.sum()


def uniform_sample(rng: np.random.Generator, space: Space, traits: Traits) -> Config:
    """A configuration uniform over the choices, log-uniform over the ranges."""
    rank, batch = any_of(rng, space.rank), any_of(rng, space.batch_size)
    alphas, rates = space.alphas(traits, rank), space.learning_rates
    alpha = _log_uniform(alphas, rng.uniform()) if isinstance(alphas, Range) else any_of(rng, alphas)
    eta = _log_uniform(rates, rng.uniform()) if isinstance(rates, Range) else any_of(rng, rates)
    return Config(eta, batch, rank, alpha)


def any_of(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    return choices[int(rng.integers(len(choices)))]


def uniform_density(space: Space, traits: Traits, config: Config) -> float:
    """Density of :func:`uniform_sample` over (log10 learning rate, log2 alpha, choices)."""
    rates, alphas = space.learning_rates, space.alphas(traits, config.rank)
    rate = 1 / math.log10(rates.high / rates.low) if isinstance(rates, Range) else 1 / len(rates)
    alpha = 1 / math.log2(alphas.high / alphas.low) if isinstance(alphas, Range) else 1 / len(alphas)
    return rate * alpha / len(space.rank) / len(space.batch_size)


def prior_batch_weights(space: Space) -> np.ndarray:
    """Prior weight of each batch size: even up to 128, halved with each doubling beyond."""
    weights = np.array([min(1.0, LARGE_BATCH / batch) for batch in space.batch_size])
    return weights / weights.sum()


def nearest_rate(space: Space, eta: float) -> float:
    """The searched learning rate closest to ``eta`` on a log scale."""
    rates = space.learning_rates
    if isinstance(rates, Range):
        return rates.clip(eta)
    return min(rates, key=lambda rate: abs(math.log(rate / eta)))


def _log_uniform(interval: Range, quantile: float) -> float:
    return interval.clip(interval.low * (interval.high / interval.low) ** float(quantile))


def _conventional_alpha(space: Space, traits: Traits, rank: int) -> float:
    alphas = space.alphas(traits, rank)
    if isinstance(alphas, Range):
        return alphas.clip(traits.law_alpha(rank, space.hidden_size))
    return min(alphas, key=lambda alpha: abs(math.log(alpha / traits.law_alpha(rank, space.hidden_size))))
