"""How long a trial trains, as a searched dimension: its share of a run, its rungs, its cost, and its trainer."""

from __future__ import annotations

import json
import math

import pytest

import autolora
from autolora import laws
from autolora.driver.limits import fitting_space
from autolora.priors.prior import Prior
from autolora.search import Job
from autolora.search.trials import Sampled, Scored, TrialTable
from autolora.space import Config, Space, Traits
from autolora.spec import SpecError
from autolora.study.directory import read_study
from autolora.trainers.builtin import segment
from tests.support.specs import SMALL_SPEC, small_spec

CONFIG = Config(1e-3, 4, 2, 4.0)
SPACE = Space(duration={"examples": [100, 300, 900]}, batch_size=[4], rank=[2])
RUNGS = (1 / 9, 1 / 3, 1.0)


def lasting(duration: float) -> Config:
    return CONFIG.replaced(duration=duration)


def table(examples: int | None = None) -> TrialTable:
    return TrialTable(RUNGS, "minimize", (), 0.0, examples, length=SPACE.length, cheapest=SPACE.shortest)


def test_bare_numbers_are_epochs():
    assert Space(duration=[1, 2]) == Space(duration={"epochs": [1, 2]})


@pytest.mark.parametrize("wrong", [0, [-1, 2], "long", {"epochs": [1], "examples": [10]}, {"examples": 0.5}])
def test_what_is_no_duration_is_named(wrong):
    with pytest.raises(SpecError, match=r"space\.duration"):
        small_spec(**{"space.duration": wrong, "training.examples": None})


def test_a_full_run_has_one_length():
    with pytest.raises(SpecError, match=r"training\.examples=72 and space\.duration"):
        small_spec(**{"space.duration": [1, 2], "training.examples": 72})
    with pytest.raises(SpecError, match="examples and epochs are both given"):
        small_spec(**{"training.epochs": 2, "training.examples": 72})


def test_the_longest_is_a_full_run():
    assert small_spec(**{"space.duration": [1, 3], "training.examples": None}).full_run(rows=50) == 150
    assert small_spec(**{"training.epochs": 2, "training.examples": None}).full_run(rows=50) == 100
    assert small_spec(**{"training.epochs": 2, "training.examples": None}).full_run() is None


def test_a_batch_larger_than_the_shortest_run_is_refused_in_its_words():
    space = Space(duration={"examples": [24, 72]}, batch_size=[8, 32], rank=[2])
    said = (
        "32 is more than the 24 training examples of the shortest run. Give at most 24, or raise the least of space.dur"
    )
    with pytest.raises(SpecError, match=said):
        fitting_space(space, 72)
    with pytest.raises(SpecError, match=r"of a full run. Give at most 24, or raise training\.examples"):
        fitting_space(space.model_copy(update={"duration": None}), 24)


def test_a_default_batch_that_the_shortest_run_cannot_hold_is_left_out_in_its_words():
    space = Space(duration={"examples": [24, 72]})
    with pytest.warns(UserWarning, match="left out, as the shortest run has 24 training examples"):
        assert max(fitting_space(space, 72).batch_size) <= 24


@pytest.mark.parametrize(("duration", "rungs"), [(900, [0, 1, 2]), (300, [0, 2]), (100, [2])])
def test_rungs_beyond_the_end_are_left_out(duration, rungs):
    found, rung = [], -1
    while rung < 2:
        rung = table().rung_from(lasting(duration), rung + 1)
        found.append(rung)
    assert found == rungs


@pytest.mark.parametrize("examples", [None, 900])
def test_a_trial_is_charged_the_share_of_a_run_that_it_is(examples):
    made = table(examples)
    assert [made.cost(lasting(each)) for each in (100, 300, 900)] == pytest.approx([1 / 9, 1 / 3, 1.0])
    made.apply(Sampled(0, "lora", lasting(300), 0, "search", 0, ""))
    made.apply(Scored(0, 0, 2.0))
    assert made.spent("lora") == pytest.approx(1 / 9, abs=0.01)
    assert made.stop(lasting(300), 0) == pytest.approx(1 / 3)  # of its own run


def test_the_law_of_length_moves_the_expected_rate():
    prior = Prior(-3.0, 0.3, longest=900.0)
    ratio = 10 ** (prior.belief(Traits(), lasting(90)).mean - prior.belief(Traits(), lasting(900)).mean)
    assert math.log10(ratio) == pytest.approx(-laws.LENGTH_EXPONENT)
    assert prior.spread(Traits(), lasting(90)) > prior.spread(Traits(), lasting(900))


def search(budget: float = 6.0) -> autolora.Search:
    return autolora.Search(["lora"], SPACE, budget=budget, confirm=0)


def test_a_search_hands_out_the_share_of_the_longest_and_stays_within_its_budget():
    made, seen = search(), {}
    while (job := made.ask()) is not None:
        seen[job.trial] = job
        assert job.length == pytest.approx(job.config.duration / 900)
        assert (job.stop == 1.0) == (job.rung == 2)
        made.tell(job, 2 - job.length * job.stop + abs(math.log10(job.config.learning_rate) + 2.5))
    assert made.spent["lora"] <= 6.0 + 1e-9
    assert len({job.length for job in seen.values()}) > 1


def test_where_a_short_trial_diverged_is_a_share_of_its_own_run():
    made = search()
    while (job := made.ask()) is not None and job.length == 1.0:
        made.tell(job, 2.0 + job.trial)
    made.tell(job, diverged=True, at=0.1)
    assert made.table.fraction(made.table.trials[job.trial]) == pytest.approx(0.1 * job.length)


def test_a_trial_without_an_early_rung_is_sent_to_its_end_after_a_restart(tmp_path):
    from autolora.study.study import Study

    storage, made = f"sqlite:///{tmp_path}/study.db", search()
    terms = {"variants": ["lora"], "space": SPACE.model_dump(), "rungs": list(RUNGS), "examples": None, "seed": 0}
    study = Study.open(storage, "durations", "minimize", {**terms, "prior": None, "baseline": {}, "context": {}})
    sampled = Sampled(0, "lora", lasting(100), 0, "search", made.table.rung_from(lasting(100), 0), "")
    study.write(sampled)
    assert sampled.target == 2
    assert list(study.events()) == [sampled]


def test_a_shorter_trial_ends_with_its_schedule_and_equals_a_study_of_its_length(make_bench, tmp_path):
    long = make_bench(**{"space.duration": {"examples": [24, 72]}, "training.examples": None})
    short = make_bench(tmp_path / "short", **{"training.examples": 24})
    config = CONFIG.replaced(duration=24)
    shared = {"trial": 0, "variant": "lora", "seed": 0, "start": 0.0, "stop": 1.0, "rung": 2}
    outcome = segment.run(long, Job(config=config, length=1 / 3, **shared))
    assert outcome.value == segment.run(short, Job(config=CONFIG, **shared)).value
    assert long.steps(config) == short.steps(CONFIG) < long.steps(CONFIG)


def test_a_study_records_continues_and_says_what_longer_training_gains(tmp_path):
    space = {**SMALL_SPEC["space"], "duration": {"examples": [24, 72]}}
    training = {key: value for key, value in SMALL_SPEC["training"].items() if key != "examples"}
    spec = {**SMALL_SPEC, "space": space, "training": training, "confirm": 0, "prior": "laws"}
    autolora.tune(spec={**spec, "budget": 2}, dir=tmp_path)
    result = autolora.tune(spec={**spec, "budget": 4}, dir=tmp_path)
    found, _ = read_study(tmp_path)
    assert {trial.config.duration for trial in found.trials} == {24, 72}
    assert found.spent("lora") <= 4 + 1e-9
    assert autolora.TuneResult.load(tmp_path).durations == result.durations
    recorded = json.loads((tmp_path / "best.json").read_text())
    assert recorded["variants"]["lora"]["config"]["duration"] == result["lora"].config.duration
