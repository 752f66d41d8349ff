"""The benchmark's peers that are given the laws' prior, and its recipes: each does what its docstring says."""

from __future__ import annotations

import math

import pytest

from autolora import variants
from autolora.space import Config, Range, Space, searchable
from studies.search import problems
from studies.search.dimensions import config, values
from studies.search.edge import Edge
from studies.search.laws_prior import mode, narrowed, scope
from studies.search.ledger import Ledger, Step
from studies.search.methods import METHODS, traced
from studies.search.own_methods import laws
from studies.search.recipe_methods import STEP

SPACE = Space(learning_rate=(1e-6, 1e-1), batch_size=[16, 64], rank=[8, 32], alpha="rank", hidden_size=2048)
RUNGS = (1 / 9, 1 / 3, 1.0)


def _problem(offset: float = 0.3, rungs: tuple[float, ...] = RUNGS) -> Edge:
    return Edge("test", offset=offset, variants=("lora", "pissa"), space=SPACE, rungs=rungs)


def _steps(method: str, problem: Edge, budget: float = 8.0) -> list[Step]:
    if METHODS[method].missing:
        pytest.skip(f"{method} needs the package {METHODS[method].missing}")
    return [step for step in traced(method, problem, budget, seed=3) if step.variant == "lora"]


def _z(problem: Edge, config: Config) -> float:
    return laws(problem).coordinates.z(scope(problem, "lora").traits, config)


@pytest.mark.parametrize(
    "method", ["random from the prior", "pattern search", "Optuna TPE, prior", "Optuna GP, prior", "SMAC, prior"]
)
def test_peers_with_the_prior_begin_at_its_mode(method: str) -> None:
    problem = _problem()
    first, at = _steps(method, problem)[0].config, mode(problem, "lora")
    assert first.learning_rate == pytest.approx(at.learning_rate)
    assert (first.batch_size, first.rank, first.alpha) == (at.batch_size, at.rank, at.alpha)


@pytest.mark.parametrize("method", ["Optuna TPE, prior", "Optuna GP, prior"])
def test_optuna_with_the_prior_keeps_to_its_interval(method: str) -> None:
    problem = _problem()
    within = narrowed(problem, "lora").learning_rates
    assert isinstance(within, Range)
    assert 0.5 < math.log10(within.high / within.low) < 3
    assert all(within.contains(step.config.learning_rate) for step in _steps(method, problem))


def test_the_prior_leaves_the_learning_rates_as_they_are_where_it_lies_beyond_them() -> None:
    space = SPACE.model_copy(update={"learning_rate": Range(low=0.5, high=0.9)})
    assert narrowed(Edge("test", space=space), "lora") == space


def test_draws_from_the_prior_have_its_spread_about_the_laws() -> None:
    problem = _problem(rungs=(1.0,))
    found = sorted(abs(_z(problem, step.config)) for step in _steps("random from the prior", problem, 60.0))
    at = mode(problem, "lora")
    assert found[len(found) // 2] < 1.5 * laws(problem).spread(scope(problem, "lora").traits, at)


def test_smac_with_the_prior_draws_its_first_learning_rates_about_the_laws() -> None:
    problem = _problem()
    drawn = [step.config.learning_rate for step in _steps("SMAC, prior", problem)[:9]]  # the first bracket
    centre, sd = mode(problem, "lora").learning_rate, laws(problem).sd
    assert len(set(drawn)) == 9
    assert all(abs(math.log10(rate / centre)) < 4 * sd for rate in drawn)


def test_pattern_search_steps_along_the_rate_then_keeps_z_in_other_settings() -> None:
    problem = _problem()
    steps = _steps("pattern search", problem)
    assert all(step.fraction == 1.0 for step in steps)
    assert len({step.config for step in steps}) == len(steps)
    first, second = steps[0].config, steps[1].config
    assert abs(math.log10(second.learning_rate / first.learning_rate)) == pytest.approx(STEP)
    here = first.replaced(learning_rate=1.0)
    other = next(step.config for step in steps if step.config.replaced(learning_rate=1.0) != here)
    before = [step.config for step in steps[: [step.config for step in steps].index(other)]]
    assert any(_z(problem, other) == pytest.approx(_z(problem, each)) for each in before)


def test_pattern_search_walks_down_from_beyond_the_cliff() -> None:
    problem = _problem(offset=-1.5)
    steps = _steps("pattern search", problem, 4.0)
    assert steps[0].score is None
    assert steps[-1].score is not None


def test_three_short_runs_at_the_largest_rank_and_smallest_batch_then_the_best_to_the_end() -> None:
    problem = _problem()
    steps = _steps("three short runs", problem)
    three = [step.config for step in steps[:3]]
    assert {(step.config.batch_size, step.config.rank, step.fraction) for step in steps[:3]} == {(16, 32, RUNGS[0])}
    assert [_z(problem, each) for each in three] == pytest.approx([-STEP, 0.0, STEP])
    best = min(steps[:3], key=lambda step: math.inf if step.score is None else step.score)
    assert (steps[3].config, steps[3].fraction) == (best.config, 1.0)
    sides = [math.log10(step.config.learning_rate / best.config.learning_rate) for step in steps[4:6]]
    assert sorted(map(abs, sides)) == pytest.approx([STEP / 2, STEP / 2])


def test_three_short_runs_are_full_ones_where_a_problem_has_no_others() -> None:
    steps = _steps("three short runs", _problem(rungs=(1.0,)))
    assert {step.fraction for step in steps} == {1.0}
    assert steps[-1].spent > 7


@pytest.mark.parametrize("method", ["pattern search", "three short runs"])
def test_recipes_end_where_every_training_diverges(method: str) -> None:
    class Hopeless(Edge):
        def loss(self, variant: str, config: Config, fraction: float = 1.0) -> float:
            return math.inf

    problem = Hopeless("test", variants=("lora",), space=SPACE, rungs=RUNGS)
    ledger = Ledger(problem, 8.0, 0)
    METHODS[method].run(ledger)
    assert all(step.score is None for step in ledger.trace)


def test_values_are_the_inverse_of_a_configuration() -> None:
    problem = problems.get("hartmann/6-good", None)
    space, (variant,) = problem.space, problem.variants
    at = mode(problem, variant)
    assert config(space, variant, values(space, variant, at)) == at
    assert at.options == searchable.start(space, variants.get(variant), space.opening_rank)
