"""The registry of metrics, and what a specification says of them."""

from __future__ import annotations

import pytest

from autolora.metrics import Metric, MetricSpec, find, register, registry
from autolora.scores import Scores


def test_directions():
    directions = {name: metric.direction for name, metric in registry().items()}
    assert directions["eval_loss"] == "minimize"
    assert directions["exact_match"] == directions["token_accuracy"] == "maximize"


@pytest.mark.parametrize("name", registry())
def test_a_specification_takes_every_metric_in_its_direction_alone(name):
    spec = MetricSpec(name=name)
    assert spec.resolved_direction == registry()[name].direction
    assert find(spec) is registry()[name]
    other = {"minimize": "maximize", "maximize": "minimize"}[spec.resolved_direction]
    with pytest.raises(ValueError, match=f"can only be {spec.resolved_direction}d"):
        MetricSpec(name=name, direction=other).check(reported=False)


@pytest.mark.parametrize("name", ["eval_loss", "two words", "module:function"])
def test_a_metric_has_a_name_of_its_own_that_is_no_reference(name):
    with pytest.raises(ValueError, match=f"cannot be named '{name}'"):
        register(Metric(name, "minimize", lambda evaluation: Scores(0.0)))


def test_an_unknown_metric_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="'exact_mach' is unknown; did you mean 'exact_match'"):
        MetricSpec(name="exact_mach").check(reported=False)
