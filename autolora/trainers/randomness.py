"""Generators of a training, each a function of the study's seed, the trial's and a purpose; no global state."""

from __future__ import annotations

import numpy as np

ORDER, INITIALIZATION, STEP, EVALUATION, TRAINING, LOADING = 1, 2, 3, 4, 5, 6
"""What randomness is drawn for."""


def generator(study_seed: int, seed: int, *purpose: int) -> np.random.Generator:
    """The generator for a purpose.

    Args:
        study_seed: of the study.
        seed: of the trial.
        purpose: one of the constants above, and what else tells it apart, such as the step.
    """
    return np.random.default_rng([study_seed, seed, *purpose])


def torch_seed(study_seed: int, seed: int, *purpose: int) -> int:
    """A seed for torch, drawn from :func:`generator`."""
    return int(generator(study_seed, seed, *purpose).integers(2**31))
