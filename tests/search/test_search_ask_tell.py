"""Asking and telling: what is refused, what is handed out again, what is reproducible."""

from __future__ import annotations

import re

import pytest

import autolora
from autolora import WAIT, Search
from autolora.space import Config, Space
from tests.support.simulation import SPACE, loss, play

OWN = Config(learning_rate=2e-4, batch_size=8, rank=8, alpha=16.0)


def open_search(storage=None, **terms) -> Search:
    return Search(**{"variants": ["lora"], "space": SPACE, "budget": 4, "storage": storage} | terms)


def configs(search: Search) -> list[Config]:
    return [trial.config for trial in search.table.trials]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_is_refused_and_points_to_diverged(value):
    search = open_search()
    job = search.ask()
    with pytest.raises(ValueError, match=r"trial 0: the score .* is not finite; .*diverged=True"):
        search.tell(job, value)
    search.tell(job, 1.0)


@pytest.mark.parametrize(
    "outcome",
    [
        {},
        {"value": 1.0, "diverged": True},
        {"value": 1.0, "lost": True},
        {"diverged": True, "infeasible": True},
        {"diverged": True, "lost": True},
    ],
)
def test_none_or_several_outcomes_are_refused(outcome):
    search = open_search()
    job = search.ask()
    with pytest.raises(ValueError, match="exactly one"):
        search.tell(job, **outcome)
    assert search.in_flight == {0}


@pytest.mark.parametrize("at", [-0.1, 1.1, float("nan")])
def test_a_place_outside_the_run_is_refused(at):
    search = open_search()
    with pytest.raises(ValueError, match="not a fraction of a full run"):
        search.tell(search.ask(), diverged=True, at=at)


def test_a_score_of_zero_is_a_score():
    search = open_search(budget=1)
    for _ in search.plan.rungs:
        search.tell(search.ask(), 0)
    assert search.best()["lora"].value == 0.0


@pytest.mark.parametrize("first", [{"value": 1.0}, {"diverged": True}, {"infeasible": True}, {"lost": True}])
def test_telling_twice_is_refused(first):
    search = open_search()
    job = search.ask()
    search.tell(job, **first)
    with pytest.raises(ValueError, match=r"trial 0 is not in flight .* told already"):
        search.tell(job, 1.0)


def test_an_earlier_job_of_a_promoted_trial_is_refused():
    search = open_search(budget=3)
    told = {}
    while (job := search.ask()).start == 0.0:
        told[job.trial] = job
        search.tell(job, loss(job))
    with pytest.raises(ValueError, match="is not in flight"):
        search.tell(told[job.trial], 1.0)
    search.tell(job, 1.0)


def test_a_refused_tell_leaves_the_storage_alone(storage):
    search = open_search(storage)
    job = search.ask()
    with pytest.raises(ValueError, match="not finite"):
        search.tell(job, float("nan"))
    assert open_search(storage).table.trials == search.table.trials


def test_a_lost_job_is_handed_out_again_as_it_was():
    search = open_search()
    job = search.ask()
    search.tell(job, lost=True)
    assert search.ask() == job


def test_a_lost_promotion_starts_from_the_rung_it_had_reached():
    search = open_search(budget=3)
    while (job := search.ask()).start == 0.0:
        search.tell(job, loss(job))
    search.tell(job, lost=True)
    again = search.ask()
    assert again == job
    assert again.start == pytest.approx(1 / 9)


def test_jobs_in_flight_when_the_process_ended_are_handed_out_again(storage):
    first = open_search(storage, variants=["lora", "pissa"])
    jobs = [first.ask(), first.ask()]
    again = open_search(storage, variants=["lora", "pissa"])
    assert [again.ask(), again.ask()] == jobs
    assert again.spent == pytest.approx({"lora": 1 / 9, "pissa": 1 / 9})


def test_the_same_seed_samples_the_same_configurations():
    searches = [open_search(variants=["lora", "dora"], seed=5) for _ in range(2)]
    for search in searches:
        play(search)
    assert configs(searches[0]) == configs(searches[1])


def test_another_seed_samples_others():
    searches = [open_search(seed=seed) for seed in (0, 1)]
    for search in searches:
        play(search, score=lambda job: 1.0, diverge=False)
    first, second = (
        {trial.config for trial in search.table.trials if trial.origin.startswith("model: ")} for search in searches
    )
    assert first
    assert second
    assert not first & second


def test_variants_sample_different_learning_rates():
    search = open_search(variants=["lora", "dora"])
    play(search)
    rates = [trial.config.learning_rate for trial in search.table.trials if trial.origin.startswith("model: ")]
    assert rates
    assert len(set(rates)) == len(rates)


def test_global_random_state_is_neither_used_nor_touched():
    import random

    import numpy

    before = random.getstate(), numpy.random.get_state()[1].tolist()
    play(open_search())
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == before


def test_a_search_without_a_prior_says_nothing_of_its_centre():
    search = open_search(prior=None)
    play(search, diverge=False)
    origins = {trial.origin for trial in search.table.trials if trial.purpose == "search"}
    assert origins
    assert all(re.fullmatch(r"model: \d+% to improve", origin) for origin in origins)


def test_every_configuration_lies_in_the_space():
    for seed in range(3):
        search = open_search(budget=8, seed=seed)
        play(search, diverge=False)
        for config in configs(search):
            assert 1e-5 <= config.learning_rate <= 1e-1
            assert config.rank in SPACE.rank
            assert config.batch_size in SPACE.batch_size


def test_every_trial_says_where_its_configuration_is_from():
    search = open_search(budget=12)
    play(search)
    known = ("prior's mode", "opening: ", "model: ", "another seed of the finalist")
    assert all(trial.origin.startswith(known) for trial in search.table.trials)


def test_discarded_trials_are_never_handed_out_again():
    search = open_search(budget=8)
    gone: set[int] = set()
    while (job := search.ask()) is not None:
        assert job.trial not in gone
        if job.trial % 4 == 3:
            search.tell(job, diverged=True, at=job.start)
        else:
            search.tell(job, loss(job))
        gone |= set(search.discarded())
    assert gone == {trial.number for trial in search.table.trials if trial.outcome not in ("complete", None)}


def test_complete_trials_are_not_discarded():
    search = open_search(budget=1)
    search.tell(search.ask(), 1.0)
    assert search.discarded() == []


def test_the_preview_is_what_will_be_sampled_and_records_nothing(storage):
    search = open_search(storage, variants=["lora", "pissa"])
    preview = search.preview(2)
    assert search.table.trials == []
    assert [search.ask().config for _ in range(2)] == [sampled.config for sampled in preview]


def test_the_preview_of_a_finite_space_ends():
    space = Space(learning_rate=1e-3, batch_size=8, rank=4, alpha="rank")
    assert len(open_search(space=space).preview(50)) == 1


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ({"variants": ["lora", "pissa"]}, "variants"),
        ({"seed": 1}, "seed"),
        ({"rungs": (0.25, 1.0)}, "rungs"),
        ({"direction": "maximize"}, "direction"),
        ({"examples": 800}, "examples"),
        ({"prior": None}, "prior.centre"),
        ({"space": Space(rank=[4], hidden_size=64)}, "space.rank"),
        ({"space": SPACE.model_copy(update={"hidden_size": 128})}, "space.hidden_size"),
        ({"baseline": {"lora": OWN}}, "baseline.lora.rank"),
    ],
)
def test_other_terms_on_the_same_storage_are_refused_by_name(storage, terms, named):
    open_search(storage)
    with pytest.raises(ValueError, match=rf"made on other terms: (.*; )?{named}: .+ -> .+") as refusal:
        open_search(storage, **terms)
    assert "\n" not in str(refusal.value)


def test_the_same_terms_in_other_words_are_accepted(storage):
    open_search(storage, space=Space(learning_rate=(1e-4, 1e-2), rank=[8, 4], batch_size=16))
    open_search(storage, space=Space(learning_rate=("1e-4", 1e-2), rank=[4, 8, 8], batch_size=[16]))


def test_searches_of_different_names_share_a_storage(storage):
    play(open_search(storage, name="one"))
    other = open_search(storage, name="two", seed=7)
    assert other.table.trials == []


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"variants": []}, r"variants must be a list"),
        ({"variants": "lora"}, r"variants must be a list .* not 'lora'"),
        ({"variants": ["lora", "lora"]}, r"different names"),
        ({"variants": ["lorra"]}, r"unknown variant 'lorra': did you mean 'lora'\?"),
        ({"budget": 0.9}, r"budget=0.9: at least 1"),
        ({"budget": float("nan")}, r"budget=nan"),
        ({"budget": float("inf")}, r"budget=inf"),
        ({"rungs": ()}, r"rungs=\(\) must ascend"),
        ({"rungs": (0.0, 1.0)}, r"rungs=\(0.0, 1.0\)"),
        ({"rungs": (0.5, 0.5, 1.0)}, r"must ascend"),
        ({"rungs": (0.1, 0.5)}, r"to 1.0"),
        ({"direction": "down"}, r"direction='down' must be"),
        ({"confirm": 4}, r"confirm=4 must be 'auto' or 0 to 3, as the budget is 4"),
        ({"confirm": -1}, r"confirm=-1"),
        ({"confirm": "some"}, r"confirm='some'"),
        ({"seed": -1}, r"seed=-1"),
        ({"seed": 0.5}, r"seed=0.5"),
        ({"prior": "flat"}, r"prior='flat' must be 'laws', a Prior or None"),
        ({"baseline": {"pissa": OWN}}, r"baseline names \['pissa'\]"),
    ],
)
def test_terms_out_of_range_are_refused_with_their_value(terms, message):
    with pytest.raises(ValueError, match=message):
        open_search(**terms)


def test_the_public_names_are_one_object():
    assert autolora.WAIT is WAIT
    assert autolora.Search is Search
    assert repr(WAIT) == "autolora.WAIT"


def test_every_dimension_is_searched_over_ranges_and_choices():
    space = Space(
        learning_rate=(1e-5, 1e-1),
        batch_size=(8, 32),
        rank={"low": 2, "high": 4, "log": False},
        alpha={"low": 4, "high": 64, "log": False},
        options={"lora_ga.gamma": (4, 64)},
        dropout={"low": 0, "high": 0.2},
        warmup_ratio=[0, 0.1],
        weight_decay=[0],
        hidden_size=64,
    )
    search = Search(["lora", "lora_ga"], space, budget=5)
    configs = [job.config for job in play(search)]
    assert {config.batch_size for config in configs} <= {8, 16, 32}
    assert {config.rank for config in configs} <= {2, 3, 4}
    assert all(4 <= config.alpha <= 64 for config in configs)
    assert all(0 <= config.dropout <= 0.2 for config in configs)
    assert {config.weight_decay for config in configs} == {0.0}
    gammas = {dict(config.options)["gamma"] for config in configs if config.options}
    assert len(gammas) > 1
    assert all(4 <= gamma <= 64 for gamma in gammas)
