"""Many workers, and the tables that they fill: nobody idles, nothing is done twice, a decision costs little."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from autolora import WAIT, Search
from autolora.search import Job, forecast
from autolora.search.acquisition import Acquisition, Acquisitions, Proposal
from autolora.search.forecast import Forecast
from autolora.search.policy import TOLERANCE
from autolora.search.sampler import PROPOSALS, Sampler
from autolora.search.trials import Event, Finished, Lost, Promoted, Sampled, Scored, TrialTable
from tests.support.history import NAMES, RUNGS, at, sampler
from tests.support.simulation import SPACE, loss, play, train


class Guesses:
    """A forecast without a model: acquisitions by chance, so that hundreds of workers are simulated in a second."""

    def __init__(self, search: Search, seed: int) -> None:
        self.table, self.random = search.table, random.Random(seed)

    def acquisitions(self, variant: str, room: float) -> Acquisitions:
        config = at(self.random.uniform(-2, 2), variant)
        return Acquisitions(Proposal(config, "guessed", self.acquisition()), self.paused_acquisitions(variant))

    def paused_acquisitions(self, variant: str) -> dict[int, Acquisition]:
        return {trial.number: self.acquisition() for trial in self.table.paused(variant)}

    def note(self, event: Event) -> None:
        pass

    def acquisition(self) -> Acquisition:
        return Acquisition(self.random.expovariate(1.0), self.random.uniform(0.0, 0.5))


def guessing(seed: int, budget: float = 40.0, confirm: int = 3) -> Search:
    search = Search(NAMES, SPACE, budget, RUNGS, confirm=confirm, seed=seed)
    search._forecast = Guesses(search, seed)  # type: ignore[assignment]
    return search


def crowd(search: Search, workers: int, seed: int, lost: float = 0.05) -> Iterator[tuple[object, list[Job]]]:
    """Jobs that come back in any order; yields every answer to an ask, with what is in flight."""
    chance, flying = random.Random(seed), list[Job]()
    while True:
        job = search.ask() if len(flying) < workers else None
        if job is not None:
            yield job, flying
        if isinstance(job, Job):
            flying.append(job)
        elif not flying:
            return
        else:
            back = flying.pop(chance.randrange(len(flying)))
            kind = chance.random()
            if kind < lost:
                search.tell(back, lost=True)
            elif kind < lost + 0.1:
                search.tell(back, diverged=True, at=chance.uniform(back.start, back.stop))
            else:
                search.tell(back, loss(back) + chance.gauss(0, 0.1))


@pytest.mark.parametrize("workers", [2, 8, 64, 512])
def test_who_waits_could_not_have_been_given_anything(workers):
    search, waited = guessing(workers, confirm=0), 0
    for answer, flying in crowd(search, workers, seed=workers):
        if answer is not WAIT:
            continue
        waited += 1
        assert {trial.number for trial in search.table.pending()} == {job.trial for job in flying}
        for variant in NAMES:
            room = search.plan.budget - search.spent[variant] + TOLERANCE
            assert room < 1.0, "a trial could have been started"
            for trial in search.table.paused(variant):
                assert 1.0 - RUNGS[trial.reached] > room, "a paused trial could have gone on"
    assert waited


@pytest.mark.parametrize("workers", [8, 64, 512])
def test_results_in_any_order_never_exceed_the_budget(workers):
    search = guessing(workers)
    for place, (_, flying) in enumerate(crowd(search, workers, seed=workers)):
        for variant in NAMES:
            assert search.spent[variant] <= search.plan.budget + TOLERANCE
            if place % 20 == 0:
                back = sum(search.table.fraction(trial) for trial in search.table.of(variant) if not trial.pending)
                sent = sum(job.stop for job in flying if job.variant == variant)
                assert back + sent <= search.spent[variant] + TOLERANCE
    assert min(search.spent.values()) > 0.9 * search.plan.budget


def test_lost_jobs_are_handed_out_again_first_the_oldest_of_them_first():
    search = guessing(0)
    jobs = [search.ask() for _ in range(30)]
    for job in (jobs[20], jobs[4], jobs[11]):
        search.tell(job, lost=True)
    assert [search.ask() for _ in range(3)] == [jobs[4], jobs[11], jobs[20]]


@pytest.fixture
def soon(monkeypatch):
    """Models and draws are kept from the first scores on."""
    monkeypatch.setattr(forecast, "MOST_SCORES", 8)


@pytest.fixture
def made(monkeypatch):
    """Counts the models and the draws that are made."""
    counts = {"surrogate": 0, "view": 0}
    for name in counts:
        original = getattr(Sampler, name)

        def counted(self, *args, name=name, original=original, **options):
            counts[name] += 1
            return original(self, *args, **options)

        monkeypatch.setattr(Sampler, name, counted)
    return counts


def test_workers_do_not_try_the_same_point(soon):
    search = Search(["lora", "pissa"], SPACE, budget=30.0)
    flying = [search.ask() for _ in range(30)]
    for _ in range(15):
        train(search, flying.pop(0))
        flying.append(search.ask())
        running = [(job.variant, job.config) for job in flying]
        assert len(set(running)) == len(running)


def test_while_little_is_known_every_score_makes_a_model(made):
    search = Search(["lora"], SPACE, budget=20.0)
    for scores in range(1, 12):
        train(search, search.ask())
        search.ask()
        search._in_flight.clear()  # as after a restart: what was asked for is handed out again
        assert made["surrogate"] <= scores + 1
    assert made["surrogate"] >= 8


def test_where_much_is_known_models_and_draws_serve_many_decisions(soon, made, monkeypatch):
    monkeypatch.setattr(forecast, "SHARE", 0.2)
    search = Search(["lora"], SPACE, budget=60.0)
    flying = [search.ask() for _ in range(50)]
    made.update(surrogate=0, view=0)
    for _ in range(40):
        job = flying.pop(0)
        search.tell(job, loss(job))
        flying.append(search.ask())
    assert made["surrogate"] <= 1 + 40 / (0.2 * 40)
    assert made["view"] <= made["surrogate"] + 1 + 40 / PROPOSALS


def test_where_draws_are_kept_a_finite_space_is_still_tried_whole(soon):
    space = SPACE.model_copy(update={"learning_rate": [1e-4, 3e-4, 1e-3, 3e-3], "rank": [4, 8]})
    search = Search(["lora"], space, budget=60.0, confirm=0)
    play(search, diverge=False)
    configs = [trial.config for trial in search.table.trials]
    assert len(configs) == len(set(configs)) == 16


def test_a_divergence_ends_a_kept_view_at_once(soon):
    made, table = sampler(), TrialTable(RUNGS, "minimize")
    ahead = Forecast(made, table)
    for number, z in enumerate([-1.5, -1.2, -1.0, -0.8] * 5):
        for event in (Sampled(number, "lora", at(z), 0, "search", 0, ""), Scored(number, 0, 1 + z * z)):
            table.apply(event)
    before = ahead.acquisitions("lora").proposal.config
    number, diverged = len(table.trials), at(-0.7)
    for event in (Sampled(number, "lora", diverged, 0, "search", 0, ""), Finished(number, "diverged", "", 0.02)):
        table.apply(event)
        ahead.note(event)
    after = ahead.acquisitions("lora").proposal.config
    coordinates, traits = made.coordinates, made.traits["lora"]
    assert coordinates.z(traits, before) > -0.7 > coordinates.z(traits, after)


def test_a_paused_trial_keeps_its_promise_beside_a_crowd_of_new_ones():
    made, table = sampler(), TrialTable(RUNGS, "minimize")

    def start(z: float, *scores: float) -> None:
        number = len(table.trials)
        table.apply(Sampled(number, "lora", at(z), 0, "search", max(0, len(scores) - 1), ""))
        for rung, score in enumerate(scores):
            table.apply(Scored(number, rung, score))

    start(1.0, 2.4, 2.2, 2.0)
    start(0.1, 1.4)
    alone = made.acquisitions(table, "lora", made.surrogate(table)).paused[1]
    for place in range(60):
        start(-1 + place / 30)
    crowded = made.acquisitions(table, "lora", made.surrogate(table)).paused[1]
    assert crowded.expected_improvement > 0.1 * alone.expected_improvement


def random_events(chance: random.Random, count: int) -> Iterator[Event]:
    """Any history that a search may have."""
    trials: list[tuple[int, int, bool]] = []  # target, reached, live
    for _ in range(count):
        number = chance.randrange(len(trials)) if trials else 0
        target, reached, live = trials[number] if trials else (0, -1, False)
        if not live or chance.random() < 0.3:
            purpose = chance.choice(["baseline", "search", "search", "search", "confirm"])
            target = 2 if purpose == "confirm" else 0
            yield Sampled(len(trials), chance.choice(NAMES), at(chance.uniform(-1, 1)), 0, purpose, target, "")
            trials.append((target, -1, True))
        elif reached == target == 2:
            yield Finished(number, "complete", "")
            trials[number] = target, reached, False
        elif reached == target:
            ends = chance.random() < 0.4
            yield Finished(number, "pruned", "") if ends else Promoted(number, target + 1, "")
            trials[number] = (target, reached, False) if ends else (target + 1, reached, True)
        elif chance.random() < 0.2:
            yield Lost(number)
        elif chance.random() < 0.2:
            low = RUNGS[reached] if reached >= 0 else 0.0
            yield Finished(number, chance.choice(["diverged", "infeasible"]), "", chance.uniform(low, RUNGS[target]))
            trials[number] = target, reached, False
        else:
            yield Scored(number, target, chance.choice([chance.gauss(0, 1), 0.5]))
            trials[number] = target, target, True


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("seed", range(5))
def test_what_a_table_keeps_is_what_its_trials_say(seed, direction):
    events = list(random_events(random.Random(seed), 400))
    table = TrialTable(RUNGS, direction, upfront=0.1)
    for count, event in enumerate(events, start=1):
        table.apply(event)
        if count % 50 == 0:
            check(table)
            again = TrialTable(RUNGS, direction, events[:count], upfront=0.1)
            assert again.trials == table.trials
            assert [again.spent(name) for name in NAMES] == [table.spent(name) for name in NAMES]


def check(table: TrialTable) -> None:
    """Against the definitions, over all trials."""
    trials = table.trials
    assert table.scored == sum(len(trial.scores) for trial in trials)
    assert table.pending() == [trial for trial in trials if trial.pending]
    assert table.trained() == [trial for trial in trials if trial.live and 2 in trial.scores]
    ended = ("pruned", "diverged", "infeasible")
    assert table.discarded() == [trial for trial in trials if trial.outcome in ended]
    for name in NAMES:
        own = [trial for trial in trials if trial.variant == name]
        complete = [trial for trial in own if trial.healthy and 2 in trial.scores]
        searched = [trial for trial in complete if trial.purpose != "confirm"]
        waiting = [trial for trial in own if trial.live and not trial.pending and trial.purpose != "baseline"]
        assert table.of(name) == own
        assert table.pending(name) == [trial for trial in own if trial.pending]
        assert table.complete(name) == complete
        assert table.searched(name) == searched
        assert table.leaders(name) == table.ranked(searched, 2)
        assert table.paused(name) == [trial for trial in waiting if 2 not in trial.scores]
        assert table.confirming(name) == [trial for trial in own if trial.purpose == "confirm"]
        assert table.spent(name) == pytest.approx(0.1 + sum(map(table.charge, own)), abs=1e-12)
