"""This project's search with priors of known quality, after PriorBand's good, medium and bad ones (arXiv 2306.12370).

Only the centre is given, in the laws' coordinates: one number for all variants. Its standard deviation and the
variants' shifts stay those of the laws, so that a wrong prior is as sure of itself as a right one. No user has a good
one: it is made from the problem's answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from autolora import variants
from autolora.priors import Curvature, Prior, evidence
from autolora.priors.prior import CENTRE, Evidence
from autolora.space import Range, searchable
from studies.search.dimensions import uniform
from studies.search.ledger import Ledger
from studies.search.own_methods import laws, searched
from studies.search.problem import Problem, draw, regret

DRAWS = 50_000
"""Uniform draws, over all variants, of which the best and the worst are taken."""
MEDIUM_SD = 0.25
"""Of the searched range of learning rates."""
DECADE = 1.0

MEASURED = Path(__file__).parent.parent / "curvature" / "measured.json"
CURVATURE_COST = 32 / 800
"""Full runs, for all variants together: the curvature of 16 examples, at two trained examples each."""


def good(ledger: Ledger) -> None:
    """The centre is the mean over variants of where their best lies."""
    _centred(ledger, 0.0)


def medium(ledger: Ledger) -> None:
    """Off the good centre by a normal number with a quarter of the searched range as its sd, another each repeat."""
    rates = ledger.problem.space.learning_rates
    assert isinstance(rates, Range)
    _centred(ledger, MEDIUM_SD * math.log10(rates.high / rates.low) * draw(ledger.seed, "medium prior"))


def worst(ledger: Ledger) -> None:
    """The centre is where the worst of all draws lies; of those that are equally bad, the first drawn."""
    found = extremes(ledger.problem)
    _centred(ledger, found.worst - found.best)


def too_high(ledger: Ledger) -> None:
    """Ten times the good centre."""
    _centred(ledger, DECADE)


def too_low(ledger: Ledger) -> None:
    """A tenth of the good centre."""
    _centred(ledger, -DECADE)


def curvature(ledger: Ledger) -> None:
    """Laws and the fast curvature of each variant's start, as ``autolora tune`` has by default; charged as there.

    Of what was measured for studies/curvature on the two models of ``curves/``. A variant that was not measured, or
    whose start is plain LoRA's, has the laws alone.
    """
    searched(ledger, informed(ledger.problem))


class Extremes(NamedTuple):
    """Decades from the laws' centre to where the best of a problem lies, and to where the worst does."""

    best: float
    worst: float


@lru_cache
def extremes(problem: Problem) -> Extremes:
    """By uniform draws; the best is the mean over variants."""
    rng = np.random.default_rng(0)
    coordinates = laws(problem).coordinates
    bests, worsts = [], []
    for variant in problem.variants:
        configs = [uniform(problem.space, variant, rng) for _ in range(DRAWS // len(problem.variants))]
        regrets = [regret(problem, variant, config) for config in configs]
        traits = searchable.traits_at_start(problem.space, variants.get(variant))
        best, worst = (coordinates.z(traits, configs[int(place(regrets))]) for place in (np.argmin, np.argmax))
        bests.append(best)
        worsts.append((max(regrets), worst))
    return Extremes(float(np.mean(bests)), max(worsts, key=lambda pair: pair[0])[1])


def informed(problem: Problem) -> Prior:
    """The laws' prior with the measured curvature."""
    model = problem.name.removeprefix("curves/").removesuffix("-variants")
    measured: Mapping[str, Mapping[str, Mapping[str, float]]] = json.loads(MEASURED.read_text())
    wanted = [name for name in problem.variants if variants.get(name).has_own_curvature]
    keys = {name: f"{model}/fast/{name}" for name in (evidence.REFERENCE, *wanted)}
    found = {name: Curvature(measured[key]["value"]) for name, key in keys.items() if key in measured}
    traits = {name: searchable.traits_at_start(problem.space, variants.get(name)) for name in problem.variants}
    return laws(problem).informed(evidence.from_curvature(found), traits, CURVATURE_COST)


def _centred(ledger: Ledger, off: float) -> None:
    """Search with the centre so many decades off the good one."""
    prior = laws(ledger.problem)
    centre = prior.centre + extremes(ledger.problem).best + off
    user = Evidence("user", CENTRE, centre, prior.sd)
    searched(ledger, replace(prior, centre=centre, evidence=(user,)))
