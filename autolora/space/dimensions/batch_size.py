"""The global batch size: examples per optimizer step."""

from __future__ import annotations

import math
from typing import TypeGuard

import numpy as np
from pydantic import Field

from autolora import laws
from autolora.space.config import Config
from autolora.space.coordinates import Coordinates
from autolora.space.dimension import Belief, Dimension, Encoding, Parameter, Scope, SpaceFields, register
from autolora.space.domain import is_number, near
from autolora.space.encoder import LogChoiceEncoder
from autolora.space.written import WholeNumbers

LARGE = 128
"""Beyond 128 to 256, larger batches lower the ceiling even when the learning rate is tuned (LR-matters)."""
LENGTH = 0.6
"""Decades over which scores stay alike."""


class BatchSize(Dimension):
    name = "batch_size"
    about = (
        "choices of the global batch size (examples per optimizer step); a range stands for its ends and the "
        "powers of two between."
    )
    label = "batch"
    brief = "batch"
    aliases = ("batch_size", "per_device_train_batch_size", "train_batch_size")
    column = 20
    drawn = 20
    whole = True

    def field(self) -> tuple[object, object]:
        return WholeNumbers, Field(default=[16, 64], validate_default=True)

    def accepts(self, value: object) -> TypeGuard[float]:
        return is_number(value) and 0 < value < math.inf and float(value).is_integer()

    def mode(self, scope: Scope, config: Config, coordinates: Coordinates) -> int:
        """The smallest."""
        return int(scope.space.batch_size[0])

    def sample(self, rng: np.random.Generator, scope: Scope, config: Config, belief: Belief) -> int:
        return int(rng.choice(scope.space.batch_size, p=_weights(scope.space.batch_size)))

    def near(
        self, rng: np.random.Generator, scope: Scope, config: Config, trial: Config, coordinates: Coordinates
    ) -> int:
        choices: list[int] = scope.space.batch_size
        return near(rng, choices, trial.batch_size)

    def density(self, scope: Scope, config: Config, belief: Belief) -> float:
        choices = scope.space.batch_size
        return float(_weights(choices)[choices.index(config.batch_size)]) if config.batch_size in choices else 0.0

    def largest(self, scope: Scope, config: Config) -> int:
        return int(max(scope.space.batch_size))

    def encoder(self, encoding: Encoding) -> LogChoiceEncoder:
        return LogChoiceEncoder(self.name, encoding.space.batch_size, laws.BATCH_SD, LENGTH)

    def parameters(self, space: SpaceFields, variant: str, config: Config) -> dict[str, Parameter]:
        return {self.name: Parameter.among(space.batch_size, config.batch_size, log=True, whole=True)}

    def text(self, config: Config) -> str:
        return str(config.batch_size)

    def cost_key(self, config: Config) -> int:
        return config.batch_size

    def size(self, config: Config) -> float:
        return config.batch_size


def _weights(choices: list[int]) -> np.ndarray:
    """Even up to LARGE, halved with each doubling beyond."""
    weights = np.array([min(1.0, LARGE / batch) for batch in choices])
    return np.asarray(weights / weights.sum())


register(BatchSize())
