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
    be best there. The others lie a step below and above it. There is no opening where a full run is the shortest there
    is, and it ends where its setting cannot be trained, for lack of memory.

    Args:
        scope: of the variant.
        prior, coordinates: of the search.
        table: all trials; those that run count, so that several workers get different ones.
        ceiling: z at which the variant is known to diverge.
    """
    if len(table.rungs) == 1:
        return None
    assert scope.variant is not None
    begun = [trial for trial in table.of(scope.variant) if trial.purpose == "search"]
    cannot_train = any(trial.outcome == "infeasible" for trial in begun)
    if cannot_train or len(begun) >= SHORT_RUNS:
        return None
    mode = prior.mode(*scope)
    if not begun:
        return (mode, "prior's mode") if mode not in table.tried(scope.variant) else None
    first = coordinates.z(scope.traits, begun[0].config)
    for off in (-STEP, STEP, -2 * STEP, 2 * STEP):
        config = mode.replaced(learning_rate=LEARNING_RATE.at(scope, mode, coordinates, first + off))
        if first + off < ceiling and config not in table.tried(scope.variant):
            return config, f"opening: {abs(off):.2f} decades {'above' if off > 0 else 'below'} the first"
    return None
