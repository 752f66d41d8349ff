"""This project's search, with and without the laws' prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from autolora import variants as registry
from autolora.priors import Prior
from autolora.search import Job, Search
from autolora.space import Searchable
from studies.search.ledger import Ledger
from studies.search.left_out import laws_without, variants_without
from studies.search.problem import Problem

LENGTHS = 3
"""Rungs that are used, the highest: 1/9, 1/3 and 1 of those of a table that also has 1/27. So for every method."""


def with_laws(ledger: Ledger) -> None:
    """The released search with its prior from the scaling laws, all variants in one study, nothing kept to confirm."""
    searched(ledger, "laws")


def with_unseen_laws(ledger: Ledger) -> None:
    """The same with laws, and shifts of variants, that were fitted without the problem's own table."""
    name = ledger.problem.name
    with laws_without(name):
        searched(ledger, "laws", variants_without(name, ledger.problem.variants))


def without_prior(ledger: Ledger) -> None:
    """The same with no belief but the searched range, so without an opening: there is no mode to begin around."""
    searched(ledger, None)


def searched(
    ledger: Ledger,
    prior: Literal["laws"] | Prior | None,
    variants: Mapping[str, Searchable] | None = None,
    **changes: Any,
) -> None:
    """One search to the end of its budget; ``variants``: these alone, ``changes``: other arguments of Search."""
    problem = ledger.problem
    variants = variants or registered(problem.variants)
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


def registered(names: Sequence[str]) -> dict[str, Searchable]:
    """Variants by name, as the search takes them."""
    return {name: registry.get(name) for name in names}


def laws(problem: Problem) -> Prior:
    """The prior of the scaling laws, as the search has it by default."""
    return Prior.from_laws(problem.space.hidden_size, problem.examples)
