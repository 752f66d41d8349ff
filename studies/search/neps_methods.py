"""NePS's PriorBand on its Hyperband base, by ask and tell, given the laws' prior. One optimizer for each variant."""

from __future__ import annotations

import random
from typing import Any

import neps
import numpy as np
import torch

from autolora import variants
from autolora.priors import Prior
from autolora.space import Config, Space, searchable
from studies.search.dimensions import config, dimensions
from studies.search.ledger import Ledger, OutOfBudget
from studies.search.own_methods import LENGTHS

ASKED = 500
"""Times that a variant's optimizer is asked at most, as what it repeats is free."""


def priorband(ledger: Ledger) -> None:
    """PriorBand, factor 3, on Hyperband (its ASHA promotes nearly everything), the prior's mode first at full length.

    The prior is the laws' mode for each variant, with NePS's medium confidence in learning rate and alpha and low in
    rank and batch size, of which the laws say little. On problems with full runs only it is random search from that
    prior. PriorBand asks for what it has had before; that is answered from memory, at no charge.

    Cannot use: how the best learning rate moves with rank, batch size and alpha (its prior is one value for each
    dimension), the prior's own width, other variants. A diverged training is told with the untrained score.
    """
    problem = ledger.problem
    rungs = problem.rungs[-LENGTHS:]
    sign = 1.0 if problem.direction == "minimize" else -1.0
    for place, variant in enumerate(problem.variants):
        random.seed(ledger.seed + place)
        np.random.seed((ledger.seed + place) % 2**32)
        torch.manual_seed(ledger.seed + place)
        space = _space(problem.space, variant, problem.examples, fidelities=len(rungs))
        if len(rungs) > 1:
            optimizer = neps.algorithms.priorband(space, eta=3, base="hyperband", sample_prior_first="highest_fidelity")
        else:
            optimizer = neps.algorithms.random_search(space, use_priors=True)
        asked = neps.AskAndTell(optimizer)
        reached: dict[Config, float] = {}
        scores: dict[tuple[Config, float], float | None] = {}
        for _ in range(ASKED):
            trial = asked.ask()
            own = dict(trial.config)
            stop = rungs[_rung(own.pop("fidelity", None), len(rungs))]
            chosen = config(problem.space, variant, own)
            if (chosen, stop) not in scores:
                start = reached.get(chosen, 0.0)
                try:
                    scores[chosen, stop] = ledger.train(variant, chosen, stop, start if start < stop else 0.0)
                except OutOfBudget:
                    break
                reached[chosen] = stop
            score = scores[chosen, stop]
            asked.tell(trial, sign * (problem.worst(variant) if score is None else score))


def _rung(fidelity: int | None, rungs: int) -> int:
    return rungs - 1 if fidelity is None else round(float(np.log(fidelity) / np.log(3)))


def _space(space: Space, variant: str, examples: int | None, fidelities: int) -> Any:
    mode = Prior.from_laws(space.hidden_size, examples).mode(
        space, searchable.traits_at_start(space, variants.get(variant))
    )
    centre = mode.as_dict()
    found: dict[str, Any] = {}
    for dimension in dimensions(space, variant):
        if dimension.choices:
            known = dimension.name in centre
            place = dimension.choices.index(centre[dimension.name]) if known else None
            found[dimension.name] = neps.HPOInteger(0, dimension.last, prior=place, prior_confidence="low")
        else:
            prior = float(np.clip(centre[dimension.name], dimension.low, dimension.high))
            found[dimension.name] = neps.HPOFloat(
                dimension.low, dimension.high, log=True, prior=prior, prior_confidence="medium"
            )
    if fidelities > 1:
        found["fidelity"] = neps.HPOInteger(1, 3 ** (fidelities - 1), is_fidelity=True)
    return neps.SearchSpace(found)
