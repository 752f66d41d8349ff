"""How the surrogate sees a dimension."""

from __future__ import annotations

import numpy as np
import pytest

from autolora.space.encoder import SmoothLevels


@pytest.mark.parametrize("choices", [[4], [4, 8], [4, 8, 16], [8, 64, 256, 1024]])
def test_smooth_levels_span_the_choices_and_leave_their_mean(choices):
    levels = SmoothLevels(choices)
    values = np.array([levels(choice) for choice in choices])
    assert levels.count == len(choices) - 1
    assert values.sum(axis=0) == pytest.approx(np.zeros(levels.count), abs=1e-3)
    assert np.linalg.matrix_rank(values, tol=1e-3) == levels.count


def test_many_choices_keep_the_smoothest_functions():
    assert SmoothLevels([2**power for power in range(9)]).count == 3
