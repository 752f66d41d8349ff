"""Dimensions that replace a number of the training settings: searched only if the space names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, TypeGuard

from pydantic import BeforeValidator, Field

from autolora.space.config import Config
from autolora.space.coordinates import Coordinates
from autolora.space.dimension import Belief, Dimension, Encoding, Parameter, Scope, SpaceFields
from autolora.space.domain import Domain, Range, is_number, nearest, neighbor, place
from autolora.space.encoder import Encoder
from autolora.space.written import as_numbers

if TYPE_CHECKING:
    import numpy as np

LENGTH = 0.7
"""Share of the whole domain over which scores stay alike."""
LEVEL_SD = 1.0
"""What the whole domain may be worth, in units of the response."""
NEIGHBOR_SD = 0.2
"""Share of a range around a trial."""


class Setting(Dimension):
    """A number of ``training`` that may be searched: choices, or a range on a linear scale unless ``log`` is given.

    Attributes:
        least, below: the values that are allowed: least <= value < below.
        preferred: the value that is expected to be best.
        standard: what training does if nothing is said of it.
        odds: how much likelier the preferred value is than the farthest one, by the prior.
        level_sd: see LEVEL_SD.
    """

    optional = True
    drawn = 100
    column = 100
    least: float = 0.0
    below: float = float("inf")
    preferred: float = 0.0
    standard: float = 0.0
    odds: float = 4.0
    level_sd: float = LEVEL_SD

    def field(self) -> tuple[object, object]:
        description = f"a number, a list, or {{low: .., high: ..}}, {self._allowed()}; None: not searched"
        kinds: object = Annotated[Range | list[float] | None, BeforeValidator(self._domain)]
        return kinds, Field(default=None, description=description)

    def _allowed(self) -> str:
        return f"from {self.least:g} on" + ("" if self.below == float("inf") else f" and below {self.below:g}")

    def _domain(self, value: object) -> Domain | None:
        if value is None:
            return None
        found = as_numbers(value, self.accepts, self._allowed(), log=lambda low: False)
        return [float(each) for each in found] if isinstance(found, list) else found

    def recorded(self, value: object) -> object:
        """A range with its scale, which is not the one that ranges have elsewhere."""
        return {"log": True, **value} if isinstance(value, Mapping) else value

    def accepts(self, value: object) -> TypeGuard[float]:
        return is_number(value) and self.least <= value < self.below

    def default(self, scope: Scope, config: Config) -> float:
        return self.standard

    def mode(self, scope: Scope, config: Config, coordinates: Coordinates) -> float:
        return nearest(self.domain(scope, config), self.preferred)

    def sample(self, rng: np.random.Generator, scope: Scope, config: Config, belief: Belief) -> float:
        """Choices by odds that fall from the preferred value to the farthest one; ranges likewise."""
        domain = self.domain(scope, config)
        if isinstance(domain, list):
            return float(rng.choice(domain, p=self._weights(domain)))
        choices = _grid(domain)
        middle = float(rng.choice(choices, p=self._weights(choices)))
        half = 0.5 / GRID
        return domain.at(min(max(domain.place(middle) + half * (2 * rng.uniform() - 1), 0.0), 1.0))

    def density(self, scope: Scope, config: Config, belief: Belief) -> float:
        domain, value = self.domain(scope, config), config.value(self.name)
        if isinstance(domain, list):
            return self._weights(domain)[domain.index(value)] if value in domain else 0.0
        cell = min(int(domain.place(value) * GRID), GRID - 1)
        return self._weights(_grid(domain))[cell] * GRID * self.uniform_density(scope, config)

    def _weights(self, choices: list[float]) -> list[float]:
        reach = max(abs(choice - self.preferred) for choice in choices) or 1.0
        weights = [self.odds ** -(abs(choice - self.preferred) / reach) for choice in choices]
        return [weight / sum(weights) for weight in weights]

    def near(
        self, rng: np.random.Generator, scope: Scope, config: Config, trial: Config, coordinates: Coordinates
    ) -> float:
        return neighbor(rng, self.domain(scope, config), trial.value(self.name), NEIGHBOR_SD)

    def encoder(self, encoding: Encoding) -> Encoder:
        if not self.searched(encoding.space):
            return Encoder()
        return PlaceEncoder(self.name, getattr(encoding.space, self.name), self.level_sd)

    def parameters(self, space: SpaceFields, variant: str, config: Config) -> dict[str, Parameter]:
        value = config.value(self.name)
        if value is None:
            return {}
        domain = getattr(space, self.name)
        ends = (domain.low, domain.high) if isinstance(domain, Range) else domain or ()
        return {self.name: Parameter.among(ends, value)}


GRID = 32
"""Cells of equal length into which a range is cut for its prior."""


def _grid(domain: Range) -> list[float]:
    """The middles of the cells."""
    return [domain.at((cell + 0.5) / GRID) for cell in range(GRID)]


class PlaceEncoder(Encoder):
    """The place of a value in its domain, 0 to 1: a line, and a coordinate.

    Args:
        name: of the dimension.
        domain: of the space.
        level_sd: what the whole domain may be worth, in units of the response.
    """

    width = 1

    def __init__(self, name: str, domain: Domain, level_sd: float) -> None:
        self._name, self._domain = name, domain
        self.line_sds = (level_sd,)

    def lines(self, variant: str, config: Config) -> list[float]:
        return [self._place(config) - 0.5]

    def settings(self, variant: str, config: Config) -> list[float]:
        return [self._place(config) / LENGTH]

    def _place(self, config: Config) -> float:
        return place(self._domain, config.value(self._name))
