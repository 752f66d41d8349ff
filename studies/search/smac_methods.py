"""SMAC's facades by ask and tell: multi-fidelity (random forest and Hyperband). One optimizer for each variant."""

from __future__ import annotations

import logging
import tempfile
from functools import partial
from typing import Any

from ConfigSpace import ConfigurationSpace, Float, Integer
from smac import HyperparameterOptimizationFacade, MultiFidelityFacade, Scenario
from smac.runhistory.dataclasses import TrialValue

from autolora.space import Config, Space
from studies.search.dimensions import config, dimensions
from studies.search.ledger import Ledger, OutOfBudget
from studies.search.own_methods import LENGTHS

TRIALS_A_RUN = 6
"""Trials expected for a full run of budget: a quarter of all is SMAC's initial design. The ledger ends a search."""


def multi_fidelity(ledger: Ledger) -> None:
    """Defaults with factor 3: Hyperband over the rungs, a random forest fitted to the highest that has enough trials.

    A promoted trial is charged from its last rung on, as if SMAC kept checkpoints. A diverged one is told with the
    untrained score. Where a problem has full runs only, it is HyperparameterOptimizationFacade, SMAC's for that case.

    Cannot use: a prior over where the good region is (only a default value), other variants.
    """
    logging.getLogger("smac").setLevel(logging.ERROR)
    problem = ledger.problem
    rungs = problem.rungs[-LENGTHS:]
    sign = 1.0 if problem.direction == "minimize" else -1.0
    for place, variant in enumerate(problem.variants):
        with tempfile.TemporaryDirectory() as folder:
            facade = _facade(_space(problem.space, variant), ledger.budget, len(rungs), ledger.seed + place, folder)
            reached: dict[Config, float] = {}
            while ledger.left(variant) > 1e-9:
                try:
                    asked = facade.ask()
                except StopIteration:  # its number of trials is used up
                    break
                chosen = config(problem.space, variant, dict(asked.config))
                fraction = 1.0 if asked.budget is None else asked.budget / 3 ** (len(rungs) - 1)
                stop = min(rungs, key=partial(_gap, fraction))
                start = reached.get(chosen, 0.0)
                try:
                    score = ledger.train(variant, chosen, stop, start if start < stop else 0.0)
                except OutOfBudget:
                    break
                reached[chosen] = stop
                facade.tell(asked, TrialValue(cost=sign * (problem.worst(variant) if score is None else score)))


def _gap(fraction: float, rung: float) -> float:
    return abs(fraction - rung)


def _facade(
    space: ConfigurationSpace, budget: float, rungs: int, seed: int, folder: str
) -> HyperparameterOptimizationFacade:
    """Multi-fidelity where there are rungs below the full run."""
    shared: dict[str, Any] = {"output_directory": folder, "deterministic": True, "seed": seed}
    if rungs == 1:
        scenario = Scenario(space, n_trials=round(budget), **shared)
        return HyperparameterOptimizationFacade(scenario, _unused, overwrite=True, logging_level=False)
    trials = round(TRIALS_A_RUN * budget)
    scenario = Scenario(space, n_trials=trials, min_budget=1, max_budget=3 ** (rungs - 1), **shared)
    intensifier = MultiFidelityFacade.get_intensifier(scenario, eta=3)
    return MultiFidelityFacade(scenario, _unused, intensifier=intensifier, overwrite=True, logging_level=False)


def _unused(config: Any, seed: int = 0, budget: float = 0.0) -> float:
    raise AssertionError("trials are asked for and told")


def _space(space: Space, variant: str) -> ConfigurationSpace:
    found = ConfigurationSpace()
    for dimension in dimensions(space, variant):
        if dimension.choices:
            found.add(Integer(dimension.name, (0, dimension.last)))
        else:
            found.add(Float(dimension.name, (dimension.low, dimension.high), log=True))
    return found
