"""What is decided from a table and what its trials promise, the promises made up."""

from __future__ import annotations

import pytest

from autolora.search.acquisition import Acquisition, Acquisitions, Proposal
from autolora.search.policy import (
    HOPELESS,
    PAUSED,
    Done,
    Finish,
    Plan,
    Promote,
    Resume,
    Sample,
    Wait,
    decide,
    seeds_kept,
)
from autolora.search.trials import Scored
from autolora.space import Config
from tests.support.history import History

RUNGS = (1 / 9, 1 / 3, 1.0)
NEW = Config(1.0, 8, 8, 8.0)


def config(number: int) -> Config:
    return Config(1e-3 * (1 + number), 8, 8, 8.0)


class Past(History):
    """A baseline of ``lora`` that scored 1, and trials added to it."""

    def __init__(self, baselines: tuple[str, ...] = ("lora",)) -> None:
        super().__init__(RUNGS)
        for variant in baselines:
            self.add(variant, config(0), purpose="baseline", target=2, outcome="complete")
            self.table.apply(Scored(len(self.table.trials) - 1, 2, 1.0))

    def paused(self, count: int = 1, rungs: int = 1, variant: str = "lora") -> Past:
        for _ in range(count):
            self.add(variant, config(len(self.table.trials)), *[1.5] * rungs)
        return self


def decided(past: History, budget=8.0, confirm=2, fresh=1.0, paused=None, in_flight=(), names=("lora",), baselines=()):
    """The next action, given expected improvements, of paused trials also with the probability of improvement."""
    given = {number: p if isinstance(p, tuple) else (p, 0.5) for number, p in (paused or {}).items()}
    known = {number: Acquisition(*pair) for number, pair in given.items()}

    def paused_acquisitions(variant: str) -> dict[int, Acquisition]:
        return {trial.number: known.get(trial.number, Acquisition(0.1, 0.5)) for trial in waiting(past, variant)}

    def acquisitions(variant: str, room: float) -> Acquisitions:
        new = None if fresh is None else Proposal(NEW, "made up", Acquisition(fresh, 0.5))
        return Acquisitions(new, paused_acquisitions(variant))

    plan = Plan(tuple(names), RUNGS, budget, confirm, frozenset(baselines))
    return decide(past.table, plan, acquisitions, paused_acquisitions, set(in_flight))


def waiting(past: History, variant: str):
    return [trial for trial in past.table.of(variant) if trial.live and not trial.pending and trial.reached < 2]


def test_every_variant_s_baseline_comes_first():
    past = Past(())
    for name in ("lora", "pissa"):
        given = ("lora", "pissa")
        action = decided(past, names=given, in_flight=range(len(past.table.trials)), baselines=given)
        assert (action.variant, action.purpose, action.target) == (name, "baseline", 0)
        past.add(name, config(0), purpose="baseline")


def test_the_larger_gain_is_chosen():
    past = Past().paused(2)
    assert decided(past, fresh=0.1, paused={1: 1.0, 2: 2.0}).number == 2
    assert decided(past, fresh=9.0, paused={1: 1.0, 2: 2.0}).config == NEW


def test_a_gain_counts_per_full_run_that_it_still_costs():
    near_the_end = Past().paused(1, rungs=2)
    assert isinstance(decided(near_the_end, fresh=1.0, paused={1: 0.67}), Promote)
    assert isinstance(decided(near_the_end, fresh=1.0, paused={1: 0.66}), Sample)
    at_the_start = Past().paused(1)
    assert isinstance(decided(at_the_start, fresh=1.0, paused={1: 0.88}), Sample)


def test_a_trial_is_promoted_by_one_rung_and_says_why():
    action = decided(Past().paused(1), fresh=0.0, paused={1: (1.0, 0.4)})
    assert action == Promote(1, 1, "40% to improve on trial 0, from 1.5 at 0.111 of a run")


def test_nothing_is_started_that_could_not_be_finished_beside_the_seeds_kept():
    past = Past()
    assert isinstance(decided(past, budget=4.0, confirm=2, fresh=1.0), Sample)
    assert decided(past, budget=3.9, confirm=2).purpose == "confirm"


def test_what_is_left_to_finish_a_paused_trial_is_used():
    past = Past().paused(1)
    assert isinstance(decided(past, budget=2.0, confirm=0), Promote)
    assert isinstance(decided(past, budget=1.99, confirm=0), Done)


def test_a_paused_trial_that_cannot_be_paid_leaves_a_cheaper_one():
    past = Past().paused(1).paused(1, rungs=2)
    action = decided(past, budget=1 + 4 / 9 + 2 / 3, confirm=0, paused={1: 9.0, 2: 0.1})
    assert action.number == 2


def test_a_trial_that_is_unlikely_to_improve_ends_with_chance_score_and_on_what():
    action = decided(Past().paused(2), paused={1: (1.0, 0.049), 2: (0.2, 0.9)})
    assert action == Finish(1, "pruned", "5% to improve on trial 0, from 1.5 at 0.111 of a run")


def test_a_trial_at_the_edge_of_futility_goes_on():
    assert not isinstance(decided(Past().paused(1), paused={1: (1.0, 0.05)}), Finish)


def test_no_chance_is_too_small_before_there_is_a_full_run():
    past = History(RUNGS).add("lora", config(0), purpose="baseline", target=2, outcome="diverged", at=0.1)
    past.add("lora", config(1), 1.5)
    assert not isinstance(decided(past, paused={1: (1.0, 0.0)}), Finish)


@pytest.mark.parametrize("baseline", ["complete", "running"])
def test_no_more_than_a_few_trials_wait(baseline):
    past = Past() if baseline == "complete" else History(RUNGS).add("lora", config(0), purpose="baseline", target=2)
    for number in range(1, PAUSED + 2):
        past.add("lora", config(number), 1.5)
        improvements = {waits: float(waits) for waits in range(1, number + 1)}
        action = decided(past, budget=20.0, fresh=99.0, paused=improvements, in_flight=[0])
        assert isinstance(action, Finish) == (number > PAUSED)
    assert (action.number, action.outcome) == (1, "pruned")
    assert action.reason.endswith(f"; {PAUSED} others promise more")


def test_a_decided_trial_of_another_variant_ends_before_anything_starts():
    past = Past(("lora", "pissa")).paused(1, variant="pissa")
    action = decided(past, paused={2: (0.0, 0.0)}, names=("lora", "pissa"))
    assert isinstance(action, Finish)


def test_paused_trials_stay_at_the_end_of_the_budget_and_go_on_under_a_larger_one():
    past = Past().paused(1)
    assert decided(past, budget=1.5, confirm=0) == Done()
    assert past.table.trials[1].live
    assert decided(past, budget=3.0, confirm=0, fresh=0.0).number == 1


def test_confirmation_starts_though_trials_are_paused():
    past = Past().paused(1)
    action = decided(past, budget=2.5, confirm=1)
    assert (action.purpose, action.config, action.seed, action.target) == ("confirm", config(0), 1, 2)


def test_confirmation_waits_for_searched_trials_under_way():
    past = Past().add("lora", config(1), 1.5, 1.4, target=2)
    assert isinstance(decided(past, budget=3.0, confirm=1, in_flight=[1]), Wait)


def test_nobody_waits_while_the_budget_has_room():
    past = Past()
    for number in range(1, 10):
        action = decided(past, budget=3.0, confirm=0, in_flight=range(1, number))
        assert isinstance(action, Sample)
        past.add("lora", config(number))


def test_what_is_under_way_is_charged():
    past = Past()
    for number in range(1, 11):
        past.add("lora", config(number))
    assert isinstance(decided(past, budget=3.0, confirm=0, in_flight=range(1, 11)), Wait)


def test_a_trial_that_nobody_has_is_handed_out_again_first():
    past = Past().add("lora", config(1)).paused(1)
    assert decided(past, paused={2: (0.0, 0.0)}) == Resume(1)


def test_the_variant_that_spent_least_goes_first():
    past = Past(("lora", "pissa")).paused(1)
    assert decided(past, names=("lora", "pissa")).variant == "pissa"


def test_a_variant_whose_trials_fail_in_a_row_is_given_up():
    past = Past()
    for number in range(1, HOPELESS + 1):
        assert isinstance(decided(past, confirm=0), Sample)
        past.add("lora", config(number), outcome="infeasible", at=0.0)
    assert decided(past, confirm=0) == Done()


def test_one_healthy_trial_among_the_failures_keeps_hope():
    past = Past()
    for number in range(1, HOPELESS + 1):
        past.add(
            "lora", config(number), *([1.5] if number == 9 else []), outcome="pruned" if number == 9 else "diverged"
        )
    assert isinstance(decided(past, budget=80.0, confirm=0), Sample)


def test_a_used_up_space_is_confirmed_with_what_is_left():
    assert decided(Past(), fresh=None, confirm=1).purpose == "confirm"
    assert decided(Past(), fresh=None, confirm=0) == Done()


@pytest.mark.parametrize(("budget", "seeds"), [(1, 0), (3.9, 0), (4, 1), (8, 2), (12, 3), (16, 4), (100, 4)])
def test_seeds_kept_for_confirmation(budget, seeds):
    assert seeds_kept("auto", budget) == seeds
