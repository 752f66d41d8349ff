"""Scaling laws of alpha and of the learning rate, each a function of plain numbers with its source.

Units: learning rates are peaks of AdamW schedules; batches and lengths are training examples, lengths those of a full
run; widths are hidden sizes. ``s`` is the factor in ``y = W x + s B A x``, ``r`` the rank. Factors are in decades,
log10 of what they multiply the best learning rate by, so that laws are combined by adding.
"""

from __future__ import annotations

import math

ALPHA_EMPIRICAL = 256.0
FULL_FINE_TUNING_RATE = 2e-5
"""The usual learning rate of full fine-tuning for models of hidden size in the thousands (1e-5 to 5e-5)."""

REFERENCE_WIDTH = 4096
REFERENCE_LENGTH = 100_000
REFERENCE_BATCH = 128

SCALE_EXPONENT = 0.75
RANK_EXPONENT = -0.5
BATCH_EXPONENT = 0.5
LENGTH_EXPONENT = -0.26
WIDTH_EXPONENT = -0.5

MODEL_AND_TASK_SD = 0.35
"""Decades between models and tasks once the laws are applied: +0.3 for Gemma-3-1B, -0.5 for Qwen3-0.6B."""

WIDTH_SD, LENGTH_SD, EXPONENT_SD = 0.25, 0.13, 0.25
"""How uncertain the exponents of width, length and s are: about half of the first two."""


def empirical_alpha(rank: int) -> float:
    """alpha = 256 sqrt(r), Variant I of LoRA-alpha's square-root law, for hidden sizes in the thousands."""
    return ALPHA_EMPIRICAL * math.sqrt(rank)


def analytic_alpha(rank: int, width: int) -> float:
    """alpha = sqrt(r / var(A0)), Variant II of LoRA-alpha's law: LoRA's signal curvature at initialization is then that
    of full fine-tuning. Kaiming-uniform A, bound 1/sqrt(n), has variance 1/(3 n), so alpha = sqrt(3 n r)."""
    return math.sqrt(3 * width * rank)


def scale_factor(scaling: float, exponent: float) -> float:
    """eta ~ s^-p. p = 1 while B alone moves (B0 = 0, small eta) and 1/2 once A moves as much; 1/2 exactly, and alpha
    redundant under Adam, where both factors carry 1/sqrt(s) (PiSSA, MiLoRA).

    LoRA-alpha's law links large models' best rates at s = 64 and s = 1 with p about 1; the runs of studies/curves, on
    small models, give 0.52 and 0.64. The default lies between, with EXPONENT_SD to either side.
    """
    return -exponent * math.log10(scaling)


def rank_factor(rank: int) -> float:
    """eta ~ r^-1/2 at fixed s (LoRA-alpha). LR-matters' tables: r^-0.64 from two ranks, 5.6x from r = 4 to 256; the
    runs of studies/curves: r^-0.47 and r^-0.50."""
    return RANK_EXPONENT * math.log10(rank)


def batch_factor(batch_size: int) -> float:
    """eta ~ b^1/2, Adam's square-root rule; a regression over LR-matters' tables gives 0.52 (arXiv 2602.04998). Less
    where a larger batch leaves few steps: 0.32 and 0.07 from 100 to 25 steps in studies/curves."""
    return BATCH_EXPONENT * math.log10(batch_size)


def length_factor(examples: int) -> float:
    """eta ~ T^-0.26 between full runs: 3.1x from 395k down to 5k examples (LR-matters). It does not say how a long run
    does when it is cut short."""
    return LENGTH_EXPONENT * math.log10(examples / REFERENCE_LENGTH)


def width_factor(width: int) -> float:
    """eta ~ n^-1/2: full fine-tuning's rate falls as 1/n, and the analytic alpha0 = sqrt(3 n) rises as sqrt(n)."""
    return WIDTH_EXPONENT * math.log10(width / REFERENCE_WIDTH)


def log_centre(width: int | None, length: int | None) -> float:
    """log10 of plain LoRA's best learning rate at s = r = b = 1.

    256 x 2e-5, alpha0 times a full fine-tuning rate, at batch 128, width 4096 and 100,000 examples, carried to another
    batch, width and length. An unknown width or length leaves its factor out.
    """
    centre = math.log10(ALPHA_EMPIRICAL * FULL_FINE_TUNING_RATE) - batch_factor(REFERENCE_BATCH)
    if width is not None:
        centre += width_factor(width)
    if length is not None:
        centre += length_factor(length)
    return centre


def centre_sd(width: int | None, length: int | None) -> float:
    """Standard deviation of :func:`log_centre` in decades: wider, the further it is carried from the reference."""
    variance = MODEL_AND_TASK_SD**2
    if width is not None:
        variance += (WIDTH_SD * math.log10(width / REFERENCE_WIDTH)) ** 2
    if length is not None:
        variance += (LENGTH_SD * math.log10(length / REFERENCE_LENGTH)) ** 2
    return math.sqrt(variance)
