"""Variants by name in a search."""

from __future__ import annotations

from collections.abc import Sequence

from autolora import variants
from autolora.space import Config, Options, Space, Traits, searchable
from autolora.variants import Variant


def check(space: Space, names: Sequence[str]) -> None:
    searchable.check(space, {name: variants.get(name) for name in names}, variants.names())


def start(space: Space, name: str, rank: int) -> Options:
    return searchable.start(space, variants.get(name), rank)


def completed(space: Space, name: str, config: Config) -> Config:
    return searchable.completed(space, variants.get(name), config)


def traits(space: Space, name: str) -> Traits:
    return searchable.traits_at_start(space, variants.get(name))


def configured(name: str, values: Options) -> Variant:
    return variants.get(name).configured(**dict(values))
