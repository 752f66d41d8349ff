"""The divergence rule on reports of trainers that have no warm-up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autolora.trainers.watching import ReportWatch


def stop_of(losses: list[float], examples: int = 8) -> int | None:
    watch = ReportWatch(examples)
    return next((step for step, loss in enumerate(losses, start=1) if watch.update(loss)), None)


def test_a_run_that_blows_up_at_its_first_step_stops():
    """Losses of LoRA on the shipped model at a learning rate of 1 from the first step on."""
    assert stop_of([1.384, 6.966, 9.025, 7.315, 5.93, 5.632, 5.181]) == 2


@pytest.mark.parametrize("examples", [1, 8, 32])
def test_the_noise_of_batches_is_not_taken_for_divergence(examples):
    rng = np.random.default_rng(0)
    for _ in range(20):
        losses = 1.2 * rng.lognormal(-0.12, 0.5, size=(300, examples)).mean(axis=1)
        assert stop_of(losses.tolist(), examples) is None


def test_a_first_report_that_is_not_finite_stops():
    assert stop_of([math.nan]) == 1
