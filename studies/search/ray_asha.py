"""Ray Tune's ASHA scheduler, asked directly: trials one after the other, as one worker would run them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from studies.search.dimensions import uniform
from studies.search.ledger import Ledger
from studies.search.own_methods import LENGTHS


def asha(ledger: Ledger) -> None:
    """Random search with ASHA over the rungs, factor 3, one bracket, as Ray's documentation recommends.

    Cannot use: a prior, other variants, and promotion: it only stops trials, and the first of each rung always go on.
    It never stops a NaN, so a diverged training ends by itself and is reported with the untrained score.
    """
    problem = ledger.problem
    rungs = problem.rungs[-LENGTHS:]
    units = [round(rung / rungs[0]) for rung in rungs]
    for place, variant in enumerate(problem.variants):
        rng = np.random.default_rng([ledger.seed, place, 4])
        scheduler = AsyncHyperBandScheduler(
            time_attr="units",
            metric="score",
            mode="min" if problem.direction == "minimize" else "max",
            max_t=max(2, units[-1]),
            grace_period=1,
            reduction_factor=3,
        )
        number = 0
        while ledger.left(variant) >= 1.0 - 1e-9:
            trial = SimpleNamespace(trial_id=str(number))
            number += 1
            config, start = uniform(problem.space, variant, rng), 0.0
            scheduler.on_trial_add(None, trial)
            for rung, unit in zip(rungs, units, strict=True):
                score = ledger.train(variant, config, rung, start)
                start = rung
                told = {"units": unit, "score": problem.worst(variant) if score is None else score}
                stop = scheduler.on_trial_result(None, trial, told) == TrialScheduler.STOP
                if stop or score is None:
                    break
