"""Randomized maximum likelihood against what it has to equal where everything is linear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autolora.search.ensemble import Observations, fit, nearest_starts
from tests.support.history import at, features

MEMBERS = 4000
DESIGN = np.array([[1.0, 0.0, 0.3], [1.0, 1.0, 0.0], [0.0, 1.0, -1.0], [1.0, -0.5, 0.5]])
MEAN, SD = np.array([0.5, -1.0, 0.0]), np.array([1.0, 0.5, 2.0])
VALUES, NOISE = np.array([1.0, 0.2, -0.7, 1.5]), np.array([0.3, 0.3, 0.5, 1.0])


class Linear:
    """A response that is linear in its parameters."""

    def values(self, parameters, points):
        return parameters @ DESIGN[: len(points)].T

    def linearized(self, parameters, points):
        design = DESIGN[: len(points)]
        return parameters @ design.T, np.broadcast_to(design, (len(parameters), *design.shape))


def observations(count: int = 4, bound: bool = False) -> Observations:
    points = features().full("lora", [at(float(z)) for z in range(count)])
    return Observations(points, VALUES[:count], np.full(count, bound), NOISE[:count])


def members(seen: Observations) -> np.ndarray:
    rng = np.random.default_rng(0)
    centre, sd = MEAN + SD * rng.standard_normal((MEMBERS, 3)), np.tile(SD, (MEMBERS, 1))
    return fit(Linear(), seen, seen.perturbed(rng, MEMBERS), centre, centre, sd, 20)[0]


def test_the_members_have_the_posterior_s_mean_and_covariance():
    found = members(observations())
    covariance = np.linalg.inv(DESIGN.T @ np.diag(NOISE**-2) @ DESIGN + np.diag(SD**-2))
    mean = covariance @ (DESIGN.T @ (VALUES / NOISE**2) + MEAN / SD**2)
    sds = np.sqrt(np.diag(covariance))
    assert (np.abs(found.mean(axis=0) - mean) < 4 * sds / MEMBERS**0.5).all()
    correlated = np.cov(found.T) / np.outer(sds, sds)
    assert correlated == pytest.approx(covariance / np.outer(sds, sds), abs=6 / MEMBERS**0.5)


def test_without_observations_the_members_are_the_beliefs():
    found = members(observations(0))
    assert found.mean(axis=0) == pytest.approx(MEAN, abs=4 * SD.max() / MEMBERS**0.5)
    assert found.std(axis=0) == pytest.approx(SD, rel=0.06)


def test_a_bound_that_is_kept_says_nothing():
    seen = replace(observations(bound=True), values=np.full(4, -100.0))
    assert members(seen) == pytest.approx(members(observations(0)))


def test_a_bound_that_is_broken_pushes_to_its_own_side_alone():
    before, after = members(observations(0)), members(observations(1, bound=True))
    rises = (after - before) @ DESIGN[0]
    below = before @ DESIGN[0] < VALUES[0]
    assert (rises[below] > 0).all()
    assert rises[~below] == pytest.approx(0)
    assert (after @ DESIGN[0] > VALUES[0] - 3 * NOISE[0]).mean() > 0.95


def test_bounds_are_not_perturbed():
    assert (observations(bound=True).perturbed(np.random.default_rng(0), 5) == VALUES).all()


def test_a_fit_never_makes_the_objective_worse():
    seen, rng = observations(), np.random.default_rng(1)
    centre, sd = MEAN + SD * rng.standard_normal((50, 3)), np.tile(SD, (50, 1))
    targets = seen.perturbed(rng, 50)
    start = centre + rng.standard_normal((50, 3))
    before = fit(Linear(), seen, targets, start, centre, sd, 0)[1]
    after = fit(Linear(), seen, targets, start, centre, sd)[1]
    assert (after <= before).all()


def test_a_member_starts_where_its_objective_is_lowest():
    seen = observations()
    targets = np.tile(DESIGN @ np.array([3.0, 3.0, 3.0]), (2, 1))
    starts, centre = np.array([[3.0, 3.0, 3.0], [9.0, 9.0, 9.0]]), np.array([[0.0, 0.0, 0.0], [3.0, 3.0, 3.1]])
    sd = np.full((2, 3), 10.0)
    begun = nearest_starts(Linear(), seen, targets, starts, centre, sd)
    assert begun[0] == pytest.approx(starts[0])
    assert begun[1] == pytest.approx(centre[1]) or begun[1] == pytest.approx(starts[0])
