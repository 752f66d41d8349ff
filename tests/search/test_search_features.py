"""Configurations as numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autolora.space import Config
from tests.support.history import NAMES, PRIOR, RUNGS, TRAITS, at, features
from tests.support.simulation import SPACE


@pytest.mark.parametrize("name", NAMES)
def test_points_lie_at_the_scaling_law_coordinates(name):
    configs = [at(0.7, name), at(-1.0, name, rank=16, batch=16), Config(1e-3, 16, 4, 100.0)]
    points = features().points([name] * 3, configs, [0, 1, 2])
    assert points.z == pytest.approx([PRIOR.coordinates.z(TRAITS[name], config) for config in configs])
    assert points.depth == pytest.approx(np.log10(RUNGS))
    assert points.variant.tolist() == [NAMES.index(name)] * 3
    assert points.rung.tolist() == [0, 1, 2]


def test_every_column_has_a_belief():
    made = features()
    points = made.full("lora", [at(0.0), at(1.0)])
    assert points.shifts.shape == (2, len(made.shift_beliefs))
    assert points.levels.shape == (2, len(made.level_beliefs))


def test_no_configurations_are_no_points():
    made = features()
    points = made.full("lora", [])
    assert len(points) == 0
    assert points.levels.shape == (0, len(made.level_beliefs))


def test_an_error_of_the_exponent_moves_the_best_against_the_scale():
    """z = log eta + p log s + ...: where p is larger by 0.1, the best lies 0.1 log s lower."""
    lora, pissa = (features().full(name, [Config(1e-3, 8, 8, 80.0)]).shifts[0, 1] for name in ("lora", "pissa"))
    assert lora == pytest.approx(-math.log10(10))
    assert pissa == 0.0 or not TRAITS["pissa"].alpha_redundant


def test_a_configuration_outside_the_choices_is_accepted():
    space = SPACE.model_copy(update={"options": {"lora.gamma": [4, 16]}})
    outside = Config(0.3, 5, 7, 11.0, {"gamma": 9})
    points = features(space).full("lora", [outside])
    assert np.isfinite(points.levels).all()
    assert np.isfinite(points.settings).all()


def test_a_variant_s_option_is_a_coordinate_of_its_own():
    space = SPACE.model_copy(update={"options": {"lora.gamma": [4, 16, 64]}})
    configs = [Config(1e-3, 8, 8, 8.0, {"gamma": gamma}) for gamma in (4, 16, 64)]
    settings = features(space).full("lora", configs).settings
    assert np.diff(settings[:, -1]) == pytest.approx([0.5 / 0.7] * 2)
    assert (settings[:, :-1] == settings[0, :-1]).all()
