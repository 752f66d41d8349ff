"""The warm-up as a searched dimension: the schedule of a trial, and the recipe of the winner."""

from __future__ import annotations

import math

import pytest

import autolora
from autolora.driver.opening import baseline_of
from autolora.priors.prior import Prior
from autolora.search import Job
from autolora.space import Config, Space, Traits
from autolora.spec import SpecError
from autolora.trainers.builtin import segment
from tests.support.specs import SMALL_SPEC, small_spec

RATIOS = [0.0, 0.5]


def losses(bench, folder, ratio: float | None) -> list[float]:
    """Training losses of the first steps of a trial with this warm-up; None: of the training settings."""
    config = Config(3e-2, 4, 2, 4.0)
    job = Job(
        trial=0,
        variant="lora",
        config=config if ratio is None else config.replaced(warmup_ratio=ratio),
        seed=0,
        start=0.0,
        stop=1 / 3,
        rung=0,
    )
    seen: list[float] = []
    segment.run(bench, job, lambda progress: seen.append(progress.loss))
    return seen


def test_the_schedule_of_a_trial_goes_by_its_own_value(make_bench, tmp_path):
    found = {ratio: losses(make_bench(tmp_path / str(ratio)), tmp_path, ratio) for ratio in (None, *RATIOS)}
    assert found[0.0] != found[0.5]
    set_in_training = losses(make_bench(tmp_path / "set", **{"training.warmup_ratio": 0.5}), tmp_path, None)
    assert found[0.5] == set_in_training


def test_the_search_finds_the_better_one():
    search = autolora.Search(["lora"], space=Space(warmup_ratio=RATIOS), budget=8, confirm=0)
    while (job := search.ask()) is not None:
        distance = abs(math.log10(job.config.learning_rate) + 3.5)
        search.tell(job, 1.0 + 0.1 * distance + 0.3 * job.config.warmup_ratio)
    assert search.best()["lora"].config.warmup_ratio == 0.0


def test_the_usual_three_percent_are_preferred():
    assert Prior.from_laws(64).mode(Space(warmup_ratio=[0, 0.02, 0.5]), Traits()).warmup_ratio == 0.02


def test_a_baseline_warms_up_as_the_training_settings_say():
    spec = small_spec(baseline={"learning_rate": 1e-3, "rank": 2, "alpha": 4}, **{"space.warmup_ratio": RATIOS})
    assert baseline_of(spec, spec.space)["lora"].warmup_ratio == 0.03


def test_it_may_be_a_range_on_a_linear_scale(tmp_path):
    space = {**SMALL_SPEC["space"], "warmup_ratio": {"low": 0, "high": 0.2}}
    result = autolora.tune(
        spec={**SMALL_SPEC, "space": space, "budget": 2, "confirm": 0, "prior": "laws"}, dir=tmp_path
    )
    assert 0 <= result["lora"].config.warmup_ratio <= 0.2


@pytest.mark.parametrize("wrong", [1, -0.1, [0.03, 2], {"low": 0, "high": 1}])
def test_what_is_no_share_is_named(wrong):
    with pytest.raises(SpecError, match=r"space\.warmup_ratio"):
        small_spec(**{"space.warmup_ratio": wrong})
