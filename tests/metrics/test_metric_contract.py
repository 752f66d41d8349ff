"""What every registered metric must do, on the shipped model and task."""

from __future__ import annotations

import math

import pytest
import torch

from autolora.metrics import registry
from autolora.space import Config
from autolora.trainers.builtin.evaluation import SplitEvaluation


@pytest.fixture(scope="module")
def bench(open_bench, tmp_path_factory):
    return open_bench(tmp_path_factory.mktemp("metrics"), **{"data.eval_size": 8})


@pytest.fixture(scope="module")
def view(bench):
    """``view(batch_size)``: an adapter as metrics see it."""
    with bench.attached("lora", Config(1e-3, 8, 4, 4.0), 0) as adapted, torch.no_grad():
        adapted.eval()
        yield lambda size: SplitEvaluation(adapted, bench.base, bench.data.eval, max_new_tokens=8, batch_size=size)


@pytest.mark.parametrize("name", registry())
class TestMetric:
    def test_its_score_is_a_finite_mean_over_rows(self, name, view, bench):
        scores = registry()[name].scores(view(32))
        assert math.isfinite(scores.value)
        assert len(scores.totals) == len(bench.data.eval)
        assert scores.value == pytest.approx(scores.totals.sum() / scores.weights.sum())

    def test_it_does_not_depend_on_the_batch_size(self, name, view):
        whole, split = (registry()[name].scores(view(size)) for size in (32, 3))
        assert whole.totals == pytest.approx(split.totals, rel=1e-5)

    def test_it_has_a_direction_and_known_needs(self, name, view):
        assert registry()[name].direction in ("minimize", "maximize")
        assert registry()[name].needs <= {"prompts", "columns"}
