"""Bracket arithmetic, and what a budget buys."""

from __future__ import annotations

import pytest
from simulation import SPACE, play, searched

from autolora.search import Search, brackets

RUNGS = (1 / 9, 1 / 3, 1.0)


@pytest.mark.parametrize(
    ("size", "widths", "cost"),
    [(9, (9, 3, 1), 7 / 3), (6, (6, 2, 1), 16 / 9), (3, (3, 1, 1), 11 / 9), (1, (1, 1, 1), 1.0)],
)
def test_widths_and_cost(size, widths, cost):
    assert brackets.widths(size, RUNGS) == widths
    assert brackets.cost(size, RUNGS) == pytest.approx(cost)


def test_costs_as_the_design_rounds_them():
    assert [round(brackets.cost(size, RUNGS), 2) for size in (9, 6)] == [2.33, 1.78]


def test_promotion_cost_is_what_the_first_rung_leaves():
    assert brackets.promotion_cost(9, RUNGS) == pytest.approx(7 / 3 - 1)


def test_sizes_are_multiples_of_the_reduction_factor():
    assert brackets.sizes(RUNGS, first=False) == [9, 6, 3]


def test_a_first_bracket_may_be_smaller():
    assert brackets.sizes(RUNGS, first=True) == [9, 6, 3, 2, 1]


@pytest.mark.parametrize("rungs", [(1.0,), (0.5, 1.0), (0.9, 1.0), (0.1, 0.9, 1.0), (1 / 27, 1 / 9, 1 / 3, 1.0)])
def test_any_rungs_give_brackets_that_narrow_to_at_least_one(rungs):
    for size in brackets.sizes(rungs, first=True):
        widths = brackets.widths(size, rungs)
        assert list(widths) == sorted(widths, reverse=True)
        assert widths[-1] >= 1


@pytest.mark.parametrize(
    ("budget", "first", "size"),
    [(2.34, False, 9), (7 / 3, False, 9), (2.33, False, 6), (1.2, False, None), (1.2, True, 2)],
)
def test_the_largest_bracket_that_fits(budget, first, size):
    assert brackets.fitting(budget, RUNGS, first) == size


@pytest.mark.parametrize(("budget", "seeds"), [(1, 0), (3.9, 0), (4, 1), (8, 2), (12, 3), (16, 4), (100, 4)])
def test_seeds_kept_for_confirmation(budget, seeds):
    assert brackets.confirmation_seeds(budget) == seeds


@pytest.mark.parametrize(
    ("budget", "sizes", "confirmed", "spent"),
    [
        (1, [], 0, 1.0),
        (2, [1], 0, 2.0),
        (3, [6], 0, 1 + 16 / 9),
        (4, [6], 1, 1 + 16 / 9 + 1),
        (5, [9], 1, 1 + 7 / 3 + 1),
        (8, [9, 9], 2, 1 + 14 / 3 + 2),
        # Three brackets leave one full run over, and it buys one more seed: two for each finalist.
        (12, [9, 9, 9], 4, 12.0),
        (20, [9] * 6, 5, 20.0),
    ],
)
def test_what_a_budget_buys(budget, sizes, confirmed, spent):
    search = Search(variants=["lora"], space=SPACE, budget=budget)
    play(search, diverge=False)
    purposes = [trial.purpose for trial in search.table.of("lora")]
    assert purposes.count("baseline") == 1
    assert [bracket.size for bracket in search.table.brackets("lora")] == sizes
    assert purposes.count("confirm") == confirmed
    assert search.spent["lora"] == pytest.approx(spent)


def test_each_bracket_scores_the_widths_of_its_size():
    search = Search(variants=["lora"], space=SPACE, budget=8)
    play(search, diverge=False)
    for bracket, trials in search.table.brackets("lora").items():
        scored = tuple(sum(rung in trial.scores for trial in trials) for rung in range(3))
        assert scored == brackets.widths(bracket.size, RUNGS)


def test_no_further_seeds_where_none_are_asked_for():
    search = Search(variants=["lora"], space=SPACE, budget=8, confirm=0)
    play(search, diverge=False)
    assert {trial.purpose for trial in search.table.of("lora")} == {"baseline", "search"}
    assert [bracket.size for bracket in search.table.brackets("lora")] == [9, 9, 9]


def test_every_variant_gets_the_budget():
    search = Search(variants=["lora", "pissa"], space=SPACE, budget=4)
    play(search, diverge=False)
    assert search.spent == pytest.approx({"lora": 1 + 16 / 9 + 1, "pissa": 1 + 16 / 9 + 1})
    assert len(searched(search, "lora")) == len(searched(search, "pissa")) == 6
