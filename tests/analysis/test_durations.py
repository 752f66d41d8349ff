"""What longer training gains, from full runs alone; and tuned rates carried to another length."""

from __future__ import annotations

import pytest

from autolora import laws
from autolora.analysis.carrying import Carried
from autolora.analysis.durations import Gain, gains, pays_until
from autolora.search.trials import Sampled, Scored, TrialTable
from autolora.space import Config, Space

SPACE = Space(duration=[1, 2, 4], batch_size=[8], rank=[4])


def table(scores: dict[float, list[float]], direction: str = "minimize") -> TrialTable:
    """One configuration of each duration, and a score for each of its seeds."""
    made = TrialTable((1.0,), direction, length=SPACE.length)
    for duration, values in scores.items():
        for seed, value in enumerate(values):
            number = len(made.trials)
            config = Config(1e-3, 8, 4, 8.0).replaced(duration=duration)
            made.apply(Sampled(number, "lora", config, seed, "search" if not seed else "confirm", 0, ""))
            made.apply(Scored(number, 0, value))
    return made


def steps(scores: dict[float, list[float]], direction: str = "minimize") -> tuple[Gain, ...]:
    return gains(table(scores, direction), SPACE, ["lora"])["lora"]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_gain_is_the_difference_of_the_best_and_has_an_interval(direction):
    sign = 1 if direction == "minimize" else -1
    noisy = {1: [1.0, 1.02, 0.98], 2: [0.8, 0.82, 0.78], 4: [0.79, 0.81, 0.77]}
    found = steps({each: [sign * value for value in values] for each, values in noisy.items()}, direction)
    assert [gain.expected for gain in found[:2]] == pytest.approx([0.2, 0.01])
    assert [gain.low < gain.expected < gain.high for gain in found] == [True, True, True]
    assert pays_until(found) == 2


def test_noise_that_is_not_known_says_nothing_of_where_it_ends():
    found = steps({1: [1.0], 2: [0.8]})
    assert found[0].low is None
    assert pays_until(found) == 1


def test_beyond_the_longest_each_doubling_gains_less_than_the_last():
    found = steps({1: [1.0, 1.0, 1.0], 2: [0.8, 0.8, 0.8], 4: [0.7, 0.7, 0.71]})
    beyond = found[-1]
    assert (beyond.start, beyond.stop, beyond.searched) == (4, 8, False)
    assert 0 < beyond.expected < found[1].expected
    assert beyond.high <= found[1].high


def test_more_epochs_that_do_worse_are_a_loss():
    assert steps({1: [0.7, 0.71], 2: [0.9, 0.91]})[0].high < 0


def test_nothing_is_said_where_durations_are_not_searched_or_one_was_trained():
    assert gains(table({1: [1.0], 2: [0.8]}), Space(), ["lora"]) == {}
    assert gains(table({2: [0.8]}), SPACE, ["lora"]) == {}


def test_a_rate_is_carried_by_the_law_of_length_with_an_interval_that_widens():
    near, far = Carried.of(1e-3, 1000, 2000), Carried.of(1e-3, 1000, 100_000)
    assert far.learning_rate == pytest.approx(1e-3 * 100**laws.LENGTH_EXPONENT)
    assert far.low < far.learning_rate < far.high
    assert far.high / far.low > near.high / near.low
