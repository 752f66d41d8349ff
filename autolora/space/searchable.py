"""A variant in a search: which of its own options the space may name, and the values that they start at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from autolora.errors import closest
from autolora.space.config import Config, Options
from autolora.space.dimension import UNSET, Scope, registry
from autolora.space.dimensions.options import OPTIONS
from autolora.space.dimensions.rank import opening_rank
from autolora.space.domain import Domain, Range, nearest, pinned
from autolora.space.space import Space, drawing_order, listing_order
from autolora.space.traits import Traits


class Searchable(Protocol):
    """A variant as a search sees it: :class:`autolora.variants.Variant` is one.

    Attributes:
        name: by which the space names its options.
        traits: with its options as they are.
        options: its own hyperparameters with their defaults; None: chosen by the rank.
        redundant_with_alpha: options that under Adam do what alpha does.
        above_zero: options whose values must be above 0.
        revision: of what it computes; a search does not go on with trials of another.
    """

    @property
    def name(self) -> str: ...
    @property
    def traits(self) -> Traits: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
    @property
    def redundant_with_alpha(self) -> tuple[str, ...]: ...
    @property
    def above_zero(self) -> tuple[str, ...]: ...
    @property
    def revision(self) -> int: ...

    def default(self, option: str, rank: int) -> float:
        """The value that an option has at this rank where it is left to the variant."""

    def kinds(self, option: str) -> set[type]:
        """The types that an option is declared as."""

    def configured(self, **options: object) -> Searchable:
        """The variant with some of its options set."""


def check(space: Space, variants: Mapping[str, Searchable], known: Sequence[str] = ()) -> None:
    """Raise ``ValueError`` if these variants cannot be searched over the space.

    Args:
        space: of the search.
        variants: by name, those that are tuned.
        known: names of all registered variants, for hints.
    """
    for name, variant in variants.items():
        if variant.traits.alpha_law == "empirical" and space.alpha != "law":
            raise ValueError(
                f"space.alpha: {name} is plain LoRA but for its own law of alpha, so it needs alpha: law, not "
                f"{space.alpha!r}; or leave it out"
            )
    for key, domain in space.options.items():
        name, _, option = key.partition(".")
        fault = _owner_fault(variants, name, known) or _fault(space, variants[name], option, domain)
        if fault is not None:
            raise ValueError(f"space.options.{key}: {_shown(domain)} is not allowed; {fault}")


def _owner_fault(variants: Mapping[str, Searchable], name: str, known: Sequence[str]) -> str | None:
    if name in variants:
        return None
    hint = "" if name in known else _hint(name, variants)
    return f"{name!r} is not among the variants tuned here, {', '.join(variants)}{hint}"


def _fault(space: Space, variant: Searchable, option: str, domain: Domain) -> str | None:
    name = variant.name
    if option not in variant.options:
        options = ", ".join(variant.options) or "none"
        return f"{name} has no option {option!r}; its options: {options}{_hint(option, variant.options)}"
    kinds = variant.kinds(option)
    if not kinds & {int, float}:
        return f"{option} of {name} is {variant.options[option]!r}, and only numbers can be searched"
    if float not in kinds and (isinstance(domain, Range) or not all(isinstance(choice, int) for choice in domain)):
        return f"{option} of {name} takes whole numbers"
    if option in variant.above_zero and (domain.low if isinstance(domain, Range) else min(domain)) <= 0:
        return f"{option} of {name} must be above 0"
    if option in variant.redundant_with_alpha and not pinned(domain) and not _alpha_is_pinned(space, variant):
        return (
            f"alpha is searched, and under Adam the two are redundant: {option} c at s is {option} 1 at c s where "
            "B0 = 0; give one number here, or pin space.alpha to a number, law or rank"
        )
    return None


def _alpha_is_pinned(space: Space, variant: Searchable) -> bool:
    return all(pinned(space.alphas(variant.traits, rank)) for rank in space.rank)


def _hint(word: str, known: Iterable[str]) -> str:
    close = closest(word, known)
    return f"; did you mean {close!r}?" if close else ""


def _shown(domain: Domain) -> str:
    return f"({domain.low:g}, {domain.high:g})" if isinstance(domain, Range) else str(domain)


def start(space: Space, variant: Searchable, rank: int) -> Options:
    """Where a search over a variant's options starts: at the value next to the variant's own default at this rank."""
    domains = OPTIONS.domains(space, variant.name)
    return tuple((option, nearest(domain, variant.default(option, rank))) for option, domain in domains.items())


def traits_at_start(space: Space, variant: Searchable) -> Traits:
    """Traits of a variant where its options start: a ratio of rates, for instance, moves the best one."""
    return variant.configured(**dict(start(space, variant, opening_rank(space)))).traits


def scope(space: Space, variant: Searchable, traits: Traits | None = None) -> Scope:
    """What is searched of a variant; ``traits``: as an informed prior has them, None: as they are at the start."""
    own = start(space, variant, opening_rank(space))
    return Scope(space, traits or traits_at_start(space, variant), variant.name, own)


def corners(space: Space, variant: Searchable) -> list[Config]:
    """Every value that a variant may refuse when it is attached, in every combination; ranges by their ends."""
    within, configs = scope(space, variant), [UNSET]
    for dimension in listing_order(space):
        if dimension.at_attach:
            configs = [
                config.replaced(**{dimension.name: value})
                for config in configs
                for value in dimension.corners(within, config)
            ]
    return configs


def largest(space: Space, variant: Searchable) -> Config:
    """The configuration whose training takes most time and memory."""
    within, config = Scope(space, variant.traits, variant.name), UNSET
    for dimension in drawing_order(space):
        config = config.replaced(**{dimension.name: dimension.largest(within, config)})
    return config.replaced(options=start(space, variant, config.rank))


def completed(space: Space, variant: Searchable, config: Config) -> Config:
    """A user's configuration with what the space names and it leaves open: as pinned, or as by default.

    A default that is None, for the variant to choose by the rank, stays so: the option is left out. Alpha is r where
    the variant has no other.

    Raises:
        ValueError: it sets an option that the space does not name, or a value that a hyperparameter cannot have.
    """
    _check_values(variant.name, config)
    own, given, domains = variant.options, dict(config.options), OPTIONS.domains(space, variant.name)
    if not given.keys() <= domains.keys():
        unknown = ", ".join(f"{variant.name}.{option}" for option in given if option not in domains)
        raise ValueError(f"the baseline of {variant.name} sets {unknown}, which space.options does not name")
    pins: dict[str, float | None] = {
        option: domain[0] if isinstance(domain, list) and pinned(domain) else own[option]
        for option, domain in domains.items()
    }
    filled = {option: value for option, value in (pins | given).items() if value is not None}
    alpha = float(config.rank) if variant.traits.unit_scale else config.alpha
    found = replace(config, alpha=alpha, options=tuple(filled.items()))
    for dimension in registry():
        if dimension.optional and dimension.searched(space):
            try:
                value = dimension.completed(Scope(space, variant.traits, variant.name), found)
            except ValueError as error:
                raise ValueError(f"the baseline of {variant.name} {error}") from None
            if value != found.value(dimension.name):
                found = found.replaced(**{dimension.name: value})
    return found


def _check_values(variant: str, config: Config) -> None:
    known = {dimension.name: dimension for dimension in registry() if dimension is not OPTIONS}
    for name, _ in config.further:
        if name not in known:
            hint = _hint(name, known)
            raise ValueError(f"the baseline of {variant} sets {name!r}, which is not a hyperparameter{hint}")
    for name, dimension in known.items():
        value = config.value(name)
        if value is not None and not dimension.accepts(value):
            raise ValueError(f"the baseline of {variant} has {name} = {value!r}, which is not allowed")
