"""A score and what its rows contribute to it."""

from __future__ import annotations

import numpy as np
import pytest

from autolora.scores import Scores


def test_the_score_is_the_weighted_mean_and_so_is_the_mean_of_contributions():
    scores = Scores.of([4.0, 2.0, 9.0], [2, 1, 3])
    assert scores.value == pytest.approx(15 / 6)
    assert scores.contributions().mean() == pytest.approx(scores.value)


def test_a_long_row_that_scores_as_the_mean_does_moves_nothing():
    scores = Scores.of([2.0, 4.0, 200.0], [1, 1, 100 - 34])
    longer = Scores.of([2.0, 4.0, 3 * 100.0], [1, 1, 100])
    assert longer.value == 3.0
    assert longer.contributions()[2] == pytest.approx(3.0)
    assert scores.contributions()[2] != pytest.approx(scores.value)


def test_contributions_vary_as_the_score_does_over_new_rows():
    rng = np.random.default_rng(0)

    def draw() -> Scores:
        weights = rng.integers(1, 60, 200)
        return Scores.of(weights * rng.normal(2.0, 0.5, 200) + rng.normal(0, 3, 200), weights)

    drawn = [draw() for _ in range(400)]
    spread = np.std([scores.value for scores in drawn])
    told = np.mean([scores.contributions().std(ddof=1) / np.sqrt(200) for scores in drawn])
    assert told == pytest.approx(spread, rel=0.1)


def test_a_metric_of_one_number_tells_nothing_of_rows():
    assert Scores(0.5).contributions() is None
