"""What every registered metric must do, on the shipped model and task."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from autolora.metrics import registry
from autolora.space import Config
from autolora.tasks.causal_lm.split import Split
from autolora.trainers.builtin.evaluation import SplitEvaluation
from autolora.trainers.builtin.passes import Passes


@pytest.fixture(scope="module")
def bench(open_bench, tmp_path_factory):
    return open_bench(tmp_path_factory.mktemp("metrics"), **{"data.eval_size": 8})


@pytest.fixture(scope="module")
def view(bench):
    """``view(batch_size)``: an adapter as metrics see it."""
    with bench.attached("lora", Config(1e-3, 8, 4, 4.0), 0) as adapted, torch.no_grad():
        adapted.eval()
        rows, stops = bench.data.eval, bench.evaluator.stops

        def of(size: int) -> SplitEvaluation:
            """So many rows pass at once, or are generated at once."""
            passes = Passes(size * int(rows.lengths.max()), overhead=10**6)
            return SplitEvaluation(
                model=adapted,
                base=bench.base,
                split=rows,
                stops=stops,
                max_new_tokens=8,
                passes=passes,
                generated=size,
            )

        yield of


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


def test_sequence_accuracy_is_the_share_of_rows_that_greedy_generation_gives(bench, view):
    rows, count = 6, 4
    tokens, targets = [], []
    for row in range(rows):
        prompt = bench.data.eval.prompt_tokens(row).tolist()
        generated = view(1).model.generate(
            input_ids=torch.tensor([prompt]), max_new_tokens=count, min_new_tokens=count, do_sample=False
        )
        answer = generated[0, len(prompt) :].tolist()
        if row % 3 == 0:  # one token in the middle is another
            answer[1] = (answer[1] + 1) % bench.base.model.config.vocab_size
        tokens += [*prompt, *answer]
        targets += [False] * len(prompt) + [True] * count
    lengths = [0, *np.cumsum([len(bench.data.eval.prompt_tokens(row)) + count for row in range(rows)])]
    split = Split(np.array(tokens, dtype=np.int32), np.array(lengths), np.array(targets), np.arange(rows))
    scores = registry()["sequence_accuracy"].scores(replace(view(4), split=split))
    assert scores.totals.tolist() == [0.0, 1.0, 1.0] * 2
