"""What the mechanism does with the trials: baselines first, promotion, divergence, confirmation."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import pytest

from autolora import WAIT, Search
from autolora.space import Config
from tests.support.simulation import SPACE, loss, play, searched

OWN = Config(learning_rate=2e-4, batch_size=8, rank=8, alpha=16.0)


def test_the_baseline_of_every_variant_comes_first():
    names = ["lora", "pissa", "dora"]
    search = Search(variants=names, space=SPACE, budget=4, baseline=dict.fromkeys(names, OWN))
    assert [search.ask().variant for _ in range(3)] == names
    assert {trial.purpose for trial in search.table.trials} == {"baseline"}


def test_a_baseline_is_trained_to_the_end_before_anything_else_however_bad():
    search = Search(variants=["lora"], space=SPACE, budget=4, baseline={"lora": OWN})
    for start, stop in zip((0.0, 1 / 9, 1 / 3), search.plan.rungs, strict=True):
        job = search.ask()
        assert (job.trial, job.start, job.stop) == (0, start, stop)
        search.tell(job, 1e6)
    assert search.ask().trial == 1


def test_nothing_is_forced_to_the_end_if_no_baseline_is_given():
    search = Search(variants=["lora"], space=SPACE, budget=4)
    jobs = play(search, score=lambda job: 1e6 if job.trial == 0 else loss(job), diverge=False)
    assert [job.stop for job in jobs if job.trial == 0] == pytest.approx([1 / 9])


def test_the_user_s_baseline_is_used_as_given_even_outside_the_space():
    own = Config(learning_rate=0.3, batch_size=5, rank=7, alpha=11.0)
    search = Search(variants=["lora", "pissa"], space=SPACE, baseline={"lora": own})
    assert search.ask().config == own
    assert search.ask().config != own
    assert search.table.trials[0].origin == "the user's baseline"


def test_no_searched_trial_leaves_the_space_for_a_baseline_outside_it():
    own = Config(learning_rate=2e-3, batch_size=5, rank=7, alpha=11.0)
    search = Search(variants=["lora"], space=SPACE, baseline={"lora": own}, budget=6)
    play(search, score=lambda job: 0.0 if job.config == own else loss(job))
    for trial in searched(search, "lora"):
        assert trial.config.rank in SPACE.rank
        assert trial.config.batch_size in SPACE.batch_size
        assert SPACE.learning_rate == "auto" or SPACE.learning_rates.contains(trial.config.learning_rate)


def test_promotion_continues_a_trial_from_where_it_stopped():
    search = Search(variants=["lora"], space=SPACE, budget=4)
    jobs = play(search, diverge=False)
    for trial in search.table.trials:
        mine = [job for job in jobs if job.trial == trial.number]
        assert [job.start for job in mine] == [0.0, *(job.stop for job in mine[:-1])]
        assert len({job.config for job in mine}) == 1


def test_a_diverged_trial_is_never_promoted_or_best():
    search = Search(variants=["lora"], space=SPACE, budget=4)
    jobs = []
    while (job := search.ask()) is not None:
        jobs.append(job)
        if job.trial % 3 == 2:
            search.tell(job, diverged=True, at=job.start + 0.02)
        else:
            search.tell(job, loss(job))
    diverged = {trial.number for trial in search.table.trials if trial.outcome == "diverged"}
    assert diverged
    assert not diverged & set(search.best()["lora"].trials)
    last = {job.trial: place for place, job in enumerate(jobs)}
    assert all([job.trial for job in jobs].count(number) == 1 for number in diverged)
    assert all(search.table.trials[jobs[last[number]].trial].outcome == "diverged" for number in diverged)


def test_a_diverged_baseline_leaves_the_rest_of_the_search():
    search = Search(variants=["lora"], space=SPACE, budget=4, baseline={"lora": OWN})
    search.tell(search.ask(), diverged=True, at=0.1)
    play(search, diverge=False)
    best = search.best()["lora"]
    assert best.baseline is None
    assert best.trials[0] != 0


def test_nothing_finished_is_no_best():
    search = Search(variants=["lora"], space=SPACE, budget=1)
    search.tell(search.ask(), diverged=True)
    assert search.ask() is None
    assert search.best() == {}


def test_a_variant_of_which_every_trial_fails_at_once_is_given_up():
    """Such trials cost nothing and would never use up the budget."""
    search = Search(variants=["lora"], space=SPACE, budget=8)
    while (job := search.ask()) is not None:
        search.tell(job, infeasible=True, at=0.0)
    assert 20 <= len(searched(search, "lora")) <= 36
    assert search.best() == {}


def test_the_finalists_get_equal_numbers_of_further_seeds():
    search = Search(variants=["lora"], space=SPACE, budget=7, confirm=4)
    play(search, diverge=False)
    confirmed = [trial.config for trial in search.table.trials if trial.purpose == "confirm"]
    assert len(set(confirmed)) == 2
    assert confirmed.count(confirmed[0]) == confirmed.count(confirmed[1]) == 2


def test_further_seeds_are_new_seeds_at_full_length():
    search = Search(variants=["lora"], space=SPACE, budget=6, confirm=3)
    jobs = play(search, diverge=False)
    confirm = [job for job in jobs if search.table.trials[job.trial].purpose == "confirm"]
    seeds = {(job.config, job.seed) for job in confirm}
    assert len(seeds) == len(confirm)
    assert all(job.seed > 0 and (job.start, job.stop) == (0.0, 1.0) for job in confirm)


def test_searched_trials_share_one_seed():
    search = Search(variants=["lora"], space=SPACE, budget=4)
    play(search)
    assert {trial.seed for trial in search.table.trials if trial.purpose != "confirm"} == {0}


def test_a_lucky_seed_does_not_win():
    search = Search(variants=["lora"], space=SPACE, budget=8)
    first: list[Config] = []

    def score(job):
        """The first full-length run is lucky, and bad on every other seed."""
        if job.stop == 1.0 and not first:
            first.append(job.config)
        if job.config in first:
            return 0.1 if job.seed == 0 else 9.0
        return loss(job)

    play(search, score=score, diverge=False)
    best = search.best()["lora"]
    assert best.config not in first
    assert len(best.seeds) > 1


def test_a_finalist_that_diverges_on_another_seed_is_out():
    search = Search(variants=["lora"], space=SPACE, budget=8)
    leader = None
    while (job := search.ask()) is not None:
        if search.table.trials[job.trial].purpose == "confirm" and leader is None:
            leader = job.config
            search.tell(job, diverged=True, at=0.5)
        else:
            search.tell(job, loss(job))
    best = search.best()["lora"]
    assert best.config != leader
    assert len(best.seeds) > 1


def test_confirmation_keeps_several_workers_busy():
    search = Search(variants=["lora"], space=SPACE, budget=8)
    while all(trial.purpose != "confirm" for trial in search.table.trials):
        job = search.ask()
        if search.table.trials[job.trial].purpose != "confirm":
            search.tell(job, loss(job))
    other = search.ask()
    assert other is not WAIT
    assert search.table.trials[other.trial].purpose == "confirm"
    assert other.config != job.config
    assert search.ask() is WAIT


def test_few_repeats_take_the_spread_pooled_over_variants():
    search = Search(variants=["lora", "pissa"], space=SPACE, budget=4)
    half = {"lora": 1.0, "pissa": 2.0}
    play(
        search, score=lambda job: loss(job) + half[job.variant] * (2 * (job.seed > 0) - 0.003 * job.seed), diverge=False
    )
    best = search.best()
    assert len(best["lora"].seeds) == len(best["pissa"].seeds) == 2
    spreads = [abs(b.seeds[1] - b.seeds[0]) / 2 for b in best.values()]
    assert best["lora"].spread == best["pissa"].spread == pytest.approx(math.hypot(*spreads))


def test_three_seeds_have_a_spread_of_their_own():
    search = Search(variants=["lora"], space=SPACE, budget=7, confirm=4)
    play(search, diverge=False)
    best = search.best()["lora"]
    assert len(best.seeds) == 3
    assert best.spread == pytest.approx(stdev(best.seeds))
    assert best.value == pytest.approx(fmean(best.seeds))


def test_without_repeats_there_is_no_spread():
    search = Search(variants=["lora"], space=SPACE, budget=4, confirm=0)
    play(search, diverge=False)
    best = search.best()["lora"]
    assert best.spread is None
    assert len(best.seeds) == 1


@pytest.mark.parametrize("rungs", [(1.0,), (0.5, 1.0), (1 / 27, 1 / 9, 1 / 3, 1.0)])
def test_other_rungs(rungs):
    search = Search(variants=["lora"], space=SPACE, budget=8, rungs=rungs)
    play(search, diverge=False)
    assert 7 < search.spent["lora"] <= 8 + 1e-9
    assert not any(trial.pending for trial in search.table.trials)
