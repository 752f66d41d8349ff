"""SMAC's facades by ask and tell: multi-fidelity (random forest and Hyperband). One optimizer for each variant."""

from __future__ import annotations

import logging
import math
import tempfile
from functools import partial
from typing import Any

from ConfigSpace import Configuration, ConfigurationSpace, Float, Integer, NormalFloatHyperparameter
from smac import HyperparameterOptimizationFacade, MultiFidelityFacade, Scenario
from smac.acquisition.function import PriorAcquisitionFunction
from smac.initial_design import RandomInitialDesign
from smac.runhistory.dataclasses import TrialValue

from autolora.space import Config
from studies.search.dimensions import config, dimensions, values
from studies.search.laws_prior import mode, scope
from studies.search.ledger import Ledger, OutOfBudget
from studies.search.own_methods import LENGTHS, laws
from studies.search.problem import Problem

TRIALS_A_RUN = 6
"""Trials expected for a full run of budget: a quarter of all is SMAC's initial design. The ledger ends a search."""

RATE = "log10 learning rate"
"""A normal hyperparameter of its own, so that its standard deviation is in decades."""

PRIOR_DECAY = 0.1
"""Of the number of trials: the exponent of the prior in the acquisition function, as SMAC's documentation advises. It
is divided by the number of trials since the initial design."""


def multi_fidelity(ledger: Ledger) -> None:
    """Defaults with factor 3: Hyperband over the rungs, a random forest fitted to the highest that has enough trials.

    A promoted trial is charged from its last rung on, as if SMAC kept checkpoints. A diverged one is told with the
    untrained score. Where a problem has full runs only, it is HyperparameterOptimizationFacade, SMAC's for that case.

    Cannot use: a prior over where the good region is, other variants.
    """
    _searched(ledger, prior=False)


def with_prior(ledger: Ledger) -> None:
    """The same given the laws' prior in SMAC's way (piBO): a normal learning rate that weights expected improvement.

    The learning rate is normal in its logarithm about the prior's mode, with the prior's standard deviation there. The
    first configuration is the mode; those of the initial design, as many as by default, are drawn from the normal. The
    weight of the prior fades with the number of trials.

    Cannot use: how the best learning rate moves with rank, batch size and alpha, other variants.
    """
    _searched(ledger, prior=True)


def _searched(ledger: Ledger, prior: bool) -> None:
    logging.getLogger("smac").setLevel(logging.ERROR)
    problem = ledger.problem
    rungs = problem.rungs[-LENGTHS:]
    sign = 1.0 if problem.direction == "minimize" else -1.0
    for place, variant in enumerate(problem.variants):
        with tempfile.TemporaryDirectory() as folder:
            space = _space(problem, variant, prior)
            facade = _facade(space, ledger.budget, len(rungs), ledger.seed + place, folder, prior)
            reached: dict[Config, float] = {}
            while ledger.left(variant) > 1e-9:
                try:
                    asked = facade.ask()
                except StopIteration:  # its number of trials is used up
                    break
                chosen = config(problem.space, variant, _values(asked.config))
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


def _values(asked: Configuration) -> dict[str, float]:
    found = dict(asked)
    if RATE in found:
        found["learning_rate"] = 10 ** found.pop(RATE)
    return found


class _ModeFirst(RandomInitialDesign):
    """The space's default, which is the prior's mode, then draws from the space: SMAC itself draws uniformly."""

    def _select_configurations(self) -> list[Configuration]:
        drawn = [self._configspace.sample_configuration() for _ in range(self._n_configs)]
        return [self._configspace.get_default_configuration(), *drawn]


def _facade(
    space: ConfigurationSpace, budget: float, rungs: int, seed: int, folder: str, prior: bool
) -> HyperparameterOptimizationFacade:
    """Multi-fidelity where there are rungs below the full run."""
    shared: dict[str, Any] = {"output_directory": folder, "deterministic": True, "seed": seed}
    kind: type[HyperparameterOptimizationFacade]
    parts: dict[str, Any] = {}
    if rungs == 1:
        kind, scenario = HyperparameterOptimizationFacade, Scenario(space, n_trials=round(budget), **shared)
    else:
        trials = round(TRIALS_A_RUN * budget)
        kind = MultiFidelityFacade
        scenario = Scenario(space, n_trials=trials, min_budget=1, max_budget=3 ** (rungs - 1), **shared)
        parts["intensifier"] = MultiFidelityFacade.get_intensifier(scenario, eta=3)
    if prior:
        parts["initial_design"] = _ModeFirst(scenario)
        parts["acquisition_function"] = PriorAcquisitionFunction(
            kind.get_acquisition_function(scenario), decay_beta=PRIOR_DECAY * scenario.n_trials, discretize=True
        )
    return kind(scenario, _unused, overwrite=True, logging_level=False, **parts)


def _unused(config: Any, seed: int = 0, budget: float = 0.0) -> float:
    raise AssertionError("trials are asked for and told")


def _space(problem: Problem, variant: str, prior: bool) -> ConfigurationSpace:
    """The space as SMAC knows it; with the prior its default is the mode and the learning rate is normal about it."""
    found = ConfigurationSpace()
    first = mode(problem, variant)
    default = values(problem.space, variant, first)
    sd = laws(problem).spread(scope(problem, variant).traits, first)
    for dimension in dimensions(problem.space, variant):
        name, given = dimension.name, {"default": default[dimension.name]} if prior else {}
        if dimension.choices:
            found.add(Integer(name, (0, dimension.last), **given))
        elif prior and name == "learning_rate":
            low, high, middle = (math.log10(rate) for rate in (dimension.low, dimension.high, default[name]))
            found.add(NormalFloatHyperparameter(RATE, mu=middle, sigma=sd, lower=low, upper=high))
        else:
            found.add(Float(name, (dimension.low, dimension.high), log=True, **given))
    return found
