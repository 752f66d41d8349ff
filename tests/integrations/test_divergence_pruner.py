"""The divergence rule as a pruner of plain Optuna."""

from __future__ import annotations

import math
from collections.abc import Iterable

import optuna
import pytest
from optuna.pruners import BasePruner, NopPruner, ThresholdPruner
from optuna.trial import TrialState

from autolora.integrations.optuna import DivergencePruner


def pruned_at(pruner: BasePruner, values: Iterable[float], direction: str = "minimize") -> int | None:
    """The step at which a trial that reports these values is pruned, or None."""
    study = optuna.create_study(pruner=pruner, direction=direction)
    trial = study.ask()
    for step, value in enumerate(values):
        trial.report(value, step)
        if trial.should_prune():
            return step
    return None


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_value_that_is_not_finite_prunes_at_once(broken, direction):
    assert pruned_at(DivergencePruner(), [2.0, broken], direction) == 1
    assert pruned_at(DivergencePruner(), [broken], direction) == 0


def test_a_loss_that_rises_far_above_its_start_prunes_without_any_other_trial():
    assert pruned_at(DivergencePruner(), [2.0, 1.9, 1.8, 6.0, 8.0, 9.0]) == 3


def test_a_loss_that_falls_or_stays_is_left_alone():
    assert pruned_at(DivergencePruner(), [2.0 - 0.01 * step for step in range(100)]) is None
    assert pruned_at(DivergencePruner(), [5.0] * 20) is None


def test_the_fewer_examples_a_report_averages_over_the_longer_noise_is_forgiven():
    values = [2.0, 2.0, *[6.0] * 20]
    steps = [pruned_at(DivergencePruner(examples_per_report=count), values) for count in (4, 8, 32)]
    assert steps == sorted(steps, reverse=True)
    assert len(set(steps)) == 3


def test_what_is_maximized_may_rise():
    assert pruned_at(DivergencePruner(), [1.0, 1.0, 20.0, 30.0, 40.0], "maximize") is None


def test_a_trial_without_reports_is_left_alone():
    study = optuna.create_study(pruner=DivergencePruner())
    assert not study.ask().should_prune()


@pytest.mark.parametrize(("wrapped", "step"), [(ThresholdPruner(upper=1.95), 0), (NopPruner(), None), (None, None)])
def test_a_healthy_trial_is_left_to_the_wrapped_pruner(wrapped, step):
    assert pruned_at(DivergencePruner(wrapped), [2.0, 1.9, 1.8]) == step


def test_a_diverged_trial_is_pruned_whatever_the_wrapped_pruner_says():
    assert pruned_at(DivergencePruner(NopPruner()), [2.0, math.nan]) == 1


def test_it_prunes_the_first_trial_of_a_study():
    def objective(trial: optuna.Trial) -> float:
        for step, loss in enumerate([2.0, 2.0, 9.0, 9.0, 9.0]):
            trial.report(loss, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return 9.0

    study = optuna.create_study(pruner=DivergencePruner())
    study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.PRUNED


def test_a_report_over_no_examples_is_refused():
    with pytest.raises(ValueError, match="examples_per_report must be at least 1 but got 0"):
        DivergencePruner(examples_per_report=0)
