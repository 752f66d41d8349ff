"""The rank r."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeGuard

from pydantic import Field

from autolora import laws
from autolora.space.config import Config
from autolora.space.coordinates import Coordinates
from autolora.space.dimension import Belief, Dimension, Encoding, Parameter, Scope, SpaceFields, register
from autolora.space.domain import is_number, near
from autolora.space.encoder import LogChoiceEncoder
from autolora.space.written import WholeNumbers

if TYPE_CHECKING:
    import numpy as np

LENGTH = 0.6
"""Decades over which scores stay alike."""


class Rank(Dimension):
    name = "rank"
    about = "choices of the rank r; a range stands for its ends and the powers of two between."
    label = "rank"
    brief = "rank"
    aliases = ("rank", "r", "lora_rank", "lora_r")
    column = 30
    drawn = 10
    whole = True
    at_attach = True

    def field(self) -> tuple[object, object]:
        return WholeNumbers, Field(default=[8, 32], validate_default=True)

    def accepts(self, value: object) -> TypeGuard[float]:
        return is_number(value) and 0 < value < math.inf and float(value).is_integer()

    def mode(self, scope: Scope, config: Config, coordinates: Coordinates) -> int:
        """The largest: with a tuned rate it is as good as smaller ones or better, in most published tables."""
        return opening_rank(scope.space)

    def near(
        self, rng: np.random.Generator, scope: Scope, config: Config, trial: Config, coordinates: Coordinates
    ) -> int:
        choices: list[int] = scope.space.rank
        return near(rng, choices, trial.rank)

    def density(self, scope: Scope, config: Config, belief: Belief) -> float:
        return 1 / len(scope.space.rank) if config.rank in scope.space.rank else 0.0

    def largest(self, scope: Scope, config: Config) -> int:
        return int(max(scope.space.rank))

    def encoder(self, encoding: Encoding) -> LogChoiceEncoder:
        return LogChoiceEncoder(self.name, encoding.space.rank, laws.RANK_SD, LENGTH)

    def parameters(self, space: SpaceFields, variant: str, config: Config) -> dict[str, Parameter]:
        return {self.name: Parameter.among(space.rank, config.rank, log=True, whole=True)}

    def text(self, config: Config) -> str:
        return str(config.rank)

    def cost_key(self, config: Config) -> int:
        return config.rank

    def size(self, config: Config) -> float:
        return config.rank


def opening_rank(space: SpaceFields) -> int:
    """The rank that a search starts at."""
    return int(space.rank[-1])


register(Rank())
