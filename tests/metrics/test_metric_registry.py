"""The registry of built-in metrics."""

from __future__ import annotations

import pytest

from autolora.metrics import METRICS
from autolora.spec import MetricSpec
from autolora.training.evaluate import load_metric


def test_names_and_directions():
    assert {name: metric.direction for name, metric in METRICS.items()} == {
        "eval_loss": "minimize",
        "token_accuracy": "maximize",
        "exact_match": "maximize",
    }
    assert all(name == metric.name for name, metric in METRICS.items())


@pytest.mark.parametrize("name", METRICS)
def test_a_specification_takes_every_metric_in_its_direction_alone(name):
    spec = MetricSpec(name=name)
    assert spec.resolved_direction == METRICS[name].direction
    assert load_metric(spec) is METRICS[name].scores
    other = {"minimize": "maximize", "maximize": "minimize"}[spec.resolved_direction]
    with pytest.raises(ValueError, match=f"can only be {spec.resolved_direction}d"):
        MetricSpec(name=name, direction=other)
