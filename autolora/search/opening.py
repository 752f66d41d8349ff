"""The short runs that a variant begins with: where the best is expected, and beside it.

A ninth of a run already tells ranks and batch sizes apart, and a wrong learning rate costs a ninth there instead of a
whole run. So nothing is trained on before short runs have spoken. That they are three, at one setting, is a rule:
expected improvement alone begins with fewer of them and does worse, see studies/search. Among full runs it does better
than any rule that was tried: variants then begin at different rates, and teach one another.
"""

from __future__ import annotations

from autolora.priors.prior import Prior
from autolora.search.trials import TrialTable
from autolora.space import Config, Coordinates, Scope
from autolora.space.dimensions.learning_rate import LEARNING_RATE

SHORT_RUNS = 3
STEP = 0.25
"""Decades from the first to those beside it: half of the median width within 2% of the best (LR-matters' tables)."""


def next_short_run(
    scope: Scope, prior: Prior, coordinates: Coordinates, table: TrialTable, ceiling: float
) -> tuple[Config, str] | None:
    """The next short run of a variant's opening with the reason for it; None if the opening is over.

    The first is the prior's mode: the largest rank, the smallest batch size, and the learning rate that is expected to
    be best there. The others lie a step below and above it, as far as the searched rates go. There is no opening where
    a full run is the shortest there is. It ends where its setting cannot be trained, for lack of memory, and where the
    model has begun, as in a study of an earlier version.

    Args:
        scope: of the variant.
        prior, coordinates: of the search.
        table: all trials. Those that run count, so that several workers get different ones, and so does a baseline at
            the opening's setting.
        ceiling: z at which the variant is known to diverge.
    """
    if len(table.rungs) == 1:
        return None
    assert scope.variant is not None
    mode = prior.mode(*scope)
    trials = [trial for trial in table.of(scope.variant) if trial.first]
    here = [trial for trial in trials if trial.config.replaced(learning_rate=mode.learning_rate) == mode]
    model_has_begun = any(trial.purpose == "search" and trial not in here for trial in trials)
    cannot_train = any(trial.outcome == "infeasible" for trial in here)
    if model_has_begun or cannot_train or len(here) >= SHORT_RUNS:
        return None
    first = coordinates.z(scope.traits, mode)
    for off in (0.0, -STEP, STEP, -2 * STEP, 2 * STEP):
        rate = LEARNING_RATE.at(scope, mode, coordinates, first + off) if off else mode.learning_rate
        config = mode.replaced(learning_rate=rate)
        z = coordinates.z(scope.traits, config)
        if z < ceiling and config not in table.tried(scope.variant):
            return config, _reason(z - first)
    return None


def _reason(off: float) -> str:
    if not off:
        return "prior's mode"
    return f"opening: {abs(off):.2f} decades {'above' if off > 0 else 'below'} the prior's mode"
