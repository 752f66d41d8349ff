"""The benchmark's own variations of the search: given priors, parts left out, and the tables that compare them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from autolora import variants
from autolora.search.sampler import Sampler
from autolora.space import Config, Space, searchable
from studies.search import decisions, prior_methods, problems
from studies.search.ablation_methods import Lawless, no_early_stop, promotion_by_rank
from studies.search.comparisons import ablations, differences, given_priors
from studies.search.edge import PLATEAU, Edge
from studies.search.ledger import Ledger
from studies.search.loop import Loop, by_policy
from studies.search.measures import GRID, Outcome
from studies.search.methods import GROUPS, METHODS, OWN, UNINFORMED, in_group
from studies.search.own_methods import laws, with_laws
from studies.search.rows import Row
from studies.search.run import keys

SPACE = Space(learning_rate=(1e-5, 1e-1), batch_size=[16, 64], rank=[8], alpha="rank", hidden_size=2048)
RUNGS = (1 / 9, 1 / 3, 1.0)
DECADE = 10.0


@pytest.fixture
def problem() -> Edge:
    return Edge("test", variants=("lora", "pissa"), space=SPACE, rungs=RUNGS)


def _sampler(problem: Edge, kind: type[Sampler] = Sampler) -> Sampler:
    prior = laws(problem) if kind is Sampler else None
    traits = {name: searchable.traits_at_start(problem.space, variants.get(name)) for name in problem.variants}
    return kind(problem.space, traits, prior, problem.rungs, 3, dict.fromkeys(problem.variants, ()))


def _row(method: str, repeat: int, value: float, name: str = "edge/test") -> Row:
    return Row(name, method, repeat, 0, "lora", Outcome((value,) * len(GRID), value, value, value, 12.0), 0.0)


def test_the_loop_with_the_policy_is_the_search(problem: Edge) -> None:
    searched, looped = Ledger(problem, 4.0, 3), Ledger(problem, 4.0, 3)
    with_laws(searched)
    by_policy(Loop(looped, _sampler(problem)))
    assert looped.trace == searched.trace


def test_by_rank_nine_begin_three_go_on_and_one_is_finished() -> None:
    problem = Edge("test", variants=("lora",), space=SPACE.model_copy(update={"rank": [4, 8, 16]}), rungs=RUNGS)
    ledger = Ledger(problem, 2.5, 1)
    promotion_by_rank(ledger)
    first = [step for step in ledger.trace if step.fraction == RUNGS[0]]
    second = [step for step in ledger.trace if step.fraction == RUNGS[1]]
    assert len(first) == 9
    assert len(second) == 3
    kept = sorted((step for step in first if step.score is not None), key=lambda step: step.score or 0.0)[:3]
    assert {step.config for step in second} == {step.config for step in kept}
    assert ledger.trace[-1].fraction == 1.0


def test_without_early_stops_every_trial_goes_to_the_end_unless_it_diverges(problem: Edge) -> None:
    ledger = Ledger(problem, 4.0, 1)
    no_early_stop(ledger)
    for variant in problem.variants:
        own = [step for step in ledger.trace if step.variant == variant]
        last = {step.config: step for step in own}
        assert len(last) >= 4
        assert all(step.fraction == 1.0 or step.score is None for step in last.values())


def test_without_the_laws_z_is_the_learning_rate_alone_and_the_exponents_are_to_be_learned(problem: Edge) -> None:
    sampler = _sampler(problem, Lawless)
    configs = [Config(1e-3, batch, rank, alpha) for batch, rank, alpha in ((16, 8, 8.0), (64, 32, 64.0))]
    for variant in problem.variants:
        assert {sampler.coordinates.z(sampler.traits[variant], config) for config in configs} == {0.0}
    with_them = _sampler(problem)
    assert with_them.coordinates.z(with_them.traits["lora"], configs[0]) != pytest.approx(
        with_them.coordinates.z(with_them.traits["lora"], configs[1])
    )


@pytest.mark.parametrize("offset", [-0.8, 0.6])
def test_extremes_lie_on_the_plateau_and_off_it(offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_methods, "DRAWS", 2000)
    problem = Edge("test", offset=offset, variants=("lora",), space=SPACE)
    found = prior_methods.extremes(problem)
    mode = laws(problem).mode(problem.space, searchable.traits_at_start(problem.space, variants.get("lora")))
    at = Config(mode.learning_rate * 10**found.best, mode.batch_size, mode.rank, mode.alpha)
    assert -PLATEAU - 0.2 < math.log10(at.learning_rate) - problem.cliff("lora", at) < 0.1
    assert abs(found.worst - found.best) > PLATEAU / 2


@pytest.mark.parametrize(("method", "factor"), [("good", 1.0), ("too_high", DECADE), ("too_low", 1 / DECADE)])
def test_given_priors_begin_where_they_say(method: str, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_methods, "DRAWS", 400)
    problem = Edge("test", variants=("lora",), space=SPACE, rungs=RUNGS)
    ledger = Ledger(problem, 1.0, 0)
    getattr(prior_methods, method)(ledger)
    mode = laws(problem).mode(problem.space, searchable.traits_at_start(problem.space, variants.get("lora")))
    good = mode.learning_rate * 10 ** prior_methods.extremes(problem).best
    assert ledger.trace[0].config.learning_rate == pytest.approx(factor * good)


def test_medium_priors_differ_by_repeat(problem: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_methods, "DRAWS", 400)
    firsts = set()
    for seed in range(3):
        ledger = Ledger(problem, 1.0, seed)
        prior_methods.medium(ledger)
        firsts.add(ledger.trace[0].config.learning_rate)
    assert len(firsts) == 3


def test_curvature_moves_the_measured_variants_and_is_charged() -> None:
    problem = problems.get("curves/stories260k", None)
    prior = prior_methods.informed(problem)
    assert list(prior.shifts) == ["pissa"]
    ledger = Ledger(problem, 2.0, 0)
    prior_methods.curvature(ledger)
    assert ledger.trace[0].spent == pytest.approx(1 / 9 + prior_methods.CURVATURE_COST / 2)
    assert all(ledger.left(name) >= -1e-6 for name in problem.variants)


def test_every_method_has_a_group_and_is_run_only_where_it_can_be() -> None:
    assert sorted(name for group in GROUPS for name in in_group(group)) == sorted(METHODS)
    assert {OWN, UNINFORMED} < set(in_group("peers"))
    wanted = keys(["edge/unbiased", "curves/quickstart"], [OWN, "curvature"], repeats=1)
    assert wanted == [("edge/unbiased", OWN, 0), ("curves/quickstart", OWN, 0), ("curves/quickstart", "curvature", 0)]


def test_differences_are_paired_and_leave_out_what_one_lacks() -> None:
    own = [_row("a", 0, 3.0), _row("a", 1, 5.0), _row("a", 2, 9.0)]
    other = [_row("b", 1, 1.0), _row("b", 0, 2.0)]
    assert differences(own, other, lambda row: row.outcome.chosen) == {"edge/test": {0: 1.0, 1: 4.0}}


def test_tables_mark_what_is_worse_for_certain() -> None:
    rows = [_row(OWN, repeat, 2.0) for repeat in range(5)] + [_row("no laws", repeat, 5.0) for repeat in range(5)]
    rows += [_row(UNINFORMED, repeat, 3.0) for repeat in range(5)]
    rows += [_row("autolora, prior 10x too low", repeat, value) for repeat, value in enumerate((1.0, 5.0, 2.5, 3.5, 3))]
    assert _cells(list(ablations(rows)), "no laws")[0] == "5.00 (5.00 to 5.00)<br>**+3.00 (3.00 to 3.00)**"
    assert "**" not in _cells(list(given_priors(rows)), "autolora, prior 10x too low")[0]
    assert "**" not in _cells(list(given_priors(rows)), OWN)[0]
    assert _cells(list(given_priors(rows)), OWN)[0].endswith("<br>-1e+02 (-1e+02 to -1e+02)")


def _cells(lines: Sequence[str], method: str) -> list[str]:
    line = next(line for line in lines if line.startswith(f"| {method} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_decisions_are_timed_after_so_many_trials() -> None:
    asks, tells, scores = decisions.timed(trials=7, decisions=2)
    assert len(asks) == len(tells) >= scores > 5
    assert np.min(asks) > 0
