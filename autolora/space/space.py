"""The search space: a domain for each dimension."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, SerializerFunctionWrapHandler, create_model, model_serializer

from autolora.space import dimensions as _registered  # noqa: F401  # so that every dimension is there
from autolora.space.config import Config, Options
from autolora.space.dimension import UNSET, Dimension, Scope, SpaceFields, ordered, registry
from autolora.space.dimensions.alpha import ALPHA
from autolora.space.dimensions.duration import DURATION
from autolora.space.dimensions.learning_rate import LEARNING_RATE
from autolora.space.dimensions.options import OPTIONS
from autolora.space.dimensions.rank import opening_rank
from autolora.space.domain import Domain, Range
from autolora.space.traits import Traits


def specified(given: object) -> object:
    """A space as a specification writes it, by the rules of :class:`Space`; others as given."""
    if not isinstance(given, Mapping):
        return given
    own = {dimension.name: dimension for dimension in registry()}
    return {key: own[key].specified(value) if key in own else value for key, value in given.items()}


def drawing_order(space: SpaceFields) -> list[Dimension]:
    """The dimensions that a space searches, in the order in which values are drawn."""
    return [dimension for dimension in ordered("drawn") if dimension.searched(space)]


def listing_order(space: SpaceFields) -> list[Dimension]:
    """The dimensions that a space searches, each right after those that it depends on."""
    known = {dimension.name: dimension for dimension in registry() if dimension.searched(space)}
    order: dict[str, Dimension] = {}

    def visit(name: str) -> None:
        for before in known[name].after:
            visit(before)
        order.setdefault(name, known[name])

    for name in known:
        visit(name)
    return list(order.values())


class _Space(SpaceFields):
    @model_serializer(mode="wrap")
    def _as_recorded(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Dimensions that are not searched are left out, so that a new one changes no record."""
        plain: dict[str, object] = dump(self)
        for dimension in registry():
            if dimension.optional and plain[dimension.name] is None:
                del plain[dimension.name]
            else:
                plain[dimension.name] = dimension.recorded(plain[dimension.name])
        return plain

    @property
    def learning_rates(self) -> Range | list[float]:
        """The searched learning rates with "auto" resolved: a Range, or a list of choices."""
        return LEARNING_RATE.rates(self)

    def alphas(self, traits: Traits, rank: int) -> Range | list[float]:
        """The alphas searched for a variant at this rank: a Range, or a list of choices (one where it is pinned)."""
        return ALPHA.alphas(self, traits, rank)

    @property
    def longest(self) -> float | None:
        """The longest duration searched, in its own unit: a full run. None if durations are not searched."""
        return DURATION.longest(self)

    @property
    def shortest(self) -> float:
        """The smallest share of a full run that is searched; 1 unless durations are."""
        return DURATION.shortest(self)

    def length(self, config: Config) -> float:
        """Share of a full run that a trial of a configuration trains for; 1 unless durations are searched."""
        return DURATION.length(self, config)

    @property
    def opening_rank(self) -> int:
        """The rank that a search starts at."""
        return opening_rank(self)

    def options_of(self, variant: str) -> dict[str, Domain]:
        """The domains of one variant's own hyperparameters, by option, sorted; empty if none is named."""
        return OPTIONS.domains(self, variant)

    def combinations(self, variant: str) -> list[Options]:
        """Every setting of the options named of a variant, a range by its ends: the empty one if there are none."""
        return OPTIONS.corners(Scope(self, Traits(), variant), UNSET)

    def enumerate(self, traits: Traits, variant: str | None = None) -> Iterator[Config] | None:
        """Every configuration of a finite space, or None if a dimension is continuous.

        Args:
            traits: of the variant.
            variant: its name, by which the space names its options; None: without any.
        """
        scope, order = Scope(self, traits, variant), listing_order(self)
        configs = [UNSET]
        for dimension in order:
            longer = []
            for config in configs:
                values = dimension.values(scope, config)
                if values is None:
                    return None
                longer += [config.replaced(**{dimension.name: value}) for value in values]
            configs = longer
        return iter(configs)


def _documentation() -> str:
    """Docstring of the class, with what each dimension says of its field."""
    fields = {dimension.name: dimension.about for dimension in registry()}
    fields["hidden_size"] = (
        'width of the model. With it ``alpha="law"`` is analytic, sqrt(3 n r); without, 256 sqrt(r).'
    )
    indent = 4 * " "
    entries = [
        textwrap.fill(f"{name}: {about}", 116, initial_indent=2 * indent, subsequent_indent=3 * indent)
        for name, about in fields.items()
    ]
    rule = (
        "In Python a tuple is a range and a list holds choices; {low, high}, with log: true or false, is a range "
        "everywhere, and {choices: [...]} are choices."
    )
    return "\n".join(
        [
            "What is searched.\n",
            textwrap.fill(rule, 116, initial_indent=indent, subsequent_indent=indent),
            f"\n{indent}Args:",
            *entries,
            indent,
        ]
    )


if TYPE_CHECKING:

    class Space(_Space):
        def __init__(self, **fields: object) -> None: ...

else:
    Space = create_model(
        "Space",
        __base__=_Space,
        __module__="autolora.space.space",
        __doc__=_documentation(),
        **{dimension.name: dimension.field() for dimension in registry()},
        hidden_size=(int | None, Field(default=None, ge=1)),
    )
