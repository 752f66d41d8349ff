"""Configurations worth judging by the surrogate: where its members see the best, near the best so far, and anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from autolora.priors.prior import Choice, Prior, any_of, nearest_rate, uniform_sample
from autolora.search.surrogate import Surrogate
from autolora.search.trials import Trial, TrialTable
from autolora.space import Config, Coordinates, Options, Range, Space, Traits

OPTIMA, NEIGHBOURS, ANYWHERE, LISTED = 100, 48, 25, 100
"""How many of each kind; LISTED of a finite space, a random part of it."""
OPTIMUM_SD, NEIGHBOUR_SD, NEIGHBOUR_ALPHA_SD = 0.15, 0.2, 0.5
"""Decades, decades and octaves around a member's best rate and around a trial."""
SAFE = 0.1
"""Decades below a member's best rate where its candidates are centred: too low costs little, too high a run."""
NEIGHBOURED = 6
"""Trials that get neighbours."""
KEEP_CHOICE = 0.5
"""Chance that a neighbour keeps each of its trial's choices."""


def candidates(
    rng: np.random.Generator,
    space: Space,
    variant: str,
    traits: Traits,
    prior: Prior | None,
    surrogate: Surrogate,
    coordinates: Coordinates,
    table: TrialTable,
) -> list[Config]:
    """Different configurations of the space, in the order they were drawn."""
    choices = space.options_of(variant)
    drawn = [
        *_optima(rng, space, variant, traits, surrogate, coordinates),
        *_neighbours(rng, space, traits, coordinates, _best_trials(table, variant), choices),
    ]
    for _ in range(ANYWHERE):
        drawn.append(_with_options(rng, uniform_sample(rng, space, traits), choices))
        if prior is not None:
            drawn.append(_with_options(rng, prior.sample(rng, space, traits), choices))
    finite = space.enumerate(traits, variant)
    if finite is not None:
        listed = list(finite)
        drawn += [listed[place] for place in rng.permutation(len(listed))[:LISTED]]
    return list(dict.fromkeys(drawn))


def _optima(
    rng: np.random.Generator,
    space: Space,
    variant: str,
    traits: Traits,
    surrogate: Surrogate,
    coordinates: Coordinates,
) -> Iterator[Config]:
    """Around the best learning rate that a member sees at a random rank, batch size and alpha."""
    choices = space.options_of(variant)
    settings = [_with_options(rng, uniform_sample(rng, space, traits), choices) for _ in range(OPTIMA)]
    members = rng.choice(len(surrogate.weights), size=OPTIMA, p=surrogate.weights)
    best = surrogate.best_z(variant, settings)[members, np.arange(OPTIMA)]
    for setting, z in zip(settings, best - SAFE + OPTIMUM_SD * rng.standard_normal(OPTIMA), strict=True):
        yield _at(space, traits, coordinates, setting, float(z))


def _neighbours(
    rng: np.random.Generator,
    space: Space,
    traits: Traits,
    coordinates: Coordinates,
    trials: Sequence[Trial],
    choices: Mapping[str, Sequence[int | float]],
) -> Iterator[Config]:
    for trial in trials:
        for _ in range(NEIGHBOURS // len(trials)):
            config = trial.config
            rank = _near(rng, space.rank, config.rank)
            batch = _near(rng, space.batch_size, config.batch_size)
            alphas = space.alphas(traits, rank)
            octaves = coordinates.w(traits, config)
            if isinstance(alphas, Range):
                law = traits.law_alpha(rank, coordinates.hidden_size)
                alpha = alphas.clip(law * 2 ** float(octaves + NEIGHBOUR_ALPHA_SD * rng.standard_normal()))
            else:
                alpha = _near(rng, alphas, min(alphas, key=lambda choice: abs(math.log(choice / config.alpha))))
            z = coordinates.z(traits, config) + NEIGHBOUR_SD * float(rng.standard_normal())
            setting = replace(config, batch_size=batch, rank=rank, alpha=alpha)
            yield _at(space, traits, coordinates, _with_options(rng, setting, choices, config.options), z)


def _best_trials(table: TrialTable, variant: str) -> list[Trial]:
    """The longest runs first, of those the best."""
    scored = table.complete(variant)
    if len(scored) < NEIGHBOURED:
        scored = [trial for trial in table.of(variant) if trial.healthy and trial.scores]
    return sorted(scored, key=lambda trial: (-trial.reached, table.sign * trial.scores[trial.reached]))[:NEIGHBOURED]


def _at(space: Space, traits: Traits, coordinates: Coordinates, setting: Config, z: float) -> Config:
    """The setting at the searched learning rate next to z."""
    eta = coordinates.learning_rate(traits, z, setting.batch_size, setting.rank, setting.alpha)
    return replace(setting, learning_rate=nearest_rate(space, eta))


def _near(rng: np.random.Generator, choices: Sequence[Choice], current: Choice) -> Choice:
    """The current choice or one of the two to either side; any where it is none of them, as a baseline's may be."""
    if current not in choices:
        return any_of(rng, choices)
    moved = 0 if rng.uniform() < KEEP_CHOICE else int(rng.integers(-2, 3))
    return choices[min(max(choices.index(current) + moved, 0), len(choices) - 1)]


def _with_options(
    rng: np.random.Generator, config: Config, choices: Mapping[str, Sequence[int | float]], kept: Options = ()
) -> Config:
    """With each option as it was in ``kept``, with the chance KEEP_CHOICE where that is a choice, or else uniform."""
    before = dict(kept)
    drawn = []
    for name, values in choices.items():
        keep = before.get(name) in values and rng.uniform() < KEEP_CHOICE
        drawn.append((name, before[name] if keep else any_of(rng, values)))
    return replace(config, options=tuple(drawn))
