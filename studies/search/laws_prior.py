"""The laws' prior in the forms that peers can take: a first configuration, narrower learning rates, draws."""

from __future__ import annotations

import numpy as np

from autolora import variants
from autolora.space import Config, Range, Scope, Space, searchable
from studies.search.own_methods import laws
from studies.search.problem import Problem

INTERVAL = 0.9
"""Share of the prior that the narrowed learning rates hold."""


def scope(problem: Problem, variant: str) -> Scope:
    """The space as the prior asks for it."""
    return searchable.scope(problem.space, variants.get(variant))


def mode(problem: Problem, variant: str) -> Config:
    """The prior's most plausible configuration, with which this project's search begins."""
    return laws(problem).mode(*scope(problem, variant))


def sample(problem: Problem, variant: str, rng: np.random.Generator) -> Config:
    """A draw from the prior."""
    return laws(problem).sample(rng, *scope(problem, variant))


def narrowed(problem: Problem, variant: str) -> Space:
    """The space with the learning rates that the prior's 90% interval leaves of the searched ones.

    The interval is that at the mode's other settings: a peer cannot move it with rank, batch size and alpha. Where it
    lies outside the searched rates altogether, they stay as they are.
    """
    rates = problem.space.learning_rates
    assert isinstance(rates, Range)
    low, high = laws(problem).interval(scope(problem, variant).traits, mode(problem, variant), INTERVAL)
    low, high = rates.clip(low), rates.clip(high)
    return (
        problem.space.model_copy(update={"learning_rate": Range(low=low, high=high)}) if low < high else problem.space
    )
