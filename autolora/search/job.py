"""The unit of work that a search hands out."""

from __future__ import annotations

from dataclasses import dataclass

from autolora.space import Config


@dataclass(frozen=True)
class Job:
    """Train ``trial`` from ``start`` to ``stop`` (fractions of its full run), then report its score.

    Attributes:
        trial: number of the trial; the same one comes back with a larger ``stop`` when it is promoted.
        variant, config: what to train.
        seed: 0 for every searched trial, so that they are compared on the same data order; 1, 2, ... to confirm.
        start: fraction trained when the job was made. A checkpoint may be further on, or gone.
        stop: fraction to train to; 1.0 is the end of the run.
        rung: index of ``stop`` among the rungs.
        length: of the trial's full run, as a share of the longest that is searched; 1.0 unless durations are.
    """

    trial: int
    variant: str
    config: Config
    seed: int
    start: float
    stop: float
    rung: int
    length: float = 1.0
