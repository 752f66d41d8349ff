"""What every measure must do, and how a list of them is written."""

from __future__ import annotations

import math

import pytest

from autolora import spec as specs
from autolora.metrics import measures
from autolora.metrics.measures import Facts
from autolora.spec import SpecError
from autolora.trainers.timing import Timing, reported
from tests.support.commands import command_spec

KNOWN = Facts(
    seconds=12.0,
    timed_seconds=4.0,
    timed_examples=80.0,
    timed_tokens=1000.0,
    losses=[3.0] * 10 + [2.0, 1.0],
    peak_memory=10**9,
    parameters=1000,
    adapter_bytes=4000,
)


@pytest.mark.parametrize("name", measures.registry())
class TestMeasure:
    def test_it_is_a_finite_number_of_what_is_known(self, name):
        assert math.isfinite(measures.registry()[name].value(KNOWN))

    def test_it_is_none_of_what_is_not_known(self, name):
        assert measures.registry()[name].value(Facts()) is None

    def test_its_direction_is_its_own(self, name):
        own = measures.registry()[name].direction
        other = "minimize" if own == "maximize" else "maximize"
        assert specs.load(model="m", data="d", metrics=name).reported == {name: own}
        with pytest.raises(SpecError, match=f"metrics: '{name}' can only be {own}d"):
            specs.load(model="m", data="d", metrics=[{"name": name, "direction": other}])


def test_rates_are_of_the_steps_that_were_timed():
    found = reported(specs.load(model="m", data="d", metrics="tokens_per_second, examples_per_second").metrics, KNOWN)
    assert found == {"tokens_per_second": 250.0, "examples_per_second": 20.0}


def test_the_first_step_of_each_segment_counts_only_where_there_is_no_other():
    record: dict[str, float] = {}
    Timing(record).step(9.0, 8, 80)
    assert Timing.of(record) == (9.0, 8, 80)
    for _ in range(2):  # segments
        timing = Timing(record)
        for seconds in (9.0, 1.0, 1.0):
            timing.step(seconds, 8, 80)
    assert Timing.of(record) == (4.0, 32, 320)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("token_per_second", "did you mean 'tokens_per_second'"),
        (["eval_loss"], "'eval_loss' is the metric itself"),
        (["seconds", "seconds"], "named twice"),
        ("my.module:function", "needs a direction"),
        (7, "should be a list"),
    ],
)
def test_what_cannot_be_reported_is_refused(given, said):
    with pytest.raises(SpecError, match=said):
        specs.load(model="m", data="d", metrics=given)


def test_of_another_trainer_any_name_is_reported_whose_direction_is_known():
    asked = [{"name": "reward", "direction": "maximize"}, "seconds", "kl_loss"]
    spec = command_spec(metrics=asked)
    assert spec.reported == {"reward": "maximize", "seconds": "minimize", "kl_loss": "minimize"}
    with pytest.raises(SpecError, match="'reward' needs a direction"):
        command_spec(metrics=["reward"])


def test_what_a_trainer_says_wins_and_what_is_no_number_is_left_out():
    asked = command_spec(metrics=["seconds", "peak_memory", "kl_loss", {"name": "x", "direction": "minimize"}]).metrics
    said = {"peak_memory": "7", "eval_kl_loss": 0.5, "x": "none", "seconds": math.nan}
    assert reported(asked, KNOWN, said) == {"peak_memory": 7.0, "kl_loss": 0.5}
