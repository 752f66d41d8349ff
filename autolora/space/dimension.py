"""What a searched hyperparameter is. A new one is one file in ``space/dimensions``: a Dimension, registered.

A dimension owns its domain, its prior density and draws, how the surrogate sees it, its parameter in a study, how it is
shown, and what it sets. Whatever else handles configurations iterates over the dimensions and knows none by name but
the learning rate, which the laws are about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeGuard

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from autolora.sections import without_truth_values
from autolora.space.config import Config, Options, Value
from autolora.space.coordinates import Coordinates
from autolora.space.domain import Domain, Range, corners, draw, nearest, pinned
from autolora.space.encoder import Encoder
from autolora.space.named import Scalar
from autolora.space.traits import Traits

if TYPE_CHECKING:
    import numpy as np

UNSET = Config(1.0, 1, 1, 1.0)
"""Where a configuration that is drawn dimension by dimension begins."""

Belief = Callable[[Config], NormalDist]
"""What is believed of log10 of the best learning rate at a configuration's other values."""


class SpaceFields(BaseModel):
    """A space as dimensions see it: a field for each of them, and the width of the model.

    Attributes:
        hidden_size: None if it is not known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_as_number(cls, value: object, info: ValidationInfo) -> object:
        return without_truth_values(value, cls.model_fields[str(info.field_name)].annotation)

    if TYPE_CHECKING:
        hidden_size: int | None

        def __getattr__(self, name: str) -> Any: ...


class Scope(NamedTuple):
    """What is searched of one variant.

    Attributes:
        space: of the search.
        traits: of the variant.
        variant: its name, by which the space names its options; None: without any.
        start: the options of its default configuration.
    """

    space: SpaceFields
    traits: Traits
    variant: str | None = None
    start: Options = ()


@dataclass(frozen=True)
class Parameter:
    """A value as a study shows it, with the interval that it was drawn from, in Optuna's terms."""

    value: int | float
    low: int | float
    high: int | float
    log: bool = False
    whole: bool = False

    @classmethod
    def among(cls, values: Iterable[int | float], value: int | float, **scale: bool) -> Parameter:
        """The interval that holds the values and ``value``: a baseline may lie outside the space."""
        every = [*values, value]
        return cls(value, min(every), max(every), **scale)


@dataclass(frozen=True)
class Category:
    """A value that is no number as a study shows it, with all that it may be, in Optuna's terms."""

    value: Scalar
    choices: tuple[Scalar, ...]


@dataclass(frozen=True)
class Encoding:
    """What encoders are made for.

    Attributes:
        space, traits: what is searched, and the traits of each variant.
        coordinates: whose z is 0 where the best is expected.
        offset_sd: how far off that may be for all variants alike, in decades.
    """

    space: SpaceFields
    traits: Mapping[str, Traits]
    coordinates: Coordinates
    offset_sd: float


class Dimension:
    """A searched hyperparameter.

    Attributes:
        name: of the field of :class:`Space`, the value in :class:`Config` and the parameter in a study.
        about: what the field of :class:`Space` may hold, for its documentation.
        label, brief: in tables, and in a setting on one line.
        aliases: what users of Optuna call it.
        column: place among the columns of tables; of equal ones the name decides.
        drawn: place in the order in which values are drawn; of equal ones the name decides. Kept as it is, or the
            studies of earlier versions would go on differently.
        after: dimensions that the domain, or the coordinate, depends on.
        whole: whether values are whole numbers.
        optional: searched only if the space names it; configurations without it leave ``sets`` as it is.
        sets: the key of ``training`` that a value replaces, which gives the value of a baseline, too; None: the trainer
            takes the value from the configuration.
        at_attach: whether a variant may refuse values when it is attached.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    label: ClassVar[str]
    brief: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    column: ClassVar[int] = 100
    drawn: ClassVar[int] = 100
    after: ClassVar[tuple[str, ...]] = ()
    whole: ClassVar[bool] = False
    optional: ClassVar[bool] = False
    sets: ClassVar[str | None] = None
    at_attach: ClassVar[bool] = False

    # What a space may say.

    def field(self) -> tuple[object, object]:
        """Annotation and default, as pydantic takes them, of the field of :class:`Space`."""
        raise NotImplementedError

    def specified(self, value: object) -> object:
        """What a value means in a specification, as in YAML; :class:`Space` itself goes by Python's rules."""
        return value

    def recorded(self, value: object) -> object:
        """A value of the field as plain data, which means the same in a specification and in Python."""
        return value

    def accepts(self, value: object) -> TypeGuard[float]:
        """Whether a single value can be one of this dimension's."""
        raise NotImplementedError

    # What is drawn.

    def domain(self, scope: Scope, config: Config) -> Domain:
        """Where values lie, given those of the dimensions before."""
        domain: Domain = getattr(scope.space, self.name)
        return domain

    def searched(self, space: SpaceFields) -> bool:
        """Whether the space says anything of it."""
        return not self.optional or getattr(space, self.name) is not None

    def default(self, scope: Scope, config: Config) -> float:
        """The value that a configuration has where neither the user nor the space says anything."""
        raise NotImplementedError

    def completed(self, scope: Scope, config: Config) -> Value:
        """The value of a user's configuration with what it leaves open: as pinned, or as by default.

        Raises:
            ValueError: the space does not allow the value; the message follows the name of the configuration.
        """
        value: Value | None = config.value(self.name)
        if value is not None:
            return value
        domain = self.domain(scope, config)
        return domain[0] if isinstance(domain, list) and pinned(domain) else self.default(scope, config)

    def mode(self, scope: Scope, config: Config, coordinates: Coordinates) -> Value:
        """The most plausible value, given those of the dimensions before."""
        return nearest(self.domain(scope, config), self.default(scope, config))

    def uniform(self, rng: np.random.Generator, scope: Scope, config: Config) -> Value:
        """A value uniform over the domain."""
        return draw(rng, self.domain(scope, config))

    def sample(self, rng: np.random.Generator, scope: Scope, config: Config, belief: Belief) -> Value:
        """A value drawn from the prior."""
        return self.uniform(rng, scope, config)

    def near(
        self, rng: np.random.Generator, scope: Scope, config: Config, trial: Config, coordinates: Coordinates
    ) -> Value:
        """A value near that of a trial; ``config`` holds the neighbor's values of the dimensions before."""
        raise NotImplementedError

    def density(self, scope: Scope, config: Config, belief: Belief) -> float:
        """Density of :meth:`sample` at a configuration's value; a probability where there are choices."""
        return self.uniform_density(scope, config)

    def uniform_density(self, scope: Scope, config: Config) -> float:
        """Density of :meth:`uniform`."""
        domain = self.domain(scope, config)
        return 1 / (domain.high - domain.low) if isinstance(domain, Range) else 1 / len(domain)

    def values(self, scope: Scope, config: Config) -> Sequence[Value] | None:
        """All values, or None where the domain is a range."""
        domain = self.domain(scope, config)
        return None if isinstance(domain, Range) else domain

    def corners(self, scope: Scope, config: Config) -> Sequence[Value]:
        """All choices, or the ends of a range."""
        return corners(self.domain(scope, config))

    def largest(self, scope: Scope, config: Config) -> Value:
        """The value whose training takes most time and memory; as good as any where that makes no difference."""
        return self.mode(scope, config, Coordinates(0.0, scope.space.hidden_size))

    # How the surrogate sees it.

    def encoder(self, encoding: Encoding) -> Encoder:
        """What turns configurations into numbers for the surrogate."""
        raise NotImplementedError

    # In a study, and for people.

    def parameters(
        self, space: SpaceFields, variant: str, config: Config
    ) -> Mapping[str, Parameter] | Mapping[str, Parameter | Category]:
        """The value as a study shows it, by the name of its parameter."""
        raise NotImplementedError

    def read(self, parameters: Mapping[str, float], variant: str) -> dict[str, Value]:
        """The inverse of :meth:`parameters`, by the dimension's name; empty if there is no value."""
        return {self.name: parameters[self.name]} if self.name in parameters else {}

    def text(self, config: Config) -> str:
        """The value in a column; empty if there is none."""
        value = config.value(self.name)
        return "" if value is None else f"{value:.4g}"

    def phrase(self, config: Config) -> str:
        """The value with its name, in a setting on one line; empty if there is none."""
        text = self.text(config)
        return f"{self.brief} {text}" if text else ""

    def cost_key(self, config: Config) -> Value | None:
        """What of the value the wall time of a run depends on; None: nothing."""
        return None

    def size(self, config: Config) -> float | None:
        """What of the value memory grows with; None: nothing."""
        return None

    def memory_key(self, config: Config) -> Value | None:
        """What of the value memory depends on in another way than to grow with it; None: nothing, or unknown."""
        return None


_REGISTRY: dict[str, Dimension] = {}


def register(dimension: Dimension) -> Dimension:
    """Add a dimension; raises ``ValueError`` if the name is taken."""
    if dimension.name in _REGISTRY:
        raise ValueError(f"a dimension named {dimension.name!r} is registered already")
    _REGISTRY[dimension.name] = dimension
    ordered.cache_clear()
    return dimension


def registry() -> list[Dimension]:
    """All dimensions, in the order of columns."""
    return list(ordered("column"))


@cache
def ordered(place: Literal["column", "drawn"]) -> tuple[Dimension, ...]:
    """All dimensions by the attribute that says their place; of equal ones the name decides."""
    return tuple(sorted(_REGISTRY.values(), key=lambda dimension: (getattr(dimension, place), dimension.name)))
