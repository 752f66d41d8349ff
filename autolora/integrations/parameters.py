"""Reads a user's Optuna parameters as a Space and a Config, and writes a Config back as values of those parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeGuard

from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autolora import variants
from autolora.space import AUTO_LEARNING_RATE, FIELDS, Config, Coordinates, Named, Space, Traits, registry
from autolora.space.dimensions.fields import PREFIX
from autolora.space.dimensions.learning_rate import LEARNING_RATE
from autolora.space.domain import is_number, whole_numbers
from autolora.space.domain import nearest as nearest_choice
from autolora.space.field import field_of
from autolora.space.named import Scalar

VARIANT = "variant"
_DIMENSIONS = {dimension.name: dimension for dimension in registry() if dimension.aliases}

NAMES: Mapping[str, tuple[str, ...]] = {
    **{name: dimension.aliases for name, dimension in _DIMENSIONS.items()},
    VARIANT: (VARIANT,),
}
"""What users call our hyperparameters."""

MOST_STEPS = 64
"""A range with more steps than this is searched as a continuous one."""

Distributions = Mapping[str, BaseDistribution]
Values = Mapping[str, CategoricalChoiceType]
Alpha = Literal["law", "rank"] | float


@dataclass(frozen=True)
class Parameters:
    """Which parameters of a study are ours, and what holds for those that it does not search.

    Attributes:
        names: the names that each of ours may have, the first one found counts.
        variant: registry name.
        batch_size: examples per optimizer step.
        rank: r.
        alpha: "law", "rank" (alpha = r) or a number.
        batch_multiplier: examples per optimizer step for each unit of the batch size parameter.
        hidden_size: width of the model, or None where unknown.
        fields: the user's names of further parameters that are searched, each with the value that is expected to be
            best; None where none is.
    """

    names: Mapping[str, tuple[str, ...]]
    variant: str
    batch_size: int
    rank: int
    alpha: Alpha
    batch_multiplier: int
    hidden_size: int | None
    fields: Mapping[str, Scalar | None] = field(default_factory=dict)

    def ours(self, name: str) -> str | None:
        """Which of our hyperparameters the user's name stands for, or None."""
        if name in self.fields:
            return f"{PREFIX}{name}"
        return next((own for own, names in self.names.items() if name in names), None)

    def found(self, distributions: Distributions) -> dict[str, str]:
        """The user's names by ours, of what a LoRA search can use of these distributions."""
        named = self._named(distributions)
        return {own: name for own, name in named.items() if usable(own, distributions[name])}

    def given(self, values: Values) -> dict[str, CategoricalChoiceType]:
        """A trial's values by our names."""
        return {own: values[name] for own, name in self._named(values).items()}

    def _named(self, present: Mapping[str, object]) -> dict[str, str]:
        named = {own: [name for name in names if name in present] for own, names in self.names.items()}
        fields = {f"{PREFIX}{name}": name for name in self.fields if name in present}
        return {**{own: names[0] for own, names in named.items() if names}, **fields}

    def searched_variants(self, distributions: Distributions) -> list[str]:
        """Names of the variants that are searched."""
        name = self.found(distributions).get("variant")
        return [self.variant] if name is None else [str(choice) for choice in _categories(distributions[name])]

    def space(self, distributions: Distributions) -> Space:
        """What these distributions search; a learning rate that is not among them may be anything."""
        fields: dict[str, object] = {
            LEARNING_RATE.name: AUTO_LEARNING_RATE,
            "batch_size": [self.batch_size],
            "rank": [self.rank],
            "alpha": self.alpha,
            "hidden_size": self.hidden_size,
        }
        further: dict[str, object] = {}
        for own, name in self.found(distributions).items():
            if own.startswith(PREFIX):
                further[name] = self._field(name, distributions[name])
            elif own != VARIANT:
                fields[own] = values = readable(own, distributions[name])
                if own == "batch_size" and isinstance(values, list):
                    fields[own] = [self.batch_multiplier * size for size in values]
        return Space(**fields, **({FIELDS.name: further} if further else {}))

    def _field(self, name: str, distribution: BaseDistribution) -> dict[str, object]:
        """A field of a space, as :class:`autolora.Space` takes it."""
        found, prefer = field_values(distribution), self.fields[name]
        known = field_of(name, found)
        if prefer is None:
            return {**found}
        return {**found, ("prefer" if known.has(prefer) else "standard"): prefer}

    def configuration(self, values: Values) -> tuple[str, Config] | None:
        """Variant and configuration of a trial, or None where it has no learning rate or cannot be trained so."""
        own = self.given(values)
        variant = own.pop(VARIANT, self.variant)
        fields = {name: own.pop(f"{PREFIX}{name}") for name in self.fields if f"{PREFIX}{name}" in own}
        if any(value is None for value in fields.values()):
            return None
        numbers = {name: value for name, value in own.items() if _fits(value, name)}
        if LEARNING_RATE.name not in own or not _registered(variant) or len(numbers) < len(own):
            return None
        rank = int(numbers.pop("rank", self.rank))
        batch = self.batch_multiplier * int(numbers.pop("batch_size")) if "batch_size" in numbers else self.batch_size
        alpha = float(numbers.pop("alpha")) if "alpha" in numbers else self.alpha_at(variant, rank)
        further: dict[str, object] = {name: float(value) for name, value in numbers.items()}
        further |= {FIELDS.name: fields} if fields else {}
        return variant, Config.of(batch_size=batch, rank=rank, alpha=alpha, **further)

    def alpha_at(self, variant: str, rank: int) -> float:
        """The alpha of a rank where it is not searched."""
        return self._unsearched_alpha(variants.get(variant).traits, rank)

    def _unsearched_alpha(self, traits: Traits, rank: int) -> float:
        alphas = Space(alpha=self.alpha, hidden_size=self.hidden_size).alphas(traits, rank)
        assert isinstance(alphas, list)
        return alphas[0]

    def settled(
        self, distributions: Distributions, given: Values, coordinates: Coordinates, traits: Traits, config: Config
    ) -> Config:
        """The configuration with what is given already and as its parameters allow it, the learning rate moved along.

        What is proposed may lie beside them: an integer alpha is searched as if it were continuous, and a variant for
        which alpha is redundant is proposed at alpha = r.
        """
        found = self.found(distributions)
        known = self.given(given)
        fields = {name: known.pop(f"{PREFIX}{name}") for name in self.fields if f"{PREFIX}{name}" in known}
        fixed = {own: number for own, number in known.items() if own != VARIANT and _fits(number, own)}
        rank = int(fixed.pop("rank", config.rank))
        batch = self.batch_multiplier * int(fixed.pop("batch_size")) if "batch_size" in fixed else config.batch_size
        law = traits.law_alpha(rank, self.hidden_size) / traits.law_alpha(config.rank, self.hidden_size)
        alpha = fixed.get("alpha", config.alpha if rank == config.rank else law * config.alpha)
        if "alpha" not in {*fixed, *found}:
            alpha = self._unsearched_alpha(traits, rank)
        elif "alpha" not in fixed:
            alpha = nearest(distributions[found["alpha"]], alpha)
        settled = config.replaced(batch_size=batch, rank=rank, alpha=float(alpha))
        if (batch, rank, alpha) != (config.batch_size, config.rank, config.alpha):
            rate = coordinates.rate_of(traits, coordinates.z(traits, config), settled)
            settled = settled.replaced(learning_rate=rate)
        for own, name in found.items():
            if own not in (VARIANT, "batch_size", "rank", "alpha") and not own.startswith(PREFIX):
                settled = settled.replaced(**{own: float(nearest(distributions[name], settled.value(own)))})
        fixed.pop("alpha", None)
        if fields:
            settled = settled.replaced(**{FIELDS.name: Named.of({**dict(settled.value(FIELDS.name) or ()), **fields})})
        return settled.replaced(**{own: float(number) for own, number in fixed.items()})

    def values(self, distributions: Distributions, variant: str, config: Config) -> dict[str, CategoricalChoiceType]:
        """A configuration as values of the user's parameters, by the user's names."""
        own = config.replaced(batch_size=config.batch_size / self.batch_multiplier)
        found: dict[str, CategoricalChoiceType] = {}
        for key, name in self.found(distributions).items():
            distribution = distributions[name]
            value = own.value(name if key.startswith(PREFIX) else key)
            if key == VARIANT:
                found[name] = variant
            elif key.startswith(PREFIX) and value in _categories(distribution):
                found[name] = next(choice for choice in _categories(distribution) if choice == value)
            else:
                found[name] = nearest(distribution, value)
        return found


def usable(own: str, distribution: BaseDistribution) -> bool:
    """Whether a parameter can be searched as one of ours."""
    if own == VARIANT:
        choices = _categories(distribution)
        return bool(choices) and all(_registered(choice) for choice in choices)
    if own.startswith(PREFIX):
        return None not in _categories(distribution)
    return readable(own, distribution) is not None


def field_values(distribution: BaseDistribution) -> Mapping[str, object]:
    """What a parameter that is none of the dimensions may be, as a field of :class:`autolora.Space` is written."""
    if isinstance(distribution, CategoricalDistribution):
        return {"choices": list(distribution.choices)}
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high, log, step = distribution.low, distribution.high, distribution.log, distribution.step
    if distribution.single():
        return {"choices": [low]}
    if step is not None and not log and (high - low) / step < MOST_STEPS:
        return {"choices": [low + number * step for number in range(round((high - low) / step) + 1)]}
    return {"low": low, "high": high, "log": log}


def readable(own: str, distribution: BaseDistribution) -> Sequence[float] | Mapping[str, float] | None:
    """Choices of a number as a list, or ``(low, high)`` as a tuple where it is continuous; None: it cannot be ours."""
    if isinstance(distribution, CategoricalDistribution):
        choices = [choice for choice in distribution.choices if _fits(choice, own)]
        return choices if len(choices) == len(distribution.choices) else None
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    if not all(_fits(end, own) for end in (distribution.low, distribution.high)):
        return None
    if _DIMENSIONS[own].whole:
        if not isinstance(distribution, IntDistribution):
            return None
        return whole_numbers(distribution.low, distribution.high, distribution.log, distribution.step)
    if distribution.single():
        return [float(distribution.low)]
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        steps = round((distribution.high - distribution.low) / distribution.step)
        if steps < MOST_STEPS:
            return [distribution.low + step * distribution.step for step in range(steps + 1)]
    low, high = float(distribution.low), float(distribution.high)
    return {"low": low, "high": high, "log": distribution.log} if _DIMENSIONS[own].optional else (low, high)


def nearest(distribution: BaseDistribution, value: float) -> float:
    """The value of the distribution that is closest, as Optuna wants it."""
    if isinstance(distribution, CategoricalDistribution):
        return nearest_choice([choice for choice in distribution.choices if is_number(choice)], value)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high, step = distribution.low, distribution.high, distribution.step
    value = min(max(value, low), high)
    if step is not None:
        value = min(low + step * round((value - low) / step), high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def _categories(distribution: BaseDistribution) -> tuple[CategoricalChoiceType, ...]:
    return distribution.choices if isinstance(distribution, CategoricalDistribution) else ()


def _fits(value: object, own: str) -> TypeGuard[float]:
    return _DIMENSIONS[own].accepts(value)


def _registered(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value in variants.names()
