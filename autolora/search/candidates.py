"""Configurations worth judging by the surrogate: where its members see the best, near the best so far, and anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from autolora.priors.prior import Prior, uniform_sample
from autolora.search.surrogate import Surrogate
from autolora.search.trials import Trial, TrialTable
from autolora.space import Config, Coordinates, Scope, drawing_order
from autolora.space.dimension import UNSET
from autolora.space.dimensions.learning_rate import LEARNING_RATE

OPTIMA, NEIGHBORS, ANYWHERE, LISTED = 100, 48, 25, 100
"""How many of each kind; LISTED of a finite space, a random part of it."""
OPTIMUM_SD = 0.15
"""Decades around a member's best rate."""
SAFE = 0.1
"""Decades below a member's best rate where its candidates are centered: too low costs little, too high a run."""
NEIGHBORED = 6
"""Trials that get neighbors."""


def candidates(
    rng: np.random.Generator,
    scope: Scope,
    prior: Prior | None,
    surrogate: Surrogate,
    coordinates: Coordinates,
    table: TrialTable,
) -> list[Config]:
    """Different configurations of one variant's space, in the order they were drawn."""
    assert scope.variant is not None
    drawn = [
        *_optima(rng, scope, surrogate, coordinates),
        *_neighbors(rng, scope, coordinates, _best_trials(table, scope.variant)),
    ]
    for _ in range(ANYWHERE):
        drawn.append(uniform_sample(rng, *scope))
        if prior is not None:
            drawn.append(prior.sample(rng, *scope))
    finite = scope.space.enumerate(scope.traits, scope.variant)
    if finite is not None:
        listed = list(finite)
        drawn += [listed[place] for place in rng.permutation(len(listed))[:LISTED]]
    return list(dict.fromkeys(drawn))


def _optima(rng: np.random.Generator, scope: Scope, surrogate: Surrogate, coordinates: Coordinates) -> Iterator[Config]:
    """Around the best learning rate that a member sees at random values of the other dimensions."""
    assert scope.variant is not None
    settings = [uniform_sample(rng, *scope) for _ in range(OPTIMA)]
    members = rng.choice(len(surrogate.weights), size=OPTIMA, p=surrogate.weights)
    best = surrogate.best_z(scope.variant, settings)[members, np.arange(OPTIMA)]
    for setting, z in zip(settings, best - SAFE + OPTIMUM_SD * rng.standard_normal(OPTIMA), strict=True):
        yield setting.replaced(learning_rate=LEARNING_RATE.at(scope, setting, coordinates, float(z)))


def _neighbors(
    rng: np.random.Generator, scope: Scope, coordinates: Coordinates, trials: Sequence[Trial]
) -> Iterator[Config]:
    for trial in trials:
        for _ in range(NEIGHBORS // len(trials)):
            config = UNSET
            for dimension in drawing_order(scope.space):
                value = dimension.near(rng, scope, config, trial.config, coordinates)
                config = config.replaced(**{dimension.name: value})
            yield config


def _best_trials(table: TrialTable, variant: str) -> list[Trial]:
    """The longest runs first, of those the best."""
    scored = table.complete(variant)
    if len(scored) < NEIGHBORED:
        scored = [trial for trial in table.of(variant) if trial.healthy and trial.scores]
    return sorted(scored, key=lambda trial: (-trial.reached, table.sign * trial.scores[trial.reached]))[:NEIGHBORED]
