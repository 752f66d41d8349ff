"""The short runs that a variant begins with."""

from __future__ import annotations

import pytest

from autolora import Search
from autolora.search.opening import SHORT_RUNS, STEP
from autolora.space import Config, Space
from tests.support.history import TRAITS, History, at, sampler, z_of
from tests.support.simulation import SPACE, loss

OWN = Config(learning_rate=2e-4, batch_size=8, rank=8, alpha=16.0)


def begun(search: Search, count: int = SHORT_RUNS, **outcome):
    """The first jobs, told one after the other."""
    jobs = []
    for _ in range(count):
        jobs.append(search.ask())
        search.tell(jobs[-1], **(outcome or {"value": loss(jobs[-1])}))
    return jobs


def zs(jobs) -> list[float]:
    return [z_of(job.variant, job.config) for job in jobs]


def test_the_first_is_the_prior_s_mode_at_the_largest_rank_and_the_smallest_batch():
    search = Search(variants=["lora"], space=SPACE, budget=4)
    config = search.ask().config
    assert (config.rank, config.batch_size) == (max(SPACE.rank), min(SPACE.batch_size))
    assert search.table.trials[0].origin == "prior's mode"
    assert config == search.prior.mode(SPACE, TRAITS["lora"])


def test_the_others_lie_a_step_below_and_above_at_the_same_setting():
    first, *others = begun(Search(variants=["lora"], space=SPACE, budget=4))
    middle, *beside = zs([first, *others])
    assert beside == pytest.approx([middle - STEP, middle + STEP])
    assert {(job.config.rank, job.config.batch_size, job.config.alpha) for job in [first, *others]} == {
        (first.config.rank, first.config.batch_size, first.config.alpha)
    }


def test_nothing_is_trained_on_before_they_have_spoken():
    jobs = begun(Search(variants=["lora"], space=SPACE, budget=4))
    assert [(job.start, job.stop) for job in jobs] == [(0.0, pytest.approx(1 / 9))] * SHORT_RUNS


def test_several_workers_get_different_ones():
    search = Search(variants=["lora"], space=SPACE, budget=8)
    assert len({search.ask().config for _ in range(8)}) == 8


def test_none_lies_at_or_above_a_rate_that_diverged():
    search = Search(variants=["lora"], space=SPACE, budget=4)
    first = search.ask()
    search.tell(first, diverged=True, at=0.01)
    assert all(place < zs([first])[0] for place in zs(begun(search, SHORT_RUNS - 1)))


def test_a_setting_that_cannot_be_trained_is_left():
    search = Search(variants=["lora"], space=SPACE, budget=4)
    search.tell(search.ask(), infeasible=True, at=0.0)
    search.ask()
    assert search.table.trials[1].origin.startswith("model: ")


def test_the_model_begins_where_a_full_run_is_the_shortest():
    search = Search(variants=["lora"], space=SPACE, budget=4, rungs=(1.0,))
    begun(search, 2)
    assert all(trial.origin.startswith("model: ") for trial in search.table.trials)


def test_one_is_all_where_the_learning_rate_is_pinned():
    pinned = Space(learning_rate=1e-3, batch_size=[8, 32], rank=[4, 8], alpha="rank")
    search = Search(variants=["lora"], space=pinned, budget=4)
    begun(search, 2)
    assert [trial.origin.partition(":")[0] for trial in search.table.trials] == ["prior's mode", "model"]


def test_a_budget_of_one_run_has_one():
    search = Search(variants=["lora"], space=SPACE, budget=1)
    jobs = begun(search, len(search.plan.rungs))
    assert {job.trial for job in jobs} == {0}
    assert search.best()["lora"].trials == (0,)


def test_the_user_s_baseline_comes_before_them():
    search = Search(variants=["lora"], space=SPACE, budget=8, baseline={"lora": OWN})
    jobs = begun(search, len(search.plan.rungs) + 1)
    assert [job.trial for job in jobs] == [0, 0, 0, 1]
    assert search.table.trials[1].origin.startswith("prior's mode")


def test_a_baseline_at_the_prior_s_mode_is_the_first_of_them():
    mode = Search(variants=["lora"], space=SPACE, budget=8).preview(1)[0].config
    search = Search(variants=["lora"], space=SPACE, budget=8, baseline={"lora": mode})
    jobs = begun(search, len(search.plan.rungs) + 2)
    middle, below, above = zs([jobs[0], *jobs[-2:]])
    assert [below, above] == pytest.approx([middle - STEP, middle + STEP])
    assert search.table.trials[1].origin == "opening: 0.25 decades below the prior's mode"


def test_a_baseline_that_diverged_below_the_mode_leaves_out_what_lies_above():
    mode = Search(variants=["lora"], space=SPACE, budget=8).preview(1)[0].config
    low = mode.replaced(learning_rate=mode.learning_rate * 10**-0.3)
    search = Search(variants=["lora"], space=SPACE, budget=8, baseline={"lora": low})
    search.tell(search.ask(), diverged=True, at=0.01)
    begun(search)
    assert all(trial.config.learning_rate < low.learning_rate for trial in search.table.trials[1:])


def test_it_is_over_once_the_model_has_begun():
    """As in a study of an earlier version, or where somebody asked for a trial of their own."""
    history = History()
    history.add("lora", at(0.5), 1.0)
    made = sampler()
    proposal = made.acquisitions(history.table, "lora", made.surrogate(history.table)).proposal
    assert proposal.origin.startswith("model: ")


def test_the_preview_ends_where_the_model_would_choose_without_scores():
    search = Search(variants=["lora", "dora"], space=SPACE, budget=8)
    assert len(search.preview(20)) == 2 * SHORT_RUNS
    assert len(Search(variants=["lora"], space=SPACE, budget=8, prior=None).preview(20)) == 1


def test_without_a_prior_the_model_begins():
    search = Search(variants=["lora"], space=SPACE, budget=4, prior=None)
    begun(search)
    assert all(trial.origin.startswith("model: ") for trial in search.table.trials)
