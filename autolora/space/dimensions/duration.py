"""How long a trial trains. The longest duration is a full run, and a shorter one is charged as the share it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeGuard

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from autolora import laws
from autolora.space.config import Config, Value
from autolora.space.coordinates import Coordinates
from autolora.space.dimension import Dimension, Encoding, Parameter, Scope, SpaceFields, register
from autolora.space.domain import Domain, Range, above_zero, is_number, neighbor
from autolora.space.encoder import Encoder
from autolora.space.written import as_numbers

if TYPE_CHECKING:
    import numpy as np

EPOCHS, EXAMPLES = "epochs", "examples"
UNITS = (EPOCHS, EXAMPLES)
LENGTH = 0.5
"""Decades over which scores stay alike, beyond what the line explains."""
DECAY, DECAY_SD = 1.0, 1.0
"""Exponent of the power law by which the score falls with training, as of e for ten times of it: what is lost is
e^DECAY units of the response at the longest duration, and 1 at AMPLE times it. Four times the training then gains some
2 units, which are a few percent each; 17 with a decay of one standard deviation more, and nothing with one less."""
AMPLE = 10.0
"""Times the longest duration, at which the power law has one unit left to gain."""
OVERFITTING_SD = 3.0
"""Units that ten times the training may be worth beside the power law: several epochs may overfit."""
NEIGHBOR_SD = 0.2
"""Share of a range around a trial."""


def _written(value: object) -> Domain | None:
    if value is None:
        return None
    found = as_numbers(value, DURATION.accepts, "above 0", log=lambda low: True)
    return above_zero(found)


Written = Annotated[Range | list[float] | None, BeforeValidator(_written)]


class Durations(BaseModel):
    """What is searched: numbers of one unit.

    Args:
        epochs, examples: choices or a range, on a log scale unless ``log`` is false; one of the two is given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Written = None
    examples: Written = None

    @model_validator(mode="after")
    def _one_unit(self) -> Durations:
        if (self.epochs is None) == (self.examples is None):
            raise ValueError("durations have one unit; write {epochs: [1, 3]} or {examples: [10000, 30000]}")
        if self.examples is not None and any(end < 1 for end in _ends(self.examples)):
            raise ValueError("examples are whole numbers from 1 on")
        return self

    @model_serializer(mode="wrap")
    def _of_one_unit(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, object] = dump(self)
        return {unit: value for unit, value in plain.items() if value is not None}

    @property
    def unit(self) -> Literal["epochs", "examples"]:
        return "epochs" if self.epochs is not None else "examples"

    @property
    def domain(self) -> Domain:
        found = self.epochs if self.epochs is not None else self.examples
        assert found is not None
        return found

    @property
    def longest(self) -> float:
        """Which is a full run."""
        return _ends(self.domain)[1]


def _ends(domain: Domain) -> tuple[float, float]:
    return (domain.low, domain.high) if isinstance(domain, Range) else (domain[0], domain[-1])


class Duration(Dimension):
    """Its schedule is laid out over the trial's own duration; rungs are fractions of the longest one.

    A rung that lies beyond a trial's end is left out: what is scored there is its end.
    """

    name = "duration"
    about = (
        "how long a trial trains, ``{epochs: [1, 2, 4]}`` or ``{examples: {low: 10000, high: 80000}}``; bare numbers "
        "are epochs. The longest is a full run, which budgets are counted in. Searched only if it is named."
    )
    label = "duration"
    brief = "duration"
    aliases = ("duration", "num_train_epochs", "num_epochs", "epochs")
    column = 45
    drawn = 30
    optional = True

    def field(self) -> tuple[object, object]:
        description = "{epochs: ...} or {examples: ...}, each a number, a list or {low: .., high: ..}; None: one length"
        kinds: object = Annotated[Durations | None, BeforeValidator(_with_unit)]
        return kinds, Field(default=None, description=description)

    def accepts(self, value: object) -> TypeGuard[float]:
        return is_number(value) and 0 < value < math.inf

    def domain(self, scope: Scope, config: Config) -> Domain:
        return self.durations(scope.space).domain

    def durations(self, space: SpaceFields) -> Durations:
        """What a space that searches durations says of them."""
        found: Durations = space.duration
        return found

    def longest(self, space: SpaceFields) -> float | None:
        """A full run in the unit of the space; None if durations are not searched."""
        return self.durations(space).longest if self.searched(space) else None

    def shortest(self, space: SpaceFields) -> float:
        """The shortest, as a share of a full run; 1 if durations are not searched."""
        longest = self.longest(space)
        return 1.0 if longest is None else _ends(self.durations(space).domain)[0] / longest

    def length(self, space: SpaceFields, config: Config) -> float:
        """Share of a full run that a trial trains for; above 1 if a baseline trains longer than is searched."""
        value, longest = config.value(self.name), self.longest(space)
        return 1.0 if value is None or longest is None else float(value) / longest

    def default(self, scope: Scope, config: Config) -> float:
        """The longest: without this dimension every trial is a full run."""
        return self.durations(scope.space).longest

    def near(
        self, rng: np.random.Generator, scope: Scope, config: Config, trial: Config, coordinates: Coordinates
    ) -> float:
        return neighbor(rng, self.domain(scope, config), trial.value(self.name), NEIGHBOR_SD)

    def uniform_density(self, scope: Scope, config: Config) -> float:
        domain = self.domain(scope, config)
        return 1.0 if isinstance(domain, Range) else 1 / len(domain)

    def encoder(self, encoding: Encoding) -> Encoder:
        longest = self.longest(encoding.space)
        return Encoder() if longest is None else DurationEncoder(self, encoding.space)

    def cost_key(self, config: Config) -> Value | None:
        value: Value | None = config.value(self.name)
        return value

    def parameters(self, space: SpaceFields, variant: str, config: Config) -> dict[str, Parameter]:
        value = config.value(self.name)
        if value is None:
            return {}
        ends = _ends(self.durations(space).domain) if self.searched(space) else ()
        return {self.name: Parameter.among(ends, value, log=True)}


class DurationEncoder(Encoder):
    """The share of the longest run, in decades: it moves the best rate, and the score at the end.

    That falls by a power law. At a rung before the end, trials of every duration have seen the same examples.
    """

    width = 1
    shift_sds = (laws.LENGTH_SD,)
    end_beliefs = ((0.0, OVERFITTING_SD),)
    decay_beliefs = ((DECAY, DECAY_SD),)

    def __init__(self, dimension: Duration, space: SpaceFields) -> None:
        self._dimension, self._space = dimension, space

    def shifts(self, variant: str, config: Config) -> list[float]:
        return [self._decades(config)]

    def ends(self, variant: str, config: Config) -> list[float]:
        return [self._decades(config)]

    def decays(self, variant: str, config: Config) -> list[float]:
        return [math.log10(AMPLE) - self._decades(config)]

    def settings(self, variant: str, config: Config) -> list[float]:
        return [self._decades(config) / LENGTH]

    def _decades(self, config: Config) -> float:
        return math.log10(self._dimension.length(self._space, config))


def _with_unit(value: object) -> object:
    """Bare numbers are epochs."""
    if value is None or isinstance(value, Durations) or (isinstance(value, Mapping) and set(value) & set(UNITS)):
        return value
    return {EPOCHS: value}


DURATION = Duration()
register(DURATION)
