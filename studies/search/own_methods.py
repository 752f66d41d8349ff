"""This project's search, with and without the laws' prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from autolora import Search
from autolora.priors import Prior
from autolora.search import Job
from autolora.space import Config
from studies.search.dimensions import uniform
from studies.search.ledger import Ledger
from studies.search.problem import Problem

LENGTHS = 3
"""Rungs that are used, the highest: 1/9, 1/3 and 1 of those of a table that also has 1/27. So for every method."""


def with_laws(ledger: Ledger) -> None:
    """The released search with its prior from the scaling laws, all variants in one study, nothing kept to confirm."""
    searched(ledger, "laws")


def without_prior(ledger: Ledger) -> None:
    """The same, sampling uniformly; its first trial is a uniform draw, as there is no mode to begin with."""
    searched(ledger, None, baseline=uniform_starts(ledger))


def searched(
    ledger: Ledger, prior: Literal["laws"] | Prior | None, variants: Sequence[str] | None = None, **changes: Any
) -> None:
    """One search to the end of its budget; ``variants``: these alone, ``changes``: other arguments of Search."""
    problem = ledger.problem
    variants = variants or problem.variants
    terms: dict[str, Any] = {
        "space": problem.space,
        "budget": ledger.budget,
        "rungs": problem.rungs[-LENGTHS:],
        "direction": problem.direction,
        "seed": ledger.seed,
        "confirm": 0,
        "examples": problem.examples,
    }
    search = Search(variants, prior=prior, **{**terms, **changes})
    for variant in variants:
        ledger.charge(variant, prior.share(len(variants)) if isinstance(prior, Prior) else 0.0)
    while (job := search.ask()) is not None:
        assert isinstance(job, Job)
        score = ledger.train(job.variant, job.config, job.stop, job.start, job.seed)
        if score is None:
            at = min(job.stop, problem.diverges_at(job.variant, job.config))
            search.tell(job, diverged=True, at=at)
        else:
            search.tell(job, score)


def laws(problem: Problem) -> Prior:
    """The prior of the scaling laws, as the search has it by default."""
    return Prior.from_laws(problem.space.hidden_size, problem.examples)


def uniform_starts(ledger: Ledger) -> dict[str, Config]:
    """A first configuration for each variant where there is no prior."""
    rng = np.random.default_rng([ledger.seed, 99])
    return {variant: uniform(ledger.problem.space, variant, rng) for variant in ledger.problem.variants}
