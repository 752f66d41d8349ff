"""Configurations as the numbers that the surrogate sees, in scaling-law coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from autolora.space import Config, Coordinates, Space, Traits, drawing_order
from autolora.space.dimension import Encoding
from autolora.space.dimensions.learning_rate import LEARNING_RATE
from autolora.space.encoder import Encoder

LEAST_SD = 1e-3
"""Decades; a belief that is sure, as of plain LoRA's own shift, is taken to be as good as sure."""
SHORT_RUN_SD = 0.15
"""Decades by which the best rate of a run cut to a tenth may lie off; either sign, as real runs show both: 0.12 to 0.16
at a ninth, on the curves of studies/curves."""

LEVEL, RUNG_LEVEL_SD = (-1.0, 25.0), 10.0
"""Mean and sd of the best possible score, from the best seen, in units of the response; and how much that differs
between rungs. As good as unknown: a first trial may be anywhere, and alone does not tell where the best is."""
CHOICE_SD, SHORT_CHOICE_SD = 5.0, 2.0
"""Standard deviation of the logarithm of what a choice costs, before close choices are made alike: between batch sizes
of 8 and 32 a factor of 4 to either side remains. The second is what short runs add: a large batch may leave them too
few steps to learn anything."""
VARIANT_LEVEL_SD = 0.5
"""Between variants, which tuned fairly end within 1 to 2% (LR-matters)."""


@dataclass(frozen=True)
class Points:
    """Where scores are, n of them.

    Attributes:
        z: (n,) scaling-law coordinate of the learning rate, in decades.
        shifts: (n, L) what moves the best z, times its column of parameters.
        levels: (n, V) what moves the score at the best z, likewise.
        choices: (n, Q) what multiplies the cost of a choice, by the exponential of its product with their parameters.
        depth: (n,) log10 of the share of the trial's own run, 0 at its end.
        settings: (n, S) coordinates in which what the laws do not explain is smooth over a distance of 1.
        variant, rung: (n,) indices.
    """

    z: np.ndarray
    shifts: np.ndarray
    levels: np.ndarray
    choices: np.ndarray
    depth: np.ndarray
    settings: np.ndarray
    variant: np.ndarray
    rung: np.ndarray

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, which: np.ndarray) -> Points:
        return Points(*(getattr(self, part.name)[which] for part in fields(self)))


@dataclass(frozen=True)
class _Static:
    """What does not depend on the rung."""

    z: float
    shifts: np.ndarray
    choices: np.ndarray
    lines: np.ndarray
    ends: np.ndarray
    decays: np.ndarray
    settings: np.ndarray
    variant: int
    length: float


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
        self.coordinates, self.rungs = coordinates, rungs
        self.names = list(traits)
        encoding = Encoding(space, traits, coordinates, offset_sd)
        self._rate = LEARNING_RATE.encoder(encoding)
        others = [dimension for dimension in drawing_order(space) if dimension is not LEARNING_RATE]
        # The learning rate first: the first shift is the offset that all variants share.
        self._encoders: list[Encoder] = [self._rate, *(dimension.encoder(encoding) for dimension in others)]
        self._known: dict[tuple[str, Config], _Static] = {}
        own = [traits[name].shift_sd for name in self.names]
        of_settings = [sd for encoder in self._encoders for sd in encoder.shift_sds]
        self.shift_beliefs = np.array([(0.0, max(sd, LEAST_SD)) for sd in [*of_settings, SHORT_RUN_SD, *own]])
        self._shifts = len(of_settings)
        lines = [sd for encoder in self._encoders for sd in encoder.line_sds]
        self._lines, self._choices = len(lines), sum(encoder.choice_count for encoder in self._encoders)
        ends = [belief for encoder in self._encoders for belief in encoder.end_beliefs]
        decays = [belief for encoder in self._encoders for belief in encoder.decay_beliefs]
        self._ends, self._decays = len(ends), len(decays)
        self._width = sum(encoder.width for encoder in self._encoders)
        self._length = space.length
        self.level_beliefs = np.array(
            [LEVEL]
            + [(0.0, RUNG_LEVEL_SD)] * len(rungs)
            + [(0.0, sd) for sd in lines]
            + ends
            + [(0.0, VARIANT_LEVEL_SD)] * len(self.names)
        )
        short = self._choices * (len(rungs) - 1)
        self.choice_beliefs = np.array([(0.0, CHOICE_SD)] * self._choices + decays + [(0.0, SHORT_CHOICE_SD)] * short)

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
        lengths = np.array([static.length for static in known])
        depth = np.minimum(np.log10(np.array(self.rungs))[rung] - lengths, 0.0)
        shifts = _stacked([static.shifts for static in known], self._shifts)
        choices = _stacked([static.choices for static in known], self._choices)
        lines = _stacked([static.lines for static in known], self._lines)
        ends = _stacked([static.ends for static in known], self._ends)
        decays = _stacked([static.decays for static in known], self._decays)
        everywhere = np.ones((len(known), 1))
        at, who = np.eye(len(self.rungs))[rung], np.eye(len(self.names))[variant]
        short = (at[:, :-1, None] * choices[:, None, :]).reshape(len(known), (len(self.rungs) - 1) * choices.shape[1])
        return Points(
            z=np.array([static.z for static in known]),
            shifts=np.concatenate([shifts, depth[:, None], who], axis=1),
            levels=np.concatenate([everywhere, at, lines, at[:, -1:] * ends, who], axis=1),
            choices=np.concatenate([choices, at[:, -1:] * decays, short], axis=1),
            depth=depth,
            settings=_stacked([static.settings for static in known], self._width),
            variant=variant,
            rung=rung,
        )

    def _remembered(self, variant: str, config: Config) -> _Static:
        key = variant, config
        if key not in self._known:
            self._known[key] = self._translated(variant, config)
        return self._known[key]

    def _translated(self, variant: str, config: Config) -> _Static:
        encoders = self._encoders
        return _Static(
            z=self._rate.z(variant, config),
            shifts=np.array([shift for encoder in encoders for shift in encoder.shifts(variant, config)]),
            choices=np.concatenate([encoder.choices(config) for encoder in encoders]),
            lines=np.array([line for encoder in encoders for line in encoder.lines(variant, config)]),
            ends=np.array([end for encoder in encoders for end in encoder.ends(variant, config)]),
            decays=np.array([decay for encoder in encoders for decay in encoder.decays(variant, config)]),
            settings=np.array([setting for encoder in encoders for setting in encoder.settings(variant, config)]),
            variant=self.names.index(variant),
            length=math.log10(self._length(config)),
        )


def _stacked(rows: list[np.ndarray], width: int) -> np.ndarray:
    """(rows, width), also of none."""
    return np.array(rows).reshape(len(rows), width)
