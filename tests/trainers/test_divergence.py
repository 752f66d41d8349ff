"""The divergence rule: relative to the run's own past, within steps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autolora.trainers.divergence import DivergenceWatch


def stop_of(losses, norms=None, batch_size=8):
    """Step and reason of the first verdict, or None."""
    watch = DivergenceWatch(batch_size)
    for step, (loss, norm) in enumerate(zip(losses, norms or [1.0] * len(losses), strict=True), start=1):
        reason = watch.update(loss, norm)
        if reason:
            return step, reason
    return None


def test_a_falling_loss_is_left_alone():
    assert stop_of([3 * 0.97**i + 0.3 * math.sin(i) for i in range(200)]) is None


def test_a_noisy_loss_around_its_start_is_left_alone():
    assert stop_of([2.0 + 1.2 * math.sin(1.7 * i) for i in range(200)]) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_loss_stops_at_once(bad):
    step, reason = stop_of([2.0, bad])
    assert step == 2
    assert "training loss became" in reason


def test_a_non_finite_gradient_stops_at_once():
    step, reason = stop_of([2.0, 2.0], [1.0, math.nan])
    assert step == 2
    assert "gradient norm became" in reason


def test_a_loss_far_above_its_start_stops_within_steps():
    step, reason = stop_of([2.0] * 10 + [9.0] * 20)
    assert step <= 12
    assert "start" in reason


def test_a_loss_that_fell_and_then_blew_up_below_its_start_stops():
    step, reason = stop_of([10 * 0.9**i + 0.5 for i in range(60)] + [5.0] * 20)
    assert 60 < step <= 75
    assert "best" in reason


def test_a_single_spike_of_loss_and_gradient_is_forgiven():
    assert stop_of([2.0] * 20 + [3.5] + [2.0] * 20, [1.0] * 20 + [80.0] + [1.0] * 20) is None


def test_repeated_spikes_of_gradient_and_loss_stop():
    step, reason = stop_of([2.0] * 20 + [2.8, 2.8], [1.0] * 20 + [40.0, 30.0])
    assert step == 22
    assert "median" in reason


def test_large_gradients_alone_with_a_falling_loss_are_left_alone():
    assert stop_of([2.0 - 0.01 * i for i in range(40)], [1.0] * 20 + [40.0] * 20) is None


def test_gradients_sixteen_times_larger_from_the_start_are_left_alone():
    assert stop_of([2.0] * 40, [16.0] * 40) is None


def test_vanished_gradients_stop():
    step, reason = stop_of([10.0, 10.0] + [6.6] * 20, [1.7, 1.4, 180.0, 10000.0] + [0.0] * 18)
    assert step <= 8
    assert "vanished" in reason


def test_the_noise_of_small_batches_is_not_taken_for_divergence():
    """Single examples, whose losses scatter by a factor of two, at a mean that does not fall."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        losses = (1.2 * rng.lognormal(-0.12, 0.5, size=500)).tolist()
        norms = rng.lognormal(0, 0.5, size=500).tolist()
        assert stop_of(losses, norms, batch_size=1) is None


def test_runs_recorded_past_the_cliff_stop_by_the_eighth_step():
    """Losses and norms of LoRA at rates 10 to 100 times the best, batch 8, on a small pretrained model."""
    tenfold = [6.83, 7.01, 6.91, 11.28, 14.9, 10.93, 9.7, 14.09], [3.19, 3.03, 6.19, 33.37, 29.23, 7.62, 7.0, 3.76]
    thirtyfold = [6.83, 7.01, 8.78, 12.23, 18.34, 17.13, 14.9, 11.4], [3.19, 3.03, 22.9, 235.6, 11.9, 0.83, 0.7, 0.46]
    hundredfold = [6.83, 7.01, 15.37, 12.88, 18.2, 10.5, 10.7, 13.9], [3.19, 3.03, 217.5, 11.4, 4.4, 68.9, 2.33, 7.39]
    for losses, norms in (tenfold, thirtyfold, hundredfold):
        assert stop_of(losses, norms) is not None


def test_a_resumed_watch_gives_the_verdict_of_an_uncut_one():
    losses, norms = [2.0] * 10 + [9.0] * 10, [1.0] * 20
    uncut, _ = stop_of(losses, norms)
    for cut in range(1, uncut):
        watch = DivergenceWatch(8, losses[:cut], norms[:cut])
        verdicts = [watch.update(loss, norm) for loss, norm in zip(losses[cut:], norms[cut:], strict=True)]
        assert cut + next(i for i, verdict in enumerate(verdicts, start=1) if verdict) == uncut
