"""What a time budget allows, on a simulated clock: no training, no waiting."""

from __future__ import annotations

import heapq
import itertools
import json
import logging
from pathlib import Path

import pytest

from autolora import Search, variants
from autolora.driver.clock import TIME_FILE, Clock
from autolora.driver.paces import Paces
from autolora.driver.timing import TimeUp, Timing
from autolora.search import WAIT, Job
from autolora.search.acquisition import Acquisitions
from autolora.search.policy import Done, Limit, Plan, Resume, decide
from autolora.search.shares import SLACK, limits
from autolora.space import Config
from autolora.trainers import Outcome, Progress
from tests.support.history import History
from tests.support.simulation import SPACE, loss

STEPS = 90
EVALUATION, OVERHEAD = 0.5, 0.2


class Simulation:
    """A study on workers that take as long as is said, and no time to decide.

    Args:
        limit: of time.
        workers: that train at once.
        seconds: of the training of a full run, by variant.
        slower: by what trials get slower once ``slower_after`` seconds have passed.
    """

    def __init__(self, folder, limit, workers=1, seconds=None, budget=8.0, slower=1.0, slower_after=1e9, **terms):
        self.now, self.workers = 0.0, workers
        self.seconds = seconds or {"lora": 10.0}
        self.slower, self.slower_after = slower, slower_after
        self.search = Search({name: variants.get(name) for name in self.seconds}, SPACE, budget, **terms)
        clock = Clock(folder, limit, now=lambda: self.now)
        paces = Paces(self.search.table, now=clock.now)
        self.timing = Timing(clock, list(self.seconds), paces, in_process=True)
        self.events: list[tuple[float, int, str, Job, object]] = []
        self.order = itertools.count()
        self.interrupted: list[int] = []

    def run(self) -> Simulation:
        """Train until the search says that it is over, or time is up; the rest is interrupted."""
        jobs: dict[int, Job] = {}
        try:
            while True:
                self.timing.check(self.search)
                while len(jobs) < self.workers:
                    job = self.timing.ask(self.search, self.workers)
                    if job is None or job is WAIT:
                        break
                    jobs[job.trial] = job
                    self._start(job)
                if not jobs:
                    return self
                self._next(jobs)
        except TimeUp:
            self.interrupted = list(jobs)
            return self

    def _start(self, job: Job) -> None:
        self.timing.paces.started(job)
        factor = self.slower if self.now >= self.slower_after else 1.0
        step = factor * self.seconds[job.variant] / STEPS
        first, last = round(job.start * STEPS), round(job.stop * STEPS)
        for number in range(first + 1, last + 1):
            self._push(self.now + OVERHEAD + step * (number - first), "step", job, number)
        took = OVERHEAD + step * (last - first) + EVALUATION
        self._push(self.now + took, "end", job, took)

    def _push(self, at: float, kind: str, job: Job, what: object) -> None:
        heapq.heappush(self.events, (at, next(self.order), kind, job, what))

    def _next(self, jobs: dict[int, Job]) -> None:
        self.now, _, kind, job, what = heapq.heappop(self.events)
        if kind == "step":
            self.timing.stepped(self.search, Progress(job.trial, what, STEPS, 1.0))
            return
        before = self.search.table.trials[job.trial].seconds
        outcome = Outcome(job.trial, "scored", loss(job), job.stop, "", before + what, evaluation=EVALUATION)
        self.timing.told(self.search, jobs.pop(job.trial), outcome)
        self.search.tell(job, outcome.value, seconds=outcome.seconds)

    def complete(self, variant: str = "lora") -> int:
        return len(self.search.table.complete(variant))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("limit", [15.0, 40.0, pytest.param(200.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("names", [("lora",), ("lora", "pissa", "dora")])
def test_it_ends_in_time_and_uses_what_there_is(tmp_path, limit, workers, names):
    seconds = {name: 6.0 + 2 * place for place, name in enumerate(names)}
    played = Simulation(tmp_path, limit, workers, seconds, budget=1000.0).run()
    assert played.now <= limit
    assert not played.interrupted
    assert played.now > limit - 20  # at most what a full run, and the conclusion, take
    assert any(played.complete(name) for name in names)


def test_a_budget_that_fits_is_spent_as_without_a_time_budget(tmp_path):
    limited = Simulation(tmp_path, 1e6).run()
    free = Simulation(tmp_path, None)
    free.timing.ask = lambda search, workers: search.ask()
    free.timing.check = free.timing.stepped = lambda *_: None
    free.run()
    seen = [
        [(trial.config, trial.seed, trial.scores, trial.reason) for trial in each.search.table.trials]
        for each in (limited, free)
    ]
    assert seen[0] == seen[1]
    assert limited.timing.reason(limited.search) == ""


def test_the_reason_names_what_was_spent(tmp_path):
    played = Simulation(tmp_path, 40.0).run()
    assert "time_budget, 40 s, ended the search at lora" in played.timing.reason(played.search)


def test_seeds_for_the_finalists_are_kept_of_what_time_allows(tmp_path):
    played = Simulation(tmp_path, 100.0, budget=16.0).run()
    spent = played.search.spent["lora"]
    assert 6 < spent < 12
    assert len(played.search.table.confirming("lora")) == 2, "of four at the whole budget"


def test_where_no_full_run_fits_short_ones_are_trained_and_that_is_said(tmp_path):
    with pytest.warns(UserWarning, match="not even one full run fits"):
        played = Simulation(tmp_path, 30.0, seconds={"lora": 100.0}, budget=8.0).run()
    assert not played.complete()
    assert sum(bool(trial.scores) for trial in played.search.table.trials) >= 1
    assert played.now <= 30.0


def test_time_for_a_single_full_run_is_not_shared_by_all_variants(tmp_path):
    played = Simulation(tmp_path, 22.0, seconds=dict.fromkeys(("lora", "pissa", "dora"), 12.0)).run()
    assert sorted(played.complete(name) for name in ("lora", "pissa", "dora")) == [0, 0, 1]


def test_trials_that_get_slower_are_interrupted_in_time(tmp_path):
    played = Simulation(tmp_path, 30.0, workers=2, budget=100.0, slower=10.0, slower_after=15.0).run()
    assert played.interrupted
    assert played.now <= 30.0


def test_a_score_that_would_come_too_late_is_not_begun(tmp_path):
    """An evaluation cannot be interrupted: the step before it is the last moment."""
    simulation = Simulation(tmp_path, 60.0)
    simulation.run()
    search, timing = simulation.search, simulation.timing
    trial = search.table.trials[0]
    job = Job(0, "lora", trial.config, 0, start=0.0, stop=1.0, rung=2)
    timing.paces.started(job)
    simulation.now = 60.0 - 3.0  # left: a margin of 2 s, an export, and less than an evaluation
    with pytest.raises(TimeUp):
        timing.stepped(search, Progress(0, STEPS, STEPS, 1.0))


def test_a_lost_trial_is_handed_out_again_only_if_it_ends_in_time():
    history, nothing = History().add("lora", Config(1e-3, 8, 4, 8.0), target=2), Acquisitions(None, {})
    for left, expected in ((30.0, Resume), (10.0, Done)):
        limit = Limit(100.0, 0, left, 0.0, lambda config, begin, end: 20.0 * (end - begin))
        plan = Plan(("lora",), history.table.rungs, 100.0, 0, limits={"lora": limit})
        assert isinstance(decide(history.table, plan, lambda variant, room: nothing, lambda variant: {}), expected)


class TestLimits:
    @staticmethod
    def plan(*names, budget=8.0, confirm=2):
        return Plan(names, (1 / 9, 1 / 3, 1.0), budget, confirm)

    def test_variants_get_to_the_same_number_of_runs(self):
        """Those that have spent less get more, and a slow one more time."""
        history = History()
        pace = {"lora": 10.0, "pissa": 20.0}
        found = limits(
            history.table, self.plan("lora", "pissa"), 90.0, 1, 0.0, lambda name, config, begin, end: pace[name]
        )
        assert {name: limit.budget for name, limit in found.items()} == pytest.approx(
            {"lora": 3.0, "pissa": 3.0}, abs=SLACK
        )

    def test_workers_multiply_and_what_they_have_is_taken_off(self):
        history = History()
        found = limits(history.table, self.plan("lora"), 50.0, 2, 30.0, lambda *_: 10.0)
        assert found["lora"].budget == pytest.approx(7.0, abs=SLACK)

    def test_nothing_is_limited_while_nothing_is_known(self):
        assert limits(History().table, self.plan("lora"), 50.0, 2, 0.0, lambda *_: None) == {}

    def test_all_of_the_budget_is_the_most(self):
        found = limits(History().table, self.plan("lora"), 1e6, 1, 0.0, lambda *_: 10.0)
        assert (found["lora"].budget, found["lora"].confirm) == (8.0, 2)


class TestClock:
    def test_it_goes_on_over_starts(self, tmp_path):
        now = 100.0
        first = Clock(tmp_path, 60.0, now=lambda: now)
        now = 130.0
        first.concluding = 2.5
        first.keep()
        second = Clock(tmp_path, 60.0, now=lambda: now)
        now = 145.0
        assert (second.elapsed(), second.left(), second.concluding) == (45.0, 15.0, 2.5)

    def test_what_came_before_it_was_made_counts(self, tmp_path):
        assert Clock(tmp_path, 60.0, now=lambda: 10.0, began=4.0).elapsed() == 6.0

    def test_it_is_kept_while_the_study_runs(self, tmp_path, monkeypatch):
        """A start that is killed then counts."""
        monkeypatch.setattr("autolora.driver.clock.TICK_SECONDS", 0.001)
        with Clock(tmp_path, 60.0).running():
            while not (tmp_path / TIME_FILE).exists():
                pass
        assert 0 < json.loads((tmp_path / TIME_FILE).read_text())["seconds"] < 60

    def test_without_a_limit_nothing_is_written(self, tmp_path: Path):
        with Clock(tmp_path, None).running():
            pass
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("content", ["", "{}", "[1]", '{"seconds": -5}', '{"seconds": "x"}', '{"seconds": NaN}'])
    def test_one_that_is_damaged_begins_again_and_says_so(self, tmp_path, content, caplog):
        (tmp_path / TIME_FILE).write_text(content)
        with caplog.at_level(logging.WARNING):
            assert Clock(tmp_path, 60.0, now=lambda: 0.0).left() == 60.0
        assert "cannot be used" in caplog.text
