"""Variants' own hyperparameters, such as LoRA-GA's gamma: each is searched for its variant alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Annotated, TypeGuard

from pydantic import BeforeValidator, Field

from autolora.space.config import Config, Options, Value
from autolora.space.coordinates import Coordinates
from autolora.space.dimension import Dimension, Encoding, Parameter, Scope, SpaceFields, register
from autolora.space.domain import KEEP_CHOICE, Domain, Range, any_of, corners, draw, is_number, place
from autolora.space.encoder import Encoder
from autolora.space.written import CHOICES, as_numbers

if TYPE_CHECKING:
    import numpy as np

RANGE_KEYS = {"low", "high", "log"}
LENGTH = 0.7
"""Share of all choices of an option over which scores stay alike."""
LEVEL_SD = 2.0
"""What an option may be worth from its first choice to its last, in units of the response."""
NEIGHBOR_SD = 0.2
"""Share of a range around a trial."""

Domains = dict[str, Domain]


class VariantOptions(Dimension):
    """The value is a tuple of the options that the space names of the variant: see :data:`Options`."""

    name = "options"
    about = (
        'choices of variants\' own hyperparameters by "variant.option", as in ``{"lora_ga.gamma": [4, 16, 64]}``; '
        "a number pins one. What is not named stays at the variant's default."
    )
    label = "options"
    brief = ""
    column = 50
    drawn = 50
    at_attach = True

    def field(self) -> tuple[object, object]:
        kinds: object = Annotated[dict[str, Range | list[int | float]], BeforeValidator(_written)]
        return kinds, Field(default={})

    def accepts(self, value: object) -> TypeGuard[float]:
        return is_number(value) and 0 <= value < math.inf

    def searched(self, space: SpaceFields) -> bool:
        return bool(space.options)

    def uniform(self, rng: np.random.Generator, scope: Scope, config: Config) -> Options:
        return tuple((name, draw(rng, domain)) for name, domain in self.domains(scope.space, scope.variant).items())

    def near(
        self, rng: np.random.Generator, scope: Scope, config: Config, trial: Config, coordinates: Coordinates
    ) -> Options:
        """Each option as the trial has it, with probability KEEP_CHOICE if that is a choice, or else uniform."""
        before = dict(trial.options)
        drawn = []
        for name, domain in self.domains(scope.space, scope.variant).items():
            if isinstance(domain, Range):
                current = place(domain, before.get(name))
                moved = current + NEIGHBOR_SD * float(rng.standard_normal())
                drawn.append((name, domain.at(min(max(moved, 0.0), 1.0))))
            else:
                keep = before.get(name) in domain and rng.uniform() < KEEP_CHOICE
                drawn.append((name, before[name] if keep else any_of(rng, domain)))
        return tuple(drawn)

    def mode(self, scope: Scope, config: Config, coordinates: Coordinates) -> Options:
        """Those of the variant's default configuration."""
        return scope.start

    def uniform_density(self, scope: Scope, config: Config) -> float:
        return 1.0

    def values(self, scope: Scope, config: Config) -> list[Options] | None:
        domains = self.domains(scope.space, scope.variant).values()
        return None if any(isinstance(domain, Range) for domain in domains) else self.corners(scope, config)

    def corners(self, scope: Scope, config: Config) -> list[Options]:
        domains = {name: corners(domain) for name, domain in self.domains(scope.space, scope.variant).items()}
        return [tuple(zip(domains, values, strict=True)) for values in product(*domains.values())]

    def domains(self, space: SpaceFields, variant: str | None) -> Domains:
        """The domains of one variant's options, by option, sorted; empty if none is named."""
        named = {key.partition("."): domain for key, domain in space.options.items()}
        return {option: domain for (owner, _, option), domain in sorted(named.items()) if owner == variant}

    def encoder(self, encoding: Encoding) -> OptionsEncoder:
        return OptionsEncoder({name: self.domains(encoding.space, name) for name in encoding.traits})

    def parameters(self, space: SpaceFields, variant: str, config: Config) -> dict[str, Parameter]:
        """By "variant.option", since another variant may call its own the same."""
        domains, found = self.domains(space, variant), {}
        for option, value in config.options:
            found[f"{variant}.{option}"] = Parameter.among(corners(domains.get(option, [])), value)
        return found

    def read(self, parameters: Mapping[str, float], variant: str) -> dict[str, Value]:
        prefix = f"{variant}."
        own = {key.removeprefix(prefix): value for key, value in parameters.items() if key.startswith(prefix)}
        return {self.name: tuple(own.items())} if own else {}

    def text(self, config: Config) -> str:
        return "  ".join(f"{name} {value:.4g}" for name, value in config.options)

    def phrase(self, config: Config) -> str:
        return self.text(config)

    def cost_key(self, config: Config) -> Options:
        return config.options

    def memory_key(self, config: Config) -> Options:
        return config.options


class OptionsEncoder(Encoder):
    """The place of each option among its choices, 0 to 1; coordinates are shared by all variants."""

    def __init__(self, domains: Mapping[str, Domains]) -> None:
        self._domains = domains
        self._options = [(name, option) for name, own in domains.items() for option in own]
        self.width = max(len(own) for own in domains.values())
        self.line_sds = (LEVEL_SD,) * len(self._options)

    def lines(self, variant: str, config: Config) -> list[float]:
        places = self._places(variant, config)
        return [places.get(option, 0.5) - 0.5 if name == variant else 0.0 for name, option in self._options]

    def settings(self, variant: str, config: Config) -> list[float]:
        places = self._places(variant, config)
        return [each / LENGTH for each in places.values()] + [0.0] * (self.width - len(places))

    def _places(self, variant: str, config: Config) -> dict[str, float]:
        given = dict(config.options)
        return {name: place(domain, given.get(name)) for name, domain in self._domains[variant].items()}


def _written(value: object) -> Domains:
    """Domains by "variant.option", given so or as a mapping for each variant."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not allowed; give choices by name, as in {{lora_ga.gamma: [4, 16, 64]}}")
    found: Domains = {}
    for key, given in _leaves(value):
        variant, _, option = key.partition(".")
        if not (variant and option) or "." in option:
            raise ValueError(f"{key!r} is not the name of an option; write variant.option, as in lora_ga.gamma")
        if key in found:
            raise ValueError(f"{key} is given twice")
        found[key] = _domain(key, given)
    return dict(sorted(found.items()))


def _leaves(tree: Mapping[object, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and not (value.keys() <= RANGE_KEYS or value.keys() == {CHOICES}):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _domain(key: str, given: object) -> Range | list[int | float]:
    try:
        return as_numbers(given, OPTIONS.accepts, "from 0 on", log=lambda low: low > 0)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


OPTIONS = VariantOptions()
register(OPTIONS)
