"""Alpha, the numerator of the scaling s."""

from __future__ import annotations

import math
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Annotated, Literal, TypeGuard

from pydantic import AfterValidator, BeforeValidator, Field

from autolora.space.config import Config
from autolora.space.coordinates import Coordinates
from autolora.space.dimension import Belief, Dimension, Encoding, Parameter, Scope, SpaceFields, register
from autolora.space.domain import Domain, Range, Truncated, above_zero, at_most, is_number, log_density, near, nearest
from autolora.space.encoder import Encoder
from autolora.space.traits import Traits
from autolora.space.written import Positive, Positives, as_domain

if TYPE_CHECKING:
    import numpy as np

CUSTOM_SD = 1.0
"""Octaves around each of the two customs of alpha, the square-root law and alpha = r."""
HIGHEST = 1e9
"""Above it nothing can be meant."""
NEIGHBOR_SD = 0.5
"""Octaves around a trial."""
LENGTH = 3.0
"""Octaves over which scores stay alike."""
LEVEL_SD = 0.5
"""What an octave may be worth, in units of the response."""


class Alpha(Dimension):
    name = "alpha"
    about = (
        '``"law"`` (the square-root law of LoRA-alpha), ``"rank"`` (alpha = r), a number, a list of choices, or '
        '``(low, high)``. Variants whose factors already carry the scale ignore ``"law"``, lists and ranges: '
        "there alpha is redundant with the learning rate and stays at r, as it does, whatever is given, for "
        "variants that are defined at s = 1 alone."
    )
    label = "alpha"
    brief = "alpha"
    aliases = ("alpha", "lora_alpha")
    column = 40
    drawn = 30
    after = ("rank",)

    def field(self) -> tuple[object, object]:
        description = '"law", "rank", a number, a list, or (low, high), in YAML {low: 8, high: 64}, all above 0'
        kinds: object = Annotated[
            Literal["law", "rank"] | Range | Positive | Positives,
            BeforeValidator(as_domain),
            AfterValidator(above_zero),
            AfterValidator(at_most(HIGHEST)),
        ]
        return kinds, Field(default="law", description=description)

    def accepts(self, value: object) -> TypeGuard[float]:
        return is_number(value) and 0 < value < math.inf

    def domain(self, scope: Scope, config: Config) -> Domain:
        return self.alphas(scope.space, scope.traits, config.rank)

    def alphas(self, space: SpaceFields, traits: Traits, rank: int) -> Range | list[float]:
        """The alphas searched for a variant at this rank: a Range, or a list of choices (one where it is pinned)."""
        given = space.alpha
        if given == "rank" or traits.unit_scale:
            return [float(rank)]
        if isinstance(given, float):
            return [given]
        if given == "law":
            return [traits.law_alpha(rank, space.hidden_size)]
        if traits.alpha_redundant:
            return [float(rank)]
        return given if isinstance(given, Range) else sorted(set(given))

    def mode(self, scope: Scope, config: Config, coordinates: Coordinates) -> float:
        """The law's, as far as the space goes."""
        law = scope.traits.law_alpha(config.rank, scope.space.hidden_size)
        return nearest(self.domain(scope, config), law)

    def sample(self, rng: np.random.Generator, scope: Scope, config: Config, belief: Belief) -> float:
        alphas = self.domain(scope, config)
        if isinstance(alphas, list):
            return float(rng.choice(alphas))
        customs = _customs(scope, config.rank, alphas)
        return alphas.clip(2 ** customs[rng.integers(len(customs))].inv_cdf(float(rng.uniform())))

    def near(
        self, rng: np.random.Generator, scope: Scope, config: Config, trial: Config, coordinates: Coordinates
    ) -> float:
        alphas, octaves = self.domain(scope, config), coordinates.w(scope.traits, trial)
        if isinstance(alphas, Range):
            law = scope.traits.law_alpha(config.rank, coordinates.hidden_size)
            return alphas.clip(law * 2 ** float(octaves + NEIGHBOR_SD * rng.standard_normal()))
        return float(near(rng, alphas, nearest(alphas, trial.alpha)))

    def density(self, scope: Scope, config: Config, belief: Belief) -> float:
        alphas = self.domain(scope, config)
        if isinstance(alphas, list):
            return 1.0 / len(alphas)
        return fmean(custom.pdf(math.log2(config.alpha)) for custom in _customs(scope, config.rank, alphas))

    def uniform_density(self, scope: Scope, config: Config) -> float:
        return log_density(self.domain(scope, config), config.alpha, math.log2)

    def largest(self, scope: Scope, config: Config) -> float:
        return scope.traits.law_alpha(config.rank, scope.space.hidden_size)

    def encoder(self, encoding: Encoding) -> AlphaEncoder:
        return AlphaEncoder(encoding)

    def parameters(self, space: SpaceFields, variant: str, config: Config) -> dict[str, Parameter]:
        span, log = (
            ((space.alpha.low, space.alpha.high), space.alpha.log) if isinstance(space.alpha, Range) else ((), True)
        )
        return {self.name: Parameter.among(span, config.alpha, log=log)}


class AlphaEncoder(Encoder):
    """w, octaves from the law's alpha."""

    line_sds = (LEVEL_SD,)
    width = 1

    def __init__(self, encoding: Encoding) -> None:
        self._traits, self._coordinates = encoding.traits, encoding.coordinates

    def lines(self, variant: str, config: Config) -> list[float]:
        return [self._octaves(variant, config)]

    def settings(self, variant: str, config: Config) -> list[float]:
        return [self._octaves(variant, config) / LENGTH]

    def _octaves(self, variant: str, config: Config) -> float:
        return self._coordinates.w(self._traits[variant], config)


def _customs(scope: Scope, rank: int, alphas: Range) -> list[Truncated]:
    customs = (scope.traits.law_alpha(rank, scope.space.hidden_size), scope.traits.unit_alpha(rank))
    low, high = math.log2(alphas.low), math.log2(alphas.high)
    return [Truncated.to(NormalDist(math.log2(custom), CUSTOM_SD), low, high) for custom in customs]


ALPHA = Alpha()
register(ALPHA)
