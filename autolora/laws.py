"""Scaling laws of alpha and of the learning rate, each a function of plain numbers with its source.

Units: learning rates are peaks of AdamW schedules; batches and lengths are training examples, lengths those of a full
run; widths are hidden sizes. ``s`` is the factor in ``y = W x + s B A x``, ``r`` the rank. Factors are in decades,
log10 of what they multiply the best learning rate by, so that laws are combined by adding.

The constants are those of studies/laws, rounded: one fit to all tables at hand, with an offset of its own for every
model and task. The tables: a fine-tuning sweep of 17 models of 1B to 1T parameters over learning rate and rank
(tinker-cookbook; tulu3; its hosted service is believed to have alpha 32), tables 6 to 8 of LR-matters (arXiv
2602.04998; Qwen3-0.6B and Gemma-3-1B, five variants), and studies/curves (small models, all of the dimensions). Each
standard deviation is no smaller than the fit's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

ALPHA_EMPIRICAL = 256.0
FULL_FINE_TUNING_RATE = 2e-5
"""The usual learning rate of full fine-tuning for models of hidden size in the thousands (1e-5 to 5e-5)."""

REFERENCE_WIDTH = 4096
REFERENCE_LENGTH = 100_000
REFERENCE_BATCH = 128
REFERENCE_RANK = 16

LOG_RATE = -3.2
"""log10 of plain LoRA's best learning rate at the reference and s = 1: 6.3e-4. The fit: -3.18, give or take 0.05. With
LoRA-alpha's s = 256 / sqrt(r) it is a rate of full fine-tuning, 2e-5 to 5e-5, as that law has it."""
MODEL_AND_TASK_SD = 0.3
"""Decades between models and tasks once the laws are applied. The fit: 0.25, from 23; base and instruct models, dense
ones and mixtures of experts among them. Qwen3-0.6B lies 0.6 below what is expected of it, Gemma-3-1B 0.3 above."""

SCALE_EXPONENT, SCALE_SD = 0.73, 0.15
RANK_EXPONENT, RANK_SD = -0.55, 0.1
BATCH_EXPONENT, BATCH_SD = 0.5, 0.1
LENGTH_EXPONENT, LENGTH_SD = -0.35, 0.1
WIDTH_EXPONENT, WIDTH_SD = -0.55, 0.15

UNKNOWN_WIDTH_SD, UNKNOWN_LENGTH_SD = 0.3, 0.6
"""Decades by which widths and lengths differ among what is usually trained: 1000 to 8000, and 1000 to 300,000."""

EVIDENCE: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "large models": {
        "hidden_size": (1024, 8192),
        "examples": (99_840, 100_000),
        "batch_size": (16, 128),
        "rank": (1, 128),
        "scale": (0.25, 32),
    },
    "small models": {
        "hidden_size": (64, 160),
        "examples": (400, 1200),
        "batch_size": (1, 8),
        "rank": (2, 64),
        "scale": (1, 32),
    },
}
"""Lowest and highest of what the laws were fitted on. Width and length differ together between the two kinds, so that
the fit knows their joint effect better than either: what lies between rests on beliefs about the exponents."""


def evidence(width: int | None) -> tuple[str, Mapping[str, tuple[float, float]]]:
    """The kind of models in the evidence that is nearest to a width, and its ranges; unknown: large ones."""
    edge = math.sqrt(EVIDENCE["small models"]["hidden_size"][1] * EVIDENCE["large models"]["hidden_size"][0])
    kind = "large models" if width is None or width >= edge else "small models"
    return kind, EVIDENCE[kind]


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

    The fit: 0.73, from the sweep, where s falls as 1/r, and from runs of studies/curves at several alphas.
    """
    return -exponent * math.log10(scaling)


def rank_factor(rank: int) -> float:
    """eta ~ r^-1/2 at fixed s (LoRA-alpha). The fit: -0.55. LR-matters measures 5.6x from r = 4 to 256, r^-0.41."""
    return RANK_EXPONENT * math.log10(rank)


def batch_factor(batch_size: int) -> float:
    """eta ~ b^1/2, Adam's square-root rule. The fit: 0.50, of runs of 100 optimizer steps and more; LR-matters' tables
    alone 0.52. Less where a larger batch leaves few steps: 0.32 and 0.07 from 100 to 25 steps in studies/curves."""
    return BATCH_EXPONENT * math.log10(batch_size)


def length_factor(examples: int) -> float:
    """eta ~ T^-0.35 between full runs, by the fit; LR-matters has 3.1x from 395k down to 5k examples, T^-0.26. It does
    not say how a long run does when it is cut short."""
    return LENGTH_EXPONENT * math.log10(examples / REFERENCE_LENGTH)


def carried(ratio: float) -> float:
    """What :func:`length_factor` says of a run ``ratio`` times as long."""
    return LENGTH_EXPONENT * math.log10(ratio)


def width_factor(width: int) -> float:
    """eta ~ n^-0.55, by the fit. Full fine-tuning's rate falls as 1/n, and the analytic alpha0 = sqrt(3 n) rises as
    sqrt(n): -1/2. Within the sweep alone, of 2048 to 8192, it is less, about -0.25."""
    return WIDTH_EXPONENT * math.log10(width / REFERENCE_WIDTH)


def log_centre(width: int | None, length: int | None) -> float:
    """log10 of plain LoRA's best learning rate at s = r = b = 1, carried there from the reference.

    An unknown width or length leaves its factor out.
    """
    centre = LOG_RATE - batch_factor(REFERENCE_BATCH) - rank_factor(REFERENCE_RANK)
    if width is not None:
        centre += width_factor(width)
    if length is not None:
        centre += length_factor(length)
    return centre


def centre_sd(width: int | None, length: int | None) -> float:
    """Standard deviation of :func:`log_centre` in decades.

    Wider, the further it is carried from the reference, and where width or length are not known. The two exponents are
    taken for independent, which makes it too wide for small models trained on little, as those of the evidence.
    """
    of_width = WIDTH_EXPONENT * UNKNOWN_WIDTH_SD if width is None else WIDTH_SD * math.log10(width / REFERENCE_WIDTH)
    of_length = (
        LENGTH_EXPONENT * UNKNOWN_LENGTH_SD if length is None else LENGTH_SD * math.log10(length / REFERENCE_LENGTH)
    )
    return math.hypot(MODEL_AND_TASK_SD, of_width, of_length)


def setting_sd(batch_size: int, rank: int) -> float:
    """What the exponents of batch size and rank add to it, in decades: nothing at the reference."""
    of_batch, of_rank = math.log10(batch_size / REFERENCE_BATCH), math.log10(rank / REFERENCE_RANK)
    return math.hypot(BATCH_SD * of_batch, RANK_SD * of_rank)
