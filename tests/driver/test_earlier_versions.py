"""Studies that an earlier version began, with what a specification may no longer say."""

from __future__ import annotations

import pytest

import autolora
from autolora.driver import opening
from tests.support.specs import SMALL_SPEC

FEW = {**SMALL_SPEC, "training": {"examples": 24, "max_length": 64, "device": "cpu"}, "prior": None, "budget": 1}
SPACE = {"learning_rate": [1e-4, 3e-2], "rank": 2}
LARGE = {"by default": SPACE, "given": {**SPACE, "batch_size": [8, 32]}}


@pytest.mark.parametrize("space", LARGE.values(), ids=LARGE)
def test_a_study_with_batches_larger_than_its_run_goes_on(tmp_path, monkeypatch, space):
    with monkeypatch.context() as earlier:
        earlier.setattr(opening, "fitting_space", lambda space, examples: space)
        autolora.tune(spec={**FEW, "space": space}, dir=tmp_path)
    assert autolora.resume(tmp_path, budget=2).spent["lora"] > 1
    assert list(autolora.finish(tmp_path)) == ["lora"]
