"""A density over the Space: where good configurations are expected, with sampling and log_pdf.

Its centre, and the variants' shifts from it, are normal beliefs in decades that every piece of evidence narrows. The
learning rate is drawn from a normal in scaling-law coordinates, truncated to the searched range; every other dimension
has a density of its own. A share of the mass is uniform over the Space, so that nothing has probability 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from statistics import NormalDist

import numpy as np

from autolora import laws
from autolora.files import Document
from autolora.space import Config, Coordinates, Options, Scope, Traits, drawing_order
from autolora.space.dimension import UNSET, SpaceFields
from autolora.space.dimensions.learning_rate import LEARNING_RATE
from autolora.space.domain import nearest

UNIFORM_SHARE = 0.1

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
        longest: the duration that the centre is of, in the unit of the space; None if durations are not searched.
    """

    centre: float
    sd: float
    hidden_size: int | None = None
    shifts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    cost: float = 0.0
    longest: float | None = None

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
        mean, sd = centre
        gathered = self.evidence + evidence
        return replace(self, centre=mean, sd=sd, shifts=shifts, evidence=gathered, cost=self.cost + cost)

    def share(self, variants: int) -> float:
        """Full runs charged to each variant for the evidence, if it is shared by ``variants`` of them."""
        return self.cost / variants

    def traits(self, variant: str, own: Traits) -> Traits:
        """A variant's traits with what is known of its shift."""
        if variant not in self.shifts:
            return own
        mean, sd = self.shifts[variant]
        return replace(own, shift=mean, shift_sd=sd)

    def as_dict(self) -> dict[str, object]:
        """As JSON has it: lists for tuples."""
        plain = asdict(self)
        if self.longest is None:  # as in the records of earlier versions
            del plain["longest"]
        plain["shifts"] = {name: list(shift) for name, shift in self.shifts.items()}
        plain["evidence"] = [asdict(piece) for piece in self.evidence]
        return plain

    @classmethod
    def from_dict(cls, data: Document) -> Prior:
        shifts = {name: (mean, sd) for name, (mean, sd) in data.get("shifts", {}).items()}
        evidence = tuple(Evidence(**piece) for piece in data.get("evidence", ()))
        return cls(**{**data, "shifts": shifts, "evidence": evidence})

    @cached_property
    def coordinates(self) -> Coordinates:
        return Coordinates(self.centre, self.hidden_size, self.longest)

    def spread(self, traits: Traits, config: Config) -> float:
        """Standard deviation of z for a variant at a setting: model and task, variant, and the uncertain exponents."""
        decades = math.log10(traits.scale(config.alpha, config.rank))
        exponent = 0.0 if traits.alpha_redundant else laws.SCALE_SD * decades
        of_length = laws.LENGTH_SD * math.log10(self.coordinates.length(config))
        of_setting = laws.setting_sd(config.batch_size, config.rank)
        return math.hypot(self.sd, traits.shift_sd, exponent, of_setting, of_length)

    def interval(self, traits: Traits, config: Config, share: float) -> tuple[float, float]:
        """Learning rates between which the central ``share`` of the informed density lies, at a setting's other values.

        The searched range does not cut it.
        """
        belief = self.belief(traits, config)
        return 10 ** belief.inv_cdf(0.5 - share / 2), 10 ** belief.inv_cdf(0.5 + share / 2)

    def mode(self, space: SpaceFields, traits: Traits, variant: str | None = None, start: Options = ()) -> Config:
        """The most plausible configuration: the largest rank, the smallest batch, alpha's first custom, z = 0.

        Args:
            space, traits, variant, start: see :class:`autolora.space.Scope`.
        """
        scope, config = Scope(space, traits, variant, start), UNSET
        for dimension in drawing_order(space):
            config = config.replaced(**{dimension.name: dimension.mode(scope, config, self.coordinates)})
        return config

    def sample(
        self,
        rng: np.random.Generator,
        space: SpaceFields,
        traits: Traits,
        variant: str | None = None,
        start: Options = (),
    ) -> Config:
        """Draw a configuration from the density of :meth:`log_pdf`; for the arguments see :meth:`mode`."""
        scope, config = Scope(space, traits, variant, start), UNSET
        if rng.uniform() < UNIFORM_SHARE:
            return uniform_sample(rng, *scope)
        for dimension in drawing_order(space):
            value = dimension.sample(rng, scope, config, partial(self.belief, traits))
            config = config.replaced(**{dimension.name: value})
        return config

    def log_pdf(self, space: SpaceFields, traits: Traits, config: Config, variant: str | None = None) -> float:
        """Log density of a configuration of the space, the uniform share included.

        Over the ranges on their dimensions' scales (log10 of the learning rate, log2 of alpha); a probability over what
        are choices.
        """
        scope, belief = Scope(space, traits, variant), partial(self.belief, traits)
        informed = math.prod(dimension.density(scope, config, belief) for dimension in drawing_order(space))
        uniform = uniform_density(space, traits, config, variant)
        return math.log((1 - UNIFORM_SHARE) * informed + UNIFORM_SHARE * uniform)

    def belief(self, traits: Traits, config: Config) -> NormalDist:
        """The belief about log10 of a variant's best learning rate, given a configuration's other values."""
        origin = self.coordinates.rate_of(traits, 0.0, config)
        return NormalDist(math.log10(origin), self.spread(traits, config))


def _combined(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Mean and standard deviation of the product of two normal densities."""
    weight_a, weight_b = a[1] ** -2, b[1] ** -2
    return (weight_a * a[0] + weight_b * b[0]) / (weight_a + weight_b), (weight_a + weight_b) ** -0.5


def uniform_sample(
    rng: np.random.Generator, space: SpaceFields, traits: Traits, variant: str | None = None, start: Options = ()
) -> Config:
    """A configuration uniform over the choices, and over the ranges on their scales."""
    scope, config = Scope(space, traits, variant, start), UNSET
    for dimension in drawing_order(space):
        config = config.replaced(**{dimension.name: dimension.uniform(rng, scope, config)})
    return config


def uniform_density(space: SpaceFields, traits: Traits, config: Config, variant: str | None = None) -> float:
    """Density of :func:`uniform_sample`, in the units of :meth:`Prior.log_pdf`."""
    scope = Scope(space, traits, variant)
    return math.prod(dimension.uniform_density(scope, config) for dimension in drawing_order(space))


def nearest_rate(space: SpaceFields, eta: float) -> float:
    """The searched learning rate closest to ``eta`` on a log scale."""
    return nearest(LEARNING_RATE.rates(space), eta)
