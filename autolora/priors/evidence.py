"""From measurements to evidence: what curvature, a range test, the user or an earlier study say, in decades."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

from autolora import laws
from autolora.priors.prior import CENTRE, Evidence
from autolora.priors.probe import RangeTest
from autolora.priors.sharpness import Curvature
from autolora.space import Config, Coordinates, Traits

REFERENCE = "lora"
"""The variant that shifts are relative to."""

CURVATURE_EXPONENT, CURVATURE_SD = 0.5, 0.2
"""eta_v = eta_LoRA (lambda_LoRA / lambda_v)^p. studies/curvature fits p = 0.49 with a residual of 0.09 decades on two
small models; the spread is wider because there are but two."""

PROBE_OFFSET, PROBE_SD = -0.5, 0.25
"""log10 of the best rate of a full run of PROBE_RUN_STEPS steps, relative to the middle between the range test's lowest
loss and its edge: -0.63 and -0.44 for plain LoRA on the two models of studies/curvature."""
PROBE_RUN_STEPS = 100

USER_SD = 0.3
STUDY_SD = 0.2
"""How well a finished search has located a best, in decades."""


def from_curvature(found: Mapping[str, Curvature]) -> list[Evidence]:
    """Shifts of the variants from their curvature relative to plain LoRA's, which ``found`` must hold."""
    reference = found[REFERENCE].per_type
    ratios = {name: log_ratio(curvature.per_type, reference) for name, curvature in found.items() if name != REFERENCE}
    return [
        Evidence("curvature", name, -CURVATURE_EXPONENT * ratio, CURVATURE_SD)
        for name, ratio in ratios.items()
        if ratio is not None
    ]


def log_ratio(per_type: Mapping[str, float], reference: Mapping[str, float]) -> float | None:
    """Mean over matrix types of log10 lambda / lambda of the reference; None where no type has any curvature.

    Type by type, because medians over all blocks would mix matrix types. A type all of whose layers a variant leaves
    out does not count.
    """
    ratios = [
        math.log10(value / reference[kind]) for kind, value in per_type.items() if value > 0 and reference[kind] > 0
    ]
    return fmean(ratios) if ratios else None


def from_range_test(test: RangeTest, traits: Traits, full_run_steps: int) -> Evidence:
    """The centre from a conclusive range test of a variant: half-way, in decades, from the lowest loss to the edge.

    Args:
        test: see :class:`autolora.priors.probe.RangeTest`.
        traits: of the variant that was tested.
        full_run_steps: optimizer steps of a full run at the test's batch size; the length law carries the offset from
            the runs that it was measured on.
    """
    well = 0.5 * (math.log10(test.lowest) + math.log10(test.edge))
    length = laws.LENGTH_EXPONENT * math.log10(full_run_steps / PROBE_RUN_STEPS)
    carried = laws.LENGTH_SD * math.log10(full_run_steps / PROBE_RUN_STEPS)
    eta = 10 ** (well + PROBE_OFFSET + length)
    return Evidence(
        "probe", CENTRE, implied_centre(traits, test.config, eta), math.hypot(PROBE_SD, carried, traits.shift_sd)
    )


def from_user(eta: float, sd: float, traits: Traits, config: Config) -> Evidence:
    """The centre from a learning rate expected of plain LoRA at the batch size, rank and alpha of ``config``."""
    return Evidence("user", CENTRE, implied_centre(traits, config, eta), sd)


def from_study(
    best: Mapping[str, Config],
    traits: Mapping[str, Traits],
    then: tuple[int | None, int | None],
    now: tuple[int | None, int | None],
    same_task: bool,
) -> list[Evidence]:
    """Centre and shifts from the tuned configurations of an earlier study.

    Args:
        best: by variant; at least one. Shifts follow only where plain LoRA is among them.
        traits: of these variants.
        then, now: (width, length of a full run) of that study and of this; the laws carry the centre where both sides
            are known.
        same_task: the model and the data are the same; else the spread between models and tasks is added.
    """
    centres = {name: implied_centre(traits[name], config, config.learning_rate) for name, config in best.items()}
    shifts = []
    if REFERENCE in centres:
        centre, sd = centres[REFERENCE], STUDY_SD
        shifts = [
            Evidence("study", name, traits[name].shift + found - centre, math.sqrt(2) * STUDY_SD)
            for name, found in centres.items()
            if name != REFERENCE
        ]
    else:
        weights = {name: 1 / (STUDY_SD**2 + traits[name].shift_sd ** 2) for name in best}
        total = sum(weights.values())
        centre, sd = sum(weights[name] * centres[name] for name in best) / total, total**-0.5
    (width_then, length_then), (width, length) = then, now
    if width_then and width:
        centre += laws.width_factor(width) - laws.width_factor(width_then)
        sd = math.hypot(sd, laws.WIDTH_SD * math.log10(width / width_then))
    if length_then and length:
        centre += laws.length_factor(length) - laws.length_factor(length_then)
        sd = math.hypot(sd, laws.LENGTH_SD * math.log10(length / length_then))
    if not same_task:
        sd = math.hypot(sd, laws.MODEL_AND_TASK_SD)
    return [Evidence("study", CENTRE, centre, sd), *shifts]


def implied_centre(traits: Traits, config: Config, eta: float) -> float:
    """The centre under which ``eta`` is the best learning rate of a variant at a batch size, rank and alpha."""
    origin = Coordinates(0.0).learning_rate(traits, 0.0, config.batch_size, config.rank, config.alpha)
    return math.log10(eta / origin)
