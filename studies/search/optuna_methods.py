"""Optuna's samplers and pruner, in their released form and with their defaults. One study for each variant.

Choices are given as the index of an ordered list, so that samplers may use their order. A training that diverged is
told as a finished one with the score of the untrained model: Optuna's samplers do not see failed trials, and its TPE
ranks pruned ones by how late they were pruned.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import optuna

from autolora.space import Config, Space
from studies.search.dimensions import config, dimensions, values
from studies.search.laws_prior import mode, narrowed
from studies.search.ledger import Ledger
from studies.search.own_methods import LENGTHS

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

STARTUP = 5
"""Trials before the model where the prior is given: its mode and four random ones, instead of ten random ones."""


def tpe(ledger: Ledger) -> None:
    """TPE on full runs, defaults: multivariate (Optuna's advice, its default from version 5), 10 random trials first.

    Cannot use: short runs, a prior over where the good region is, other variants, divergence as a bound.
    """
    _full_runs(ledger, lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True))


def gp(ledger: Ledger) -> None:
    """Gaussian process with expected improvement on full runs, defaults: 10 random trials first, noise fitted.

    Cannot use: short runs (only finished trials count), a prior, other variants, divergence as a bound.
    """
    _full_runs(ledger, lambda seed: optuna.samplers.GPSampler(seed=seed))


def tpe_with_prior(ledger: Ledger) -> None:
    """The same TPE given the laws' prior: its mode first, four random trials, then the model; fewer learning rates.

    The learning rates, drawn and modelled, are those within the prior's 90% interval at the mode's other settings, as
    far as they are searched.

    Cannot use: the prior's density within the interval, how the best learning rate moves with rank, batch size and
    alpha, short runs, other variants, divergence as a bound.
    """
    _full_runs(
        ledger,
        lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=STARTUP),
        prior=True,
    )


def gp_with_prior(ledger: Ledger) -> None:
    """The same Gaussian process, given the laws' prior as TPE is; it cannot use what TPE cannot."""
    _full_runs(ledger, lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP), prior=True)


def tpe_hyperband(ledger: Ledger) -> None:
    """TPE with the Hyperband pruner over the rungs, factor 3: the pairing that Optuna's documentation recommends.

    Cannot use: a prior, other variants, and promotion: a pruned trial never goes on, and one that runs is compared
    with what was there before it.
    """
    problem = ledger.problem
    rungs = problem.rungs[-LENGTHS:]
    if len(rungs) == 1:
        return tpe(ledger)
    units = [round(rung / rungs[0]) for rung in rungs]
    for place, variant in enumerate(problem.variants):
        seed = ledger.seed + place
        study = optuna.create_study(
            study_name=f"{problem.name} {variant} {seed}",  # trials are dealt to brackets by a hash of it
            direction=problem.direction,
            sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True),
            pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=units[-1], reduction_factor=3),
        )
        while ledger.left(variant) >= 1.0 - 1e-9:
            _pruned_trial(ledger, variant, study, rungs, units)


def _pruned_trial(
    ledger: Ledger, variant: str, study: optuna.Study, rungs: tuple[float, ...], units: list[int]
) -> None:
    """One trial up the rungs until it is finished, pruned or diverged."""
    trial = study.ask()
    chosen = suggested(trial, ledger.problem.space, variant)
    start = 0.0
    for rung, unit in zip(rungs, units, strict=True):
        score = ledger.train(variant, chosen, rung, start)
        start = rung
        if score is None:
            study.tell(trial, ledger.problem.worst(variant))
            return
        trial.report(score, unit)
        if rung < rungs[-1] and trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return
    study.tell(trial, score)


def _full_runs(ledger: Ledger, sampler: Callable[[int], optuna.samplers.BaseSampler], prior: bool = False) -> None:
    """Full runs to the end of the budget; with the laws' prior: its mode first, learning rates within its interval."""
    problem = ledger.problem
    for place, variant in enumerate(problem.variants):
        study = optuna.create_study(direction=problem.direction, sampler=sampler(ledger.seed + place))
        space = problem.space
        if prior:
            space = narrowed(problem, variant)
            study.enqueue_trial(values(space, variant, mode(problem, variant)))
        while ledger.holds(variant, 1.0):
            trial = study.ask()
            score = ledger.train(variant, suggested(trial, space, variant))
            study.tell(trial, problem.worst(variant) if score is None else score)


def suggested(trial: optuna.Trial, space: Space, variant: str) -> Config:
    found: dict[str, float] = {}
    for dimension in dimensions(space, variant):
        if dimension.choices:
            found[dimension.name] = trial.suggest_int(dimension.name, 0, dimension.last)
        else:
            found[dimension.name] = trial.suggest_float(dimension.name, dimension.low, dimension.high, log=True)
    return config(space, variant, found)
