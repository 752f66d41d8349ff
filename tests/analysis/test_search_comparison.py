"""Differences of two configurations over new seeds and new examples: intervals hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from autolora.analysis import student
from autolora.analysis.comparison import SeedNoise, difference, holm, paired_error
from autolora.scores import Scores

ROWS = 80


class World:
    """Variants of known means, scored by tokens with noise of every kind: example, variant, seed and their meeting."""

    def __init__(self, rng: np.random.Generator, variants: int, seeds: int, gap: float = 0.0) -> None:
        weights = rng.integers(5, 40, ROWS)
        hard = rng.normal(2.0, 1.0, ROWS)
        self.groups = []
        for variant in range(variants):
            liked = hard + rng.normal(0, 0.4, ROWS)
            runs = []
            for _ in range(seeds):
                mean = gap * (variant > 0) + rng.normal(0, 0.05) + liked + rng.normal(0, 0.4, ROWS)
                runs.append(Scores.of(weights * mean, weights))
            self.groups.append(runs)
        self.noise = SeedNoise.pooled(self.groups)

    def difference(self, variant: int = 1):
        return difference(self.groups[variant], self.groups[0], self.noise)


@pytest.mark.parametrize("freedom", [1, 1.7, 4, 30, 255, 10_000])
def test_students_t_is_scipys(freedom):
    for t in (0.0, 0.3, 1.0, 2.5, 12.0):
        assert student.two_sided_p(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-6)
    assert student.critical(0.05, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-7)


@pytest.mark.parametrize(("variants", "seeds"), [(2, 2), (3, 3)])
def test_intervals_hold_the_truth_19_times_of_20(variants, seeds):
    rng = np.random.default_rng(1)
    found = [World(rng, variants, seeds, gap=0.1).difference() for _ in range(800)]
    covered = np.mean([one.low <= 0.1 <= one.high for one in found])
    assert 0.93 <= covered <= 0.98


def test_no_difference_is_rarely_called_one_however_many_are_compared():
    rng = np.random.default_rng(2)
    called = []
    for _ in range(200):
        world = World(rng, variants=5, seeds=2)
        adjusted = holm({str(variant): world.difference(variant).p for variant in range(1, 5)})
        called.append(min(adjusted.values()) < 0.05)
    assert np.mean(called) <= 0.06


def test_a_difference_beyond_noise_is_found():
    rng = np.random.default_rng(3)
    found = [World(rng, variants=3, seeds=3, gap=0.5).difference() for _ in range(100)]
    assert np.mean([one.p < 0.05 for one in found]) > 0.8


def test_what_examples_have_in_common_does_not_widen_the_interval():
    rng = np.random.default_rng(4)
    hard = rng.normal(0, 10, ROWS)
    groups = [[Scores.of(hard + rng.normal(mean, 0.1, ROWS)) for _ in range(3)] for mean in (1.0, 1.2)]
    found = difference(groups[1], groups[0], SeedNoise.pooled(groups))
    assert found.high - found.low < 0.2
    assert found.value == pytest.approx(0.2, abs=0.05)


def test_without_examples_it_is_the_two_sample_t_test():
    one, other = [1.0, 1.3, 1.1], [0.7, 0.9]
    groups = [[Scores(value) for value in values] for values in (one, other)]
    found = difference(*groups, SeedNoise.pooled(groups))
    peer = stats.ttest_ind(one, other)
    assert found.p == pytest.approx(peer.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(peer.confidence_interval(0.95)))
    assert found.example_error is None


def test_seed_noise_comes_from_any_configuration_that_was_repeated():
    single = [[Scores(1.0)], [Scores(2.0)]]
    noise = SeedNoise.pooled([*single, [Scores(3.0), Scores(3.2)]])
    found = difference(*single, noise)
    assert found.seed_error == pytest.approx(np.sqrt(0.02 * 2))
    assert found.p > 0.05


def test_with_one_seed_everywhere_nothing_is_claimed():
    groups = [[Scores.of([1.0, 2.0, 3.0])], [Scores.of([1.5, 2.0, 3.5])]]
    assert SeedNoise.pooled(groups) is None
    found = difference(groups[0], groups[1], None)
    assert found.value == pytest.approx(-1 / 3)
    assert (found.low, found.high, found.p) == (None, None, None)


def test_seeds_that_score_the_same_by_chance_are_no_proof_of_no_noise():
    groups = [[Scores(0.5), Scores(0.5)], [Scores(0.6), Scores(0.6)]]
    assert difference(*groups, SeedNoise.pooled(groups)).p is None


def test_identical_runs_do_not_differ():
    runs = [Scores.of([1.0, 0.0, 1.0])] * 2
    found = difference(runs, runs, SeedNoise.pooled([runs, runs]))
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_runs_on_other_rows_are_compared_by_seeds_alone():
    groups = [[Scores.of([1.0, 2.0]), Scores.of([1.1, 2.2])], [Scores.of([1.0, 2.0, 3.0]), Scores(2.2)]]
    assert difference(*groups, SeedNoise.pooled(groups)).example_error is None


def test_the_paired_error_is_that_of_the_differences():
    one, other = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0])
    error = stats.sem(one - other)
    assert paired_error(Scores.of(one), Scores.of(other)) == pytest.approx(error)
    assert paired_error(Scores.of(one), Scores(2.0)) is None


def test_holms_adjustment():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5}) == pytest.approx(
        {"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.5}
    )
    assert holm({}) == {}


def tuned(shortfalls, sign: float = 1.0):
    groups = [[Scores(value) for value in values] for values in ([1.0, 1.1, 1.05], [1.5, 1.6, 1.55])]
    return difference(groups[1], groups[0], SeedNoise.pooled(groups), shortfalls, sign)


def test_what_one_may_gain_by_more_search_widens_the_interval_where_it_would_be_better():
    found, plain = tuned((0.3, 0.0)), tuned(None)
    assert found.low < plain.low - 0.2
    assert found.high == plain.high
    assert tuned((0.3, 0.0), sign=-1.0).low == plain.low
    assert tuned((0.3, 0.0), sign=-1.0).high > plain.high + 0.2


def test_what_the_other_may_gain_by_more_search_widens_it_at_the_other_end():
    found, plain = tuned((0.0, 0.3)), tuned(None)
    assert found.low == plain.low
    assert found.high > plain.high + 0.2


def test_that_one_is_worse_is_less_certain_the_more_it_may_gain_by_more_search():
    assert tuned((0.0, 0.3)).p == tuned(None).p < tuned((0.1, 0.0)).p < 0.05 < tuned((0.4, 0.0)).p


def test_without_shortfalls_and_with_none_at_all_it_is_the_same_interval():
    found, plain = tuned((0.0, 0.0)), tuned(None)
    assert (found.low, found.high, found.p) == (plain.low, plain.high, plain.p)
    assert (found.seeds, found.shortfalls, plain.shortfalls) == ((3, 3), (0.0, 0.0), None)
