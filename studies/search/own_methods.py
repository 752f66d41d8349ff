"""This project's search, with and without the laws' prior."""

from __future__ import annotations

from typing import Literal

import numpy as np
from dimensions import uniform
from ledger import Ledger

from autolora.search import Job, Search

LENGTHS = 3
"""Rungs that are used, the highest: 1/9, 1/3 and 1 of those of a table that also has 1/27. So for every method."""


def with_laws(ledger: Ledger) -> None:
    """The released search with its prior from the scaling laws, all variants in one study, nothing kept to confirm."""
    _search(ledger, "laws")


def without_prior(ledger: Ledger) -> None:
    """The same, sampling uniformly; its first trial is a uniform draw, as there is no mode to begin with."""
    _search(ledger, None)


def _search(ledger: Ledger, prior: Literal["laws"] | None) -> None:
    problem = ledger.problem
    rng = np.random.default_rng([ledger.seed, 99])
    first = {variant: uniform(problem.space, variant, rng) for variant in problem.variants} if prior is None else None
    search = Search(
        variants=problem.variants,
        space=problem.space,
        budget=ledger.budget,
        rungs=problem.rungs[-LENGTHS:],
        direction=problem.direction,
        seed=ledger.seed,
        prior=prior,
        confirm=0,
        baseline=first,
        examples=problem.examples,
    )
    while (job := search.ask()) is not None:
        assert isinstance(job, Job)
        score = ledger.train(job.variant, job.config, job.stop, job.start, job.seed)
        if score is None:
            at = min(job.stop, problem.diverges_at(job.variant, job.config))
            search.tell(job, diverged=True, at=at)
        else:
            search.tell(job, score)
