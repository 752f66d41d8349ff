"""Configurations as the numbers that the surrogate sees, in scaling-law coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from autolora import laws
from autolora.space import Config, Coordinates, Space, Traits

SMOOTHEST = 3
"""Functions kept for the level over rank, and over batch size."""

RATE_LENGTH, CHOICE_LENGTH, ALPHA_LENGTH, OPTION_LENGTH = 0.5, 0.6, 3.0, 0.7
"""Over which distance scores stay alike: decades of the learning rate, of rank and of batch size; octaves of alpha; the
share of all its choices for a variant's own option."""

RANK_EXPONENT_SD, BATCH_EXPONENT_SD = 0.15, 0.15
LEAST_SD = 1e-3
"""Decades; a belief that is sure, as of plain LoRA's own shift, is taken to be as good as sure."""
SHORT_RUN_SD = 0.25
"""Decades by which the best rate of a run cut to a tenth may lie off; either sign, as real runs show both."""

LEVEL, RUNG_LEVEL_SD = (-1.0, 25.0), 10.0
"""Mean and sd of the best possible score, from the best seen, in units of the response; and how much that differs
between rungs. As good as unknown: a first trial may be anywhere, and alone does not tell where the best is."""
CHOICE_LEVEL_SD, SHORT_CHOICE_LEVEL_SD = 3.0, 1.0
"""What rank and batch size may be worth, and how much more or less in short runs."""
ALPHA_LEVEL_SD, OPTION_LEVEL_SD, VARIANT_LEVEL_SD = 0.5, 2.0, 0.5
"""Per octave; from an option's first choice to its last; and between variants, which tuned fairly end within 1 to 2%
(LR-matters)."""


@dataclass(frozen=True)
class Points:
    """Where scores are, n of them.

    Attributes:
        z: (n,) scaling-law coordinate of the learning rate, in decades.
        shifts: (n, L) what moves the best z, times its column of parameters.
        levels: (n, V) what moves the score at the best z, likewise.
        depth: (n,) log10 of the share of a full run, 0 at full length.
        settings: (n, S) coordinates in which what the laws do not explain is smooth over a distance of 1.
        variant, rung: (n,) indices.
    """

    z: np.ndarray
    shifts: np.ndarray
    levels: np.ndarray
    depth: np.ndarray
    settings: np.ndarray
    variant: np.ndarray
    rung: np.ndarray

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, which: np.ndarray) -> Points:
        return Points(*(getattr(self, part.name)[which] for part in fields(self)))


class SmoothLevels:
    """The leading functions of a smooth random function over choices on a log axis; none for a single choice.

    Its covariance is exp(-d^2 / 2) over d decades; its mean over the choices is left to other parameters.
    """

    def __init__(self, choices: Sequence[int]) -> None:
        self._at = np.log10(np.array(choices, dtype=float))
        covariance = self._covariance(self._at)
        centring = np.eye(len(choices)) - 1 / len(choices)
        values, vectors = np.linalg.eigh(centring @ covariance @ centring)
        kept = np.argsort(-values)[: min(SMOOTHEST, len(choices) - 1)]
        basis = vectors[:, kept] * np.sqrt(np.maximum(values[kept], 0.0))
        self._weights = np.linalg.solve(covariance + 1e-6 * np.eye(len(choices)), basis)
        self._known: dict[int, np.ndarray] = {}

    @property
    def count(self) -> int:
        return self._weights.shape[1]

    def __call__(self, choice: int) -> np.ndarray:
        """(count,) values there, also between and beyond the choices."""
        if choice not in self._known:
            self._known[choice] = self._covariance(np.array([math.log10(choice)]))[0] @ self._weights
        return self._known[choice]

    def _covariance(self, at: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(-0.5 * (at[:, None] - self._at) ** 2))


@dataclass(frozen=True)
class _Static:
    """What does not depend on the rung."""

    z: float
    shifts: np.ndarray
    choices: np.ndarray
    lines: np.ndarray
    settings: np.ndarray
    variant: int


class Features:
    """Translates configurations, those of trials once, and says what is believed of every column's parameter.

    Args:
        space, traits: what is searched.
        coordinates: whose z is 0 where the best is expected.
        rungs: fractions of a full run.
        offset_sd: how far off that may be for all variants alike, in decades.
    """

    def __init__(
        self,
        space: Space,
        traits: Mapping[str, Traits],
        coordinates: Coordinates,
        rungs: tuple[float, ...],
        offset_sd: float,
    ) -> None:
        self.space, self.traits, self.coordinates, self.rungs = space, traits, coordinates, rungs
        self.names = list(traits)
        self._ranks, self._batches = SmoothLevels(space.rank), SmoothLevels(space.batch_size)
        self._mid_rank = float(np.mean(np.log10(space.rank)))
        self._mid_batch = float(np.mean(np.log10(space.batch_size)))
        self._own = max(len(space.options_of(name)) for name in self.names)
        self._options = [(name, option) for name in self.names for option in space.options_of(name)]
        self._known: dict[tuple[str, Config], _Static] = {}
        own = [traits[name].shift_sd for name in self.names]
        sds = [offset_sd, laws.EXPONENT_SD, RANK_EXPONENT_SD, BATCH_EXPONENT_SD, SHORT_RUN_SD, *own]
        self.shift_beliefs = np.array([(0.0, max(sd, LEAST_SD)) for sd in sds])
        choices = self._ranks.count + self._batches.count
        self.level_beliefs = np.array(
            [LEVEL]
            + [(0.0, RUNG_LEVEL_SD)] * len(rungs)
            + [(0.0, ALPHA_LEVEL_SD)]
            + [(0.0, OPTION_LEVEL_SD)] * len(self._options)
            + [(0.0, CHOICE_LEVEL_SD)] * choices
            + [(0.0, SHORT_CHOICE_LEVEL_SD)] * (choices * (len(rungs) - 1))
            + [(0.0, VARIANT_LEVEL_SD)] * len(self.names)
        )

    def points(self, variants: Iterable[str], configs: Iterable[Config], rungs: Sequence[int] | np.ndarray) -> Points:
        """Points of these variants, configurations and rungs, one of each, of trials: they are remembered."""
        return self._points([self._remembered(*pair) for pair in zip(variants, configs, strict=True)], rungs)

    def full(self, variant: str, configs: Sequence[Config]) -> Points:
        """Points of full runs of one variant, of configurations that may never be looked at again."""
        known = [self._known.get((variant, config)) or self._translated(variant, config) for config in configs]
        return self._points(known, [len(self.rungs) - 1] * len(configs))

    def _points(self, known: Sequence[_Static], rungs: Sequence[int] | np.ndarray) -> Points:
        rung = np.array(rungs, dtype=int)
        variant = np.array([static.variant for static in known], dtype=int)
        depth = np.log10(np.array(self.rungs))[rung]
        shifts = _stacked([static.shifts for static in known], 4)
        choices = _stacked([static.choices for static in known], self._ranks.count + self._batches.count)
        lines = _stacked([static.lines for static in known], 1 + len(self._options))
        everywhere = np.ones((len(known), 1))
        at, who = np.eye(len(self.rungs))[rung], np.eye(len(self.names))[variant]
        short = (at[:, :-1, None] * choices[:, None, :]).reshape(len(known), (len(self.rungs) - 1) * choices.shape[1])
        return Points(
            z=np.array([static.z for static in known]),
            shifts=np.concatenate([shifts, depth[:, None], who], axis=1),
            levels=np.concatenate([everywhere, at, lines, choices, short, who], axis=1),
            depth=depth,
            settings=_stacked([static.settings for static in known], 4 + self._own),
            variant=variant,
            rung=rung,
        )

    def _remembered(self, variant: str, config: Config) -> _Static:
        key = variant, config
        if key not in self._known:
            self._known[key] = self._translated(variant, config)
        return self._known[key]

    def _translated(self, variant: str, config: Config) -> _Static:
        traits = self.traits[variant]
        z, w = self.coordinates.z(traits, config), self.coordinates.w(traits, config)
        rank, batch = math.log10(config.rank) - self._mid_rank, math.log10(config.batch_size) - self._mid_batch
        # Where alpha is redundant the exponent is known: no error of it moves the best.
        scale = 0.0 if traits.alpha_redundant else math.log10(traits.scale(config.alpha, config.rank))
        places = self._option_places(variant, config)
        own = [place / OPTION_LENGTH for place in places.values()] + [0.0] * (self._own - len(places))
        lines = [places.get(option, 0.5) - 0.5 if name == variant else 0.0 for name, option in self._options]
        return _Static(
            z,
            np.array([1.0, -scale, rank, batch]),
            np.concatenate([self._ranks(config.rank), self._batches(config.batch_size)]),
            np.array([w, *lines]),
            np.array([z / RATE_LENGTH, rank / CHOICE_LENGTH, batch / CHOICE_LENGTH, w / ALPHA_LENGTH, *own]),
            self.names.index(variant),
        )

    def _option_places(self, variant: str, config: Config) -> dict[str, float]:
        """Place of each of the variant's options among its choices, 0 to 1."""
        given = dict(config.options)
        return {name: _place(values, given.get(name)) for name, values in self.space.options_of(variant).items()}


def _stacked(rows: list[np.ndarray], width: int) -> np.ndarray:
    """(rows, width), also of none."""
    return np.array(rows).reshape(len(rows), width)


def _place(choices: Sequence[float], value: object) -> float:
    """The middle for a value that is no choice, as a baseline may have."""
    return choices.index(value) / max(1, len(choices) - 1) if value in choices else 0.5
