"""What trials are charged that are trained in whole optimizer steps: the examples of those."""

from __future__ import annotations

import pytest

from autolora import variants
from autolora.analysis.best import best
from autolora.search import Job, Search
from autolora.search.rungs import RUNGS, examples_seen, horizon, steps_until
from autolora.search.runs import winner
from autolora.search.trials import Trial
from autolora.space import Space
from tests.support.simulation import loss, play

EXAMPLES = 100


def search(batch_size: list[int], budget: float = 4.0, examples: int = EXAMPLES, **terms) -> Search:
    space = Space(learning_rate=(1e-5, 1e-1), batch_size=batch_size, rank=[4, 8], hidden_size=64)
    return Search({"lora": variants.get("lora")}, space, budget, examples=examples, in_steps=True, **terms)


@pytest.mark.parametrize("batches", [[8], [64], [7, 64], [100], [1, 3, 33]])
def test_what_is_spent_is_the_examples_of_whole_steps(batches):
    made = search(batches)
    counts: dict[int, int] = {}
    while (job := made.ask()) is not None:
        counts[job.trial] = steps_until(job.stop, EXAMPLES, job.config.batch_size)
        made.tell(job, loss(job))
    seen = [
        examples_seen(steps, EXAMPLES, made.table.trials[trial].config.batch_size) for trial, steps in counts.items()
    ]
    assert made.spent["lora"] == pytest.approx(sum(seen) / EXAMPLES)
    assert made.spent["lora"] <= 4.0 + 1e-9


@pytest.mark.parametrize("batch", [7, 64, 100])
def test_the_budget_is_never_exceeded_while_jobs_are_in_flight(batch):
    made = search([batch], budget=2.5)
    while (job := made.ask()) is not None:
        assert made.spent["lora"] <= 2.5 + 1e-9
        made.tell(job, loss(job))


@pytest.mark.parametrize(("batch", "share"), [(8, 0.16), (64, 0.64), (100, 1.0), (7, 0.14)])
def test_a_trial_is_charged_at_a_rung_for_the_steps_that_lead_there(batch, share):
    made = search([batch])
    job = made.ask()
    made.tell(job, loss(job))
    assert made.table.fraction(made.table.trials[job.trial]) == pytest.approx(share)


def test_where_nothing_is_left_to_train_a_promotion_costs_nothing():
    made = search([EXAMPLES], budget=3)
    jobs = play(made)
    assert made.spent["lora"] <= 3
    assert any(job.rung == len(RUNGS) - 1 for job in jobs)


def test_a_divergence_is_charged_as_far_as_it_came_though_behind_its_rung():
    made = search([8])
    job = made.ask()
    made.tell(job, diverged=True, at=0.16)
    assert made.spent["lora"] == pytest.approx(0.16)


def test_without_whole_steps_a_trial_is_charged_its_rung():
    space = Space(learning_rate=(1e-5, 1e-1), batch_size=[64], rank=[4], hidden_size=64)
    made = Search({"lora": variants.get("lora")}, space, 4.0, examples=EXAMPLES)
    made.tell(made.ask(), 1.0)
    assert made.spent["lora"] == pytest.approx(RUNGS[0])


@pytest.mark.parametrize(("examples", "batch"), [(1, 1), (16, 640), (100, 64), (800, 8), (7, 2)])
def test_steps_make_up_a_run_and_not_more(examples, batch):
    steps = horizon(examples, batch)
    assert examples_seen(steps, examples, batch) == examples
    assert examples_seen(steps - 1, examples, batch) < examples
    assert steps_until(1.0, examples, batch) == steps
    for rung in RUNGS:
        until = steps_until(rung, examples, batch)
        assert until >= 1
        assert until / steps >= rung - 1e-9
        assert (until - 1) / steps < rung


def first_full_run(made: Search) -> Trial:
    """Search on until a trial is complete."""
    while not made.table.complete("lora"):
        job = made.ask()
        made.tell(job, loss(job))
    (first,) = made.table.complete("lora")
    return first


def test_without_budget_nothing_lost_is_trained_again():
    made = search([10, 20], 3, confirm=1)
    play(made, diverge=False)
    for trial in winner(made.table, "lora"):
        made.weights_lost(trial.number, "damaged")
    assert made.ask() is None


def test_a_trial_that_is_not_complete_has_no_weights_to_lose():
    made = search([10])
    job = made.ask()
    for number in (job.trial, 99, -1):
        with pytest.raises(ValueError, match="is not complete"):
            made.weights_lost(number, "damaged")


@pytest.fixture
def repeated() -> tuple[Search, list[Job], Trial]:
    """A search whose first full run was lost and stays the best, the jobs that followed, and that run."""
    made = search([10, 20], 4, confirm=0)
    first = first_full_run(made)
    made.weights_lost(first.number, "damaged")
    return made, play(made, lambda job: 50.0 if job.config != first.config else loss(job), diverge=False), first


def test_room_is_kept_to_train_the_best_again_and_that_comes_last(repeated):
    made, jobs, first = repeated
    assert jobs[-1].config == first.config
    assert (jobs[-1].start, jobs[-1].stop, jobs[-1].seed) == (0.0, 1.0, first.seed)
    assert made.table.trials[jobs[-1].trial].purpose == "repeat"
    assert f"trial {first.number} again" in made.table.trials[jobs[-1].trial].origin
    assert made.spent["lora"] <= 4
    assert made.ask() is None


def test_the_last_training_of_a_seed_stands_for_it(repeated):
    made, jobs, _ = repeated
    found = best(made.table, ["lora"])["lora"]
    assert found.trials == (jobs[-1].trial,)
    assert len(found.seeds) == 1


def test_what_is_not_the_best_any_more_is_not_trained_again():
    made = search([10, 20], 4, confirm=0)
    first = first_full_run(made)
    made.weights_lost(first.number, "damaged")
    play(made, lambda job: 0.1 * loss(job), diverge=False)
    assert not any(trial.purpose == "repeat" for trial in made.table.trials)
