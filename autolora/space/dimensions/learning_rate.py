"""The learning rate, the peak of the schedule: the scaling laws say where the best one is expected."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated, Literal, TypeGuard

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

from autolora import laws
from autolora.space.config import Config
from autolora.space.coordinates import Coordinates
from autolora.space.dimension import Belief, Dimension, Encoding, Parameter, Scope, SpaceFields, register
from autolora.space.domain import Domain, Range, Truncated, above_zero, at_most, is_number, log_density, nearest, number
from autolora.space.encoder import Encoder
from autolora.space.written import Positive, Positives, as_domain

AUTO = (1e-6, 1e-1)
"""What "auto" stands for."""
HIGHEST = 1e3
"""Above it nothing can be meant; every optimizer here diverges long before."""
NEIGHBOR_SD = 0.2
"""Decades around a trial."""
LENGTH = 0.5
"""Decades over which scores stay alike."""


class LearningRate(Dimension):
    name = "learning_rate"
    about = (
        '``(low, high)`` searched on a log scale, one number (pinned), a list of choices, or ``"auto"``: 1e-6 to '
        "1e-1. In a specification a list of two numbers is a range, too."
    )
    label = "learning rate"
    brief = "lr"
    aliases = ("learning_rate", "lr")
    column = 10
    drawn = 40
    after = ("alpha", "batch_size", "rank")

    def field(self) -> tuple[object, object]:
        description = '"auto", a number, (low, high), in YAML [low, high], or a list of numbers, all above 0'
        kinds: object = Annotated[
            Range | Positive | Positives | Literal["auto"],
            BeforeValidator(as_domain),
            AfterValidator(above_zero),
            AfterValidator(at_most(HIGHEST)),
        ]
        return kinds, Field(default="auto", description=description)

    def specified(self, value: object) -> object:
        """Two numbers are the ends of a range."""
        numbers = [number(each) for each in value] if isinstance(value, (list, tuple)) else []
        return tuple(numbers) if len(numbers) == 2 and all(map(is_number, numbers)) else value

    def recorded(self, value: object) -> object:
        return {"choices": value} if isinstance(value, list) and len(value) == 2 else value

    def accepts(self, value: object) -> TypeGuard[float]:
        return is_number(value) and 0 < value < math.inf

    def domain(self, scope: Scope, config: Config) -> Domain:
        return self.rates(scope.space)

    def rates(self, space: SpaceFields) -> Range | list[float]:
        """The searched learning rates with "auto" resolved."""
        given = space.learning_rate
        if given == "auto":
            return Range(low=AUTO[0], high=AUTO[1])
        if isinstance(given, Range):
            return given
        return sorted(set(given)) if isinstance(given, list) else [float(given)]

    def mode(self, scope: Scope, config: Config, coordinates: Coordinates) -> float:
        """z = 0, as far as the space goes."""
        return nearest(self.rates(scope.space), coordinates.rate_of(scope.traits, 0.0, config))

    def sample(self, rng: np.random.Generator, scope: Scope, config: Config, belief: Belief) -> float:
        rates, believed = self.rates(scope.space), belief(config)
        if isinstance(rates, list):
            return float(rng.choice(rates, p=_weights(believed, rates)))
        truncated = Truncated.to(believed, math.log10(rates.low), math.log10(rates.high))
        return rates.clip(10 ** truncated.inv_cdf(float(rng.uniform())))

    def near(
        self, rng: np.random.Generator, scope: Scope, config: Config, trial: Config, coordinates: Coordinates
    ) -> float:
        z = coordinates.z(scope.traits, trial) + NEIGHBOR_SD * float(rng.standard_normal())
        return self.at(scope, config, coordinates, z)

    def at(self, scope: Scope, config: Config, coordinates: Coordinates, z: float) -> float:
        """The searched learning rate next to z, at a configuration's other values."""
        return nearest(self.rates(scope.space), coordinates.rate_of(scope.traits, z, config))

    def density(self, scope: Scope, config: Config, belief: Belief) -> float:
        rates, believed = self.rates(scope.space), belief(config)
        if isinstance(rates, list):
            return float(_weights(believed, rates)[rates.index(nearest(rates, config.learning_rate))])
        truncated = Truncated.to(believed, math.log10(rates.low), math.log10(rates.high))
        return truncated.pdf(math.log10(config.learning_rate))

    def uniform_density(self, scope: Scope, config: Config) -> float:
        return log_density(self.rates(scope.space), config.learning_rate, math.log10)

    def encoder(self, encoding: Encoding) -> RateEncoder:
        return RateEncoder(encoding)

    def parameters(self, space: SpaceFields, variant: str, config: Config) -> dict[str, Parameter]:
        rates = self.rates(space)
        ends, log = ((rates.low, rates.high), rates.log) if isinstance(rates, Range) else ((rates[0], rates[-1]), True)
        return {self.name: Parameter.among(ends, config.learning_rate, log=log)}

    def text(self, config: Config) -> str:
        return f"{config.learning_rate:.2e}"


class RateEncoder(Encoder):
    """z; what shifts the best for all variants alike is where the best is expected, and the exponent of s."""

    width = 1

    def __init__(self, encoding: Encoding) -> None:
        self._traits, self._coordinates = encoding.traits, encoding.coordinates
        self.shift_sds = (encoding.offset_sd, laws.SCALE_SD)

    def z(self, variant: str, config: Config) -> float:
        return self._coordinates.z(self._traits[variant], config)

    def shifts(self, variant: str, config: Config) -> list[float]:
        traits = self._traits[variant]
        # Where alpha is redundant the exponent is known: no error of it moves the best.
        scale = 0.0 if traits.alpha_redundant else math.log10(traits.scale(config.alpha, config.rank))
        return [1.0, -scale]

    def settings(self, variant: str, config: Config) -> list[float]:
        return [self.z(variant, config) / LENGTH]


def _weights(belief: NormalDist, rates: list[float]) -> np.ndarray:
    """Probabilities of choices in proportion to the density at each."""
    exponents = np.array([-0.5 * belief.zscore(math.log10(rate)) ** 2 for rate in rates])
    weights = np.exp(exponents - exponents.max())
    return np.asarray(weights / weights.sum())


LEARNING_RATE = LearningRate()
register(LEARNING_RATE)
