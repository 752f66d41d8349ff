"""The cap per variant holds at every moment, whatever happens and however many jobs are in flight."""

from __future__ import annotations

import random

import pytest

from autolora import WAIT, Search
from autolora.search import Job
from autolora.space import Config, Space
from tests.support.simulation import SPACE, loss, play

OWN = Config(learning_rate=2e-4, batch_size=8, rank=8, alpha=16.0)
FINITE = Space(learning_rate=[1e-4, 1e-3, 1e-2], batch_size=[8], rank=[4, 8], alpha="rank")


class Ledger:
    """Plays a search with random outcomes on several workers, and keeps its own account of what they train."""

    def __init__(self, search: Search, seed: int, workers: int) -> None:
        self.search = search
        self.workers = workers
        self.random = random.Random(seed)
        self.flying: list[Job] = []
        self.jobs: list[Job] = []
        self.trained = dict.fromkeys(search.plan.variants, 0.0)
        self.waits = 0

    def reserved(self, variant: str) -> float:
        return sum(job.stop - job.start for job in self.flying if job.variant == variant)

    def play(self) -> None:
        while self.step():
            pass

    def step(self) -> bool:
        job = self.search.ask() if len(self.flying) < self.workers else WAIT
        if isinstance(job, Job):
            self.flying.append(job)
            self.jobs.append(job)
        elif self.flying:
            self.waits += 1
            self.tell(self.flying.pop(self.random.randrange(len(self.flying))))
        else:
            assert job is None, "told to wait with nothing in flight"
            return False
        self.check()
        return True

    def tell(self, job: Job) -> None:
        outcome = self.random.choices(["score", "diverged", "infeasible", "lost"], [12, 4, 1, 1])[0]
        at = self.random.uniform(job.start, job.stop)
        if outcome == "score":
            self.search.tell(job, loss(job) + self.random.gauss(0, 0.3))
        elif outcome == "lost":
            self.search.tell(job, lost=True)
            return
        else:
            self.search.tell(job, at=at, **{outcome: True})
        self.trained[job.variant] += (job.stop if outcome == "score" else at) - job.start

    def check(self) -> None:
        for variant, trained in self.trained.items():
            account = trained + self.reserved(variant)
            assert account <= self.search.plan.budget + 1e-9
            assert self.search.spent[variant] >= account - 1e-9


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_the_budget_is_never_exceeded(workers):
    for seed in range(3):
        budget = random.Random(seed).choice([1, 1.5, 2, 3, 4, 5.2])
        Ledger(Search(variants=["lora", "pissa"], space=SPACE, budget=budget, seed=seed), seed, workers).play()


@pytest.mark.parametrize("rungs", [(1.0,), (0.5, 1.0), (0.1, 0.9, 1.0), (1 / 27, 1 / 9, 1 / 3, 1.0)])
def test_the_budget_is_never_exceeded_on_other_rungs(rungs):
    for seed in range(2):
        Ledger(Search(variants=["lora", "pissa"], space=SPACE, budget=2.5, rungs=rungs), seed, workers=4).play()


def test_the_budget_is_never_exceeded_in_a_finite_space():
    for seed in range(2):
        Ledger(Search(variants=["lora", "pissa"], space=FINITE, budget=8, seed=seed), seed, workers=4).play()


def test_what_is_said_to_be_spent_is_what_was_trained():
    for seed in range(2):
        search = Search(variants=["lora", "pissa"], space=SPACE, budget=4, seed=seed)
        ledger = Ledger(search, seed, workers=4)
        ledger.play()
        assert search.spent == pytest.approx(ledger.trained)


def test_no_trial_is_with_two_workers():
    for seed in range(3):
        ledger = Ledger(Search(variants=["lora", "pissa"], space=SPACE, budget=4), seed, workers=6)
        while ledger.step():
            numbers = [job.trial for job in ledger.flying]
            assert len(set(numbers)) == len(numbers)
            assert ledger.search.in_flight == set(numbers)


def test_every_trial_that_ended_has_a_reason_and_no_other_runs():
    for seed in range(2):
        search = Search(variants=["lora", "pissa"], space=SPACE, budget=4, seed=seed)
        Ledger(search, seed, workers=4).play()
        assert all(bool(trial.outcome) == bool(trial.reason) for trial in search.table.trials)
        assert not any(trial.pending for trial in search.table.trials)


def test_what_is_best_never_diverged_on_any_seed():
    for seed in range(4):
        search = Search(variants=["lora"], space=SPACE, budget=4, seed=seed)
        Ledger(search, seed, workers=3).play()
        failed = {trial.config for trial in search.table.trials if not trial.healthy}
        assert all(best.config not in failed for best in search.best().values())


def test_workers_are_kept_busy_while_there_is_room():
    """Nobody waits for another's score: the scores of a rung are not compared as one."""
    search = Search(variants=["lora"], space=SPACE, budget=3)
    flying = [search.ask() for _ in range(6)]
    assert all(isinstance(job, Job) for job in flying)
    assert [job.stop for job in flying] == pytest.approx([1 / 9] * 6)


def test_asking_while_waiting_changes_nothing():
    search = Search(variants=["lora"], space=SPACE, budget=1)
    for _ in search.plan.rungs:
        job = search.ask()
        assert [search.ask() for _ in range(3)] == [WAIT] * 3
        search.tell(job, 1.0)
    assert search.ask() is None
    assert len(search.table.trials) == 1


def test_a_baseline_is_charged_a_full_run_at_once():
    search = Search(variants=["lora"], space=SPACE, budget=4, baseline={"lora": OWN})
    search.ask()
    assert search.spent["lora"] == 1.0


def test_a_job_handed_out_is_charged_at_once():
    search = Search(variants=["lora"], space=SPACE, budget=4)
    for _ in range(2):
        search.ask()
    assert search.spent["lora"] == pytest.approx(2 / 9)


def test_a_diverged_trial_costs_what_it_trained():
    search = Search(variants=["lora"], space=SPACE, budget=4)
    search.tell(search.ask(), diverged=True, at=0.02)
    assert search.spent["lora"] == pytest.approx(0.02)


def test_a_diverged_trial_costs_its_job_where_nothing_else_is_said():
    search = Search(variants=["lora"], space=SPACE, budget=4)
    search.tell(search.ask(), diverged=True)
    assert search.spent["lora"] == pytest.approx(1 / 9)


def test_a_diverged_trial_costs_no_less_than_its_earlier_jobs():
    search = Search(variants=["lora"], space=SPACE, budget=1)
    while (job := search.ask()).start == 0.0:
        search.tell(job, loss(job))
    assert job.trial == 0
    search.tell(job, diverged=True, at=0.0)
    assert search.spent["lora"] == pytest.approx(1 / 9)


def test_lost_jobs_are_not_charged():
    search = Search(variants=["lora"], space=SPACE, budget=4)
    for _ in range(10):
        search.tell(search.ask(), lost=True)
    assert search.spent["lora"] == pytest.approx(1 / 9)
    assert search.table.trials[0].lost == 10


def test_a_larger_budget_continues(storage):
    small = Search(variants=["lora"], space=SPACE, budget=3, storage=storage)
    play(small, diverge=False)
    large = Search(variants=["lora"], space=SPACE, budget=8, storage=storage)
    assert large.table.trials == small.table.trials
    jobs = play(large, diverge=False)
    assert all(job.start >= large.plan.rungs[0] for job in jobs if job.trial < len(small.table.trials))
    assert 7 < large.spent["lora"] <= 8 + 1e-9


def test_a_larger_budget_keeps_one_baseline(storage):
    for budget in (1, 2, 4, 8):
        search = Search(variants=["lora"], space=SPACE, budget=budget, storage=storage, baseline={"lora": OWN})
        play(search, diverge=False)
    assert [trial.purpose for trial in search.table.trials].count("baseline") == 1


def test_growing_budgets_are_never_exceeded(storage):
    budget = 1.0
    for seed in range(4):
        Ledger(Search(variants=["lora", "pissa"], space=SPACE, budget=budget, storage=storage), seed, workers=3).play()
        budget += 1.3


def test_the_same_budget_again_has_nothing_to_do(storage):
    play(Search(variants=["lora"], space=SPACE, budget=4, storage=storage))
    assert Search(variants=["lora"], space=SPACE, budget=4, storage=storage).ask() is None


def test_a_smaller_budget_hands_out_nothing_more(storage):
    play(Search(variants=["lora"], space=SPACE, budget=8, storage=storage), diverge=False)
    search = Search(variants=["lora"], space=SPACE, budget=4, storage=storage)
    assert search.ask() is None
    assert search.best()["lora"].seeds


def test_a_smaller_budget_in_the_middle_of_the_search_is_not_exceeded(storage):
    first = Search(variants=["lora"], space=SPACE, budget=8, storage=storage)
    for _ in range(8):
        job = first.ask()
        first.tell(job, loss(job))
    spent = first.spent["lora"]
    search = Search(variants=["lora"], space=SPACE, budget=2.5, storage=storage)
    play(search, diverge=False)
    assert search.spent["lora"] <= max(2.5, spent) + 1e-9


def test_undecided_trials_stay_paused_and_go_on_with_a_larger_budget(storage):
    first = Search(variants=["lora"], space=SPACE, budget=8, storage=storage)
    for _ in range(4):
        job = first.ask()
        first.tell(job, loss(job))
    halted = Search(variants=["lora"], space=SPACE, budget=1, storage=storage)
    assert halted.ask() is None
    paused = [trial.number for trial in halted.table.trials if trial.live]
    assert paused
    again = Search(variants=["lora"], space=SPACE, budget=8, storage=storage)
    assert {job.trial for job in play(again, diverge=False)} & set(paused)


def test_a_finite_space_never_trains_a_configuration_twice():
    for seed in range(2):
        search = Search(variants=["lora", "pissa"], space=FINITE, budget=12, seed=seed)
        ledger = Ledger(search, seed, workers=4)
        ledger.play()
        runs = [(trial.variant, trial.config, trial.seed) for trial in search.table.trials]
        assert len(set(runs)) == len(runs)


def test_a_finite_space_is_tried_whole_and_ends():
    search = Search(variants=["lora"], space=FINITE, budget=20)
    play(search, diverge=False)
    configs = {trial.config for trial in search.table.trials}
    assert configs == set(FINITE.enumerate(search._sampler.traits["lora"]))
    assert all(not trial.live for trial in search.table.trials)
    assert search.best()["lora"].config in configs


def test_a_space_of_one_configuration_is_trained_and_confirmed():
    one = Space(learning_rate=1e-3, batch_size=8, rank=4, alpha=8)
    search = Search(variants=["lora"], space=one, budget=8)
    play(search, diverge=False)
    assert {trial.config for trial in search.table.trials} == {next(one.enumerate(search._sampler.traits["lora"]))}
    assert [trial.seed for trial in search.table.trials] == list(range(len(search.table.trials)))


def test_a_finite_space_resumes_to_the_same_end(storage):
    play(Search(variants=["lora"], space=FINITE, budget=8, storage=storage))
    again = Search(variants=["lora"], space=FINITE, budget=8, storage=storage)
    assert again.ask() is None


def test_a_search_that_a_larger_budget_continues_gets_a_seed_for_its_winner(tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    play(Search(["lora"], SPACE, budget=8, storage=storage))
    search = Search(["lora"], SPACE, budget=10, storage=storage)
    before = len(search.table.trials)
    play(search)
    purposes = [trial.purpose for trial in search.table.trials[before:]]
    assert "search" in purposes
    assert purposes[-1] == "confirm"
