"""The prior is a density: it integrates to one, and its draws follow it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from autolora import variants
from autolora.priors.prior import UNIFORM_SHARE, Prior, nearest_rate, uniform_density, uniform_sample
from autolora.space import Config, Range, Space, Traits

LORA = Traits()
PRIOR = Prior.from_laws(64, 800)
WIDE = Space(learning_rate=(1e-6, 1e-1), batch_size=[8, 256], rank=[4, 32], alpha="law", hidden_size=64)
CUT = Space(learning_rate=(1e-3, 5e-3), batch_size=[8], rank=[16], alpha=(12, 24), hidden_size=64)
FREE = Space(learning_rate=(1e-5, 1e-1), batch_size=[8, 64], rank=[4, 32], alpha=(1, 512), hidden_size=64)
FAR_OFF = Space(learning_rate=(1e-12, 1e-10), batch_size=[8], rank=[16], alpha=(1e6, 1e7), hidden_size=64)
FINITE = Space(learning_rate=[1e-4, 1e-3, 1e-2], batch_size=[8, 256], rank=[4, 32], alpha=[4, 32, 256])
FINITE_FAR_OFF = Space(learning_rate=[1e-12, 1e-11, 1e-10], batch_size=[8], rank=[4], alpha="rank")
SPACES = pytest.mark.parametrize(
    "space",
    [WIDE, CUT, FREE, FAR_OFF, FINITE, FINITE_FAR_OFF],
    ids=["wide", "cut", "free", "far", "finite", "finite-far"],
)


def midpoints(choices: Range | list[float], log, count: int) -> tuple[np.ndarray, float]:
    """Points over the logarithm of a range with their spacing; a list's own values, each of measure one."""
    if isinstance(choices, list):
        return np.array(choices), 1.0
    low, high = log(choices.low), log(choices.high)
    step = (high - low) / count
    base = 10.0 if log is math.log10 else 2.0
    return base ** (low + step * (np.arange(count) + 0.5)), step


def integral(density, space: Space, traits: Traits) -> float:
    total = 0.0
    for rank, batch in itertools.product(space.rank, space.batch_size):
        alphas, alpha_step = midpoints(space.alphas(traits, rank), math.log2, 60)
        rates, rate_step = midpoints(space.learning_rates, math.log10, 120)
        for alpha, eta in itertools.product(alphas, rates):
            total += density(Config(float(eta), batch, rank, float(alpha))) * alpha_step * rate_step
    return total


def largest_gap(values: list[float], density, interval: Range, log) -> float:
    """Kolmogorov-Smirnov statistic of values against a density over the logarithm of an interval."""
    points, step = midpoints(interval, log, 2000)
    cumulative = np.cumsum([density(float(point)) for point in points]) * step
    ordered = np.sort(values)
    expected = np.interp([log(value) for value in ordered], [log(point) + step / 2 for point in points], cumulative)
    return float(np.abs(expected - (np.arange(len(ordered)) + 0.5) / len(ordered)).max())


@SPACES
@pytest.mark.parametrize("name", ["lora", "pissa", "rslora"])
def test_the_density_integrates_to_one(space, name):
    traits = variants.get(name).traits
    assert integral(lambda c: math.exp(PRIOR.log_pdf(space, traits, c)), space, traits) == pytest.approx(1, abs=0.01)


@SPACES
def test_the_uniform_density_integrates_to_one(space):
    assert integral(lambda c: uniform_density(space, LORA, c), space, LORA) == pytest.approx(1)


@SPACES
def test_draws_lie_in_the_space(space):
    rng = np.random.default_rng(0)
    for _ in range(200):
        for config in (PRIOR.sample(rng, space, LORA), uniform_sample(rng, space, LORA)):
            assert math.isfinite(PRIOR.log_pdf(space, LORA, config))
            assert config.rank in space.rank
            assert config.batch_size in space.batch_size
            for value, choices in (
                (config.learning_rate, space.learning_rates),
                (config.alpha, space.alphas(LORA, config.rank)),
            ):
                assert choices.contains(value) if isinstance(choices, Range) else value in choices


@pytest.mark.parametrize("space", [CUT.model_copy(update={"alpha": 16.0}), FAR_OFF.model_copy(update={"alpha": 16.0})])
@pytest.mark.parametrize("name", ["lora", "pissa"])
def test_drawn_learning_rates_follow_the_density(space, name):
    traits = variants.get(name).traits
    rng = np.random.default_rng(1)
    drawn = [PRIOR.sample(rng, space, traits).learning_rate for _ in range(3000)]
    gap = largest_gap(
        drawn,
        lambda eta: math.exp(PRIOR.log_pdf(space, traits, Config(eta, 8, 16, 16.0))),
        space.learning_rates,
        math.log10,
    )
    assert gap < 1.63 / math.sqrt(len(drawn))


@pytest.mark.parametrize("alphas", [(12, 24), (1, 512), (1e6, 1e7)])
def test_drawn_alphas_follow_the_density(alphas):
    space = Space(learning_rate=1e-3, batch_size=8, rank=16, alpha=alphas, hidden_size=64)
    rng = np.random.default_rng(2)
    drawn = [PRIOR.sample(rng, space, LORA).alpha for _ in range(3000)]
    gap = largest_gap(
        drawn,
        lambda alpha: math.exp(PRIOR.log_pdf(space, LORA, Config(1e-3, 8, 16, alpha))),
        space.alphas(LORA, 16),
        math.log2,
    )
    assert gap < 1.63 / math.sqrt(len(drawn))


@pytest.mark.parametrize("space", [FINITE, FINITE_FAR_OFF])
def test_drawn_choices_follow_their_probabilities(space):
    rng = np.random.default_rng(3)
    drawn = [PRIOR.sample(rng, space, LORA) for _ in range(4000)]
    for config in space.enumerate(LORA):
        expected = math.exp(PRIOR.log_pdf(space, LORA, config))
        assert abs(drawn.count(config) / len(drawn) - expected) < 4 * math.sqrt(expected / len(drawn)) + 1e-3


def test_a_tenth_of_the_draws_is_uniform():
    rng = np.random.default_rng(4)
    sure = Prior(PRIOR.centre, 1e-3, PRIOR.hidden_size)
    certain = replace(LORA, shift_sd=0.0)
    # At the reference of the laws, away from which exponents are uncertain, too.
    space = WIDE.model_copy(update={"alpha": "rank", "batch_size": [128], "rank": [16]})
    far = [abs(sure.coordinates.z(certain, sure.sample(rng, space, certain))) > 0.01 for _ in range(3000)]
    assert np.mean(far) == pytest.approx(UNIFORM_SHARE, abs=0.02)


def test_nothing_has_probability_zero():
    for eta, batch, rank in itertools.product((1e-6, 1e-1), (8, 256), (4, 32)):
        config = Config(eta, batch, rank, WIDE.alphas(LORA, rank)[0])
        assert math.exp(PRIOR.log_pdf(WIDE, LORA, config)) >= 0.1 * uniform_density(WIDE, LORA, config)


def test_a_range_in_a_far_tail_is_piled_up_at_its_nearer_end():
    rng = np.random.default_rng(5)
    rates = [config.learning_rate for config in (PRIOR.sample(rng, FAR_OFF, LORA) for _ in range(200))]
    assert np.median(rates) > 3e-11


def test_choices_in_a_far_tail_go_to_the_nearest():
    config = Config(1e-10, 8, 4, 4.0)
    assert math.exp(PRIOR.log_pdf(FINITE_FAR_OFF, LORA, config)) > 0.8


def test_batches_above_the_usual_are_less_likely():
    rng = np.random.default_rng(6)
    batches = [PRIOR.sample(rng, WIDE, LORA).batch_size for _ in range(2000)]
    assert batches.count(256) / len(batches) == pytest.approx(0.9 / 3 + 0.1 / 2, abs=0.04)


@pytest.mark.parametrize("away", [{"alpha": 256.0}, {"batch_size": 8}, {"rank": 128, "alpha": 128.0}])
def test_unknown_exponents_widen_the_belief_away_from_the_reference(away):
    reference = Config(1e-3, 128, 16, 16.0)
    at_reference = PRIOR.spread(LORA, reference)
    assert at_reference == math.hypot(PRIOR.sd, LORA.shift_sd)
    assert PRIOR.spread(LORA, reference.replaced(**away)) > at_reference


def test_the_mode_is_where_the_laws_put_the_rate():
    mode = PRIOR.mode(WIDE, LORA)
    assert PRIOR.coordinates.z(LORA, mode) == pytest.approx(0)


def test_the_mode_is_the_largest_rank_the_smallest_batch_and_the_law_s_alpha():
    space = Space(batch_size=[32, 8], rank=[64, 4, 16], alpha=(1, 1000), hidden_size=64)
    mode = PRIOR.mode(space, LORA)
    assert (mode.rank, mode.batch_size) == (64, 8)
    assert mode.alpha == pytest.approx(math.sqrt(3 * 64 * 64))


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 2.0])
def test_no_other_rate_is_more_likely_than_the_mode_s(factor):
    mode = PRIOR.mode(WIDE, LORA)
    other = Config(mode.learning_rate * factor, mode.batch_size, mode.rank, mode.alpha)
    assert PRIOR.log_pdf(WIDE, LORA, other) < PRIOR.log_pdf(WIDE, LORA, mode)


@SPACES
@pytest.mark.parametrize("name", ["lora", "pissa", "rslora"])
def test_the_mode_lies_in_the_space(space, name):
    mode = PRIOR.mode(space, variants.get(name).traits)
    alphas = space.alphas(variants.get(name).traits, mode.rank)
    assert mode.learning_rate == nearest_rate(space, mode.learning_rate)
    assert alphas.contains(mode.alpha) if isinstance(alphas, Range) else mode.alpha in alphas


def test_a_variant_s_shift_moves_its_mode():
    shifted = PRIOR.mode(WIDE, Traits(shift=-0.4))
    assert shifted.learning_rate / PRIOR.mode(WIDE, LORA).learning_rate == pytest.approx(10**-0.4)
