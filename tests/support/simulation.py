"""A trainer that costs nothing: scores are a function of the configuration, the seed and the length alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from autolora import Search
from autolora.search import Job
from autolora.search.trials import Trial
from autolora.space import Space

SPACE = Space(learning_rate=(1e-5, 1e-1), batch_size=[8, 16], rank=[4, 8, 16], alpha="law", hidden_size=64)
CLIFF = -1.8
"""log10 of the learning rate, at rank 1, beyond which training diverges."""


def position(job: Job) -> float:
    return math.log10(job.config.learning_rate) + 0.5 * math.log10(job.config.rank)


def loss(job: Job) -> float:
    """A bowl in log10 learning rate that deepens with training; every configuration has a score of its own."""
    shift = 0.4 if job.variant == "pissa" else 0.0
    bowl = (position(job) + 2.3 + shift) ** 2 + 0.01 * job.config.batch_size
    return 1.0 + bowl + 0.5 * (1 - job.stop) + 0.003 * job.seed


def train(search: Search, job: Job, score: Callable[[Job], float] = loss) -> None:
    """Report the score, or the divergence beyond the cliff."""
    if position(job) > CLIFF:
        search.tell(job, diverged=True, at=job.start + 0.02)
    else:
        search.tell(job, score(job))


def play(search: Search, score: Callable[[Job], float] = loss, diverge: bool = True) -> list[Job]:
    """Train one job at a time until the budget is used; the jobs in order."""
    jobs = []
    while (job := search.ask()) is not None:
        assert isinstance(job, Job)
        jobs.append(job)
        if diverge:
            train(search, job, score)
        else:
            search.tell(job, score(job))
    return jobs


def searched(search: Search, variant: str) -> list[Trial]:
    return [trial for trial in search.table.of(variant) if trial.purpose == "search"]
