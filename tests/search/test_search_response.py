"""The shape of a score over the learning rate."""

from __future__ import annotations

import numpy as np
import pytest

from autolora.search.response import Response, _seen
from tests.support.history import at, features


def test_derivatives_are_those_of_finite_differences():
    made = features()
    response, rng = Response(made), np.random.default_rng(0)
    zs, ranks = rng.normal(0, 1, 12), rng.choice([4, 8, 16], 12)
    points = made.points(
        ["lora", "dora", "pissa"] * 4,
        [at(z, rank=int(rank)) for z, rank in zip(zs, ranks, strict=True)],
        [0, 1, 2, 2] * 3,
    )
    parameters = response.mean + response.sd * rng.standard_normal((3, len(response.mean)))
    values, jacobian = response.linearized(parameters, points)
    assert values == pytest.approx(response.values(parameters, points))
    for place in range(len(response.mean)):
        step = np.zeros(len(response.mean))
        step[place] = 1e-6
        slope = (response.values(parameters + step, points) - response.values(parameters - step, points)) / 2e-6
        assert jacobian[:, :, place] == pytest.approx(slope, abs=1e-4)


def excess(distances: list[float], rung: int = 2) -> np.ndarray:
    """Over the best, by the mean of the beliefs, in units."""
    made = features()
    response = Response(made)
    points = made.points(["lora"] * len(distances), [at(z) for z in distances], [rung] * len(distances))
    bottom = made.points(["lora"], [at(0.0)], [rung])
    seen, lowest = response.values(response.mean[None], points)[0], response.values(response.mean[None], bottom)[0]
    return _raw(seen) - _raw(lowest)


def _raw(seen: np.ndarray) -> np.ndarray:
    return np.where(seen < 0, seen, np.sinh(seen))


def test_the_best_is_a_plateau_of_half_a_decade():
    assert (excess([-0.3, -0.1, 0.0, 0.1, 0.2]) < 1.3).all()


def test_the_decline_to_the_left_is_slow_and_the_cliff_to_the_right_steep():
    left, right = excess([-1.0, 1.0])
    assert 3 < left < 15
    assert right > 2 * left


def test_short_runs_are_more_sensitive():
    assert excess([-1.0], rung=0) > 1.3 * excess([-1.0], rung=2)


def test_shifts_move_the_best():
    made = features()
    response = Response(made)
    parameters = response.mean[None].copy()
    parameters[0, 0] = 0.6
    points = made.full("lora", [at(z) for z in np.linspace(-1, 1.5, 26)])
    assert response.best_z(parameters, points) == pytest.approx(np.full((1, 26), 0.6))
    assert points.z[response.values(parameters, points)[0].argmin()] == pytest.approx(0.6, abs=0.051)


def test_below_the_best_seen_the_response_is_linear():
    raw = np.array([-20.0, -3.0, 0.0])
    assert _seen(raw) == pytest.approx(raw)
    assert _seen(np.array([3.0])) == pytest.approx(np.arcsinh(3.0))
