"""The Space as peers know spaces: named ranges and ordered choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autolora import variants
from autolora.space import Config, Range, Space, searchable


@dataclass(frozen=True)
class Dimension:
    """A range searched on a log scale, or choices in ascending order, of which the index is searched."""

    name: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[float, ...] = ()

    @property
    def last(self) -> int:
        return len(self.choices) - 1


def dimensions(space: Space, variant: str) -> tuple[Dimension, ...]:
    """What is searched of a variant; what the space pins is left out."""
    rates = space.learning_rates
    alphas = space.alphas(searchable.traits_at_start(space, variants.get(variant)), space.rank[0])
    own = {f"option {name}": choices for name, choices in space.options_of(variant).items()}
    found = []
    for name, values in {
        "learning_rate": rates,
        "batch_size": space.batch_size,
        "rank": space.rank,
        "alpha": alphas,
        **own,
    }.items():
        if isinstance(values, Range):
            found.append(Dimension(name, values.low, values.high))
        elif len(values) > 1:
            found.append(Dimension(name, choices=tuple(values)))
    return tuple(found)


def config(space: Space, variant: str, values: Mapping[str, float]) -> Config:
    """The configuration of a value for each dimension: a number of a range, an index of choices."""
    chosen = {
        dimension.name: dimension.choices[round(values[dimension.name])]
        if dimension.choices
        else values[dimension.name]
        for dimension in dimensions(space, variant)
    }
    rates = space.learning_rates
    rank = int(chosen.get("rank", space.rank[0]))
    pinned = space.alphas(searchable.traits_at_start(space, variants.get(variant)), rank)
    own = {name: chosen.get(f"option {name}", values[0]) for name, values in space.options_of(variant).items()}
    return Config(
        learning_rate=rates.clip(chosen["learning_rate"])
        if isinstance(rates, Range)
        else chosen.get("learning_rate", rates[0]),
        batch_size=int(chosen.get("batch_size", space.batch_size[0])),
        rank=rank,
        alpha=float(chosen["alpha"] if "alpha" in chosen else pinned[0]),  # type: ignore[index]
        options=tuple(own.items()),
    )


def values(space: Space, variant: str, config: Config) -> dict[str, float]:
    """The inverse of :func:`config`: a number of each range, the index of each choice; of what is not listed, the next.

    A number may lie outside its range; it is then clipped.
    """
    own = {**config.as_dict(), **{f"option {name}": value for name, value in config.options}}
    found: dict[str, float] = {}
    for dimension in dimensions(space, variant):
        value = own[dimension.name]
        assert not isinstance(value, dict)
        if dimension.choices:
            found[dimension.name] = min(range(len(dimension.choices)), key=lambda i: abs(dimension.choices[i] - value))
        else:
            found[dimension.name] = min(max(value, dimension.low), dimension.high)
    return found


def uniform(space: Space, variant: str, rng: np.random.Generator) -> Config:
    """A configuration uniform over choices, log-uniform over ranges."""
    values = {
        dimension.name: float(rng.integers(len(dimension.choices)))
        if dimension.choices
        else float(dimension.low * (dimension.high / dimension.low) ** rng.uniform())
        for dimension in dimensions(space, variant)
    }
    return config(space, variant, values)
