"""Scaling laws of the learning rate, each a function of plain numbers with its source.

Units: learning rates are peaks of AdamW schedules; lengths are training examples of a full run; widths are hidden
sizes. Notation as in :mod:`autolora.space`, which holds the law of alpha.
"""

from __future__ import annotations

import math

FULL_FINE_TUNING_RATE = 2e-5
"""The usual learning rate of full fine-tuning for models of hidden size in the thousands (1e-5 to 5e-5)."""

REFERENCE_WIDTH = 4096
REFERENCE_LENGTH = 100_000
REFERENCE_BATCH = 128

LENGTH_EXPONENT = -0.26
"""The best learning rate falls 3.1x from 5k to 395k examples, full runs each (LR-matters, arXiv 2602.04998)."""

WIDTH_EXPONENT = -0.5
"""Full fine-tuning's rate falls as 1/n and the analytic alpha0 = sqrt(3 n) rises as sqrt(n); their product remains."""

BATCH_EXPONENT = 0.5
"""Square-root rule of Adam; a regression over LR-matters' tables gives 0.52."""

MODEL_AND_TASK_SD = 0.35
"""Decades between models and tasks once the laws are applied: +0.3 for Gemma-3-1B, -0.5 for Qwen3-0.6B."""

WIDTH_SD, LENGTH_SD, EXPONENT_SD = 0.25, 0.13, 0.3
"""How uncertain the exponents of width, length and s are: about half of the first two, 0.3 for p."""


def log_centre(width: int | None, length: int | None) -> float:
    """log10 of plain LoRA's best learning rate at s = r = b = 1.

    ``eta* = C / (s sqrt(r)) sqrt(b / 128)`` with ``C = 256 x 2e-5`` at width 4096 and 100,000 examples, carried to
    another width and length by their exponents. An unknown width or length leaves its factor out.
    """
    centre = math.log10(256 * FULL_FINE_TUNING_RATE) - BATCH_EXPONENT * math.log10(REFERENCE_BATCH)
    if width is not None:
        centre += WIDTH_EXPONENT * math.log10(width / REFERENCE_WIDTH)
    if length is not None:
        centre += LENGTH_EXPONENT * math.log10(length / REFERENCE_LENGTH)
    return centre


def centre_sd(width: int | None, length: int | None) -> float:
    """Standard deviation of :func:`log_centre` in decades: wider, the further it is carried from the reference."""
    variance = MODEL_AND_TASK_SD**2
    if width is not None:
        variance += (WIDTH_SD * math.log10(width / REFERENCE_WIDTH)) ** 2
    if length is not None:
        variance += (LENGTH_SD * math.log10(length / REFERENCE_LENGTH)) ** 2
    return math.sqrt(variance)
