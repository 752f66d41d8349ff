"""Dropout as a searched dimension, from the specification to the exported recipe."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from torch import nn

import autolora
from autolora import recipes, variants
from autolora.priors.prior import Prior
from autolora.space import Config, Range, Space, Traits, registry, searchable
from autolora.spec import SpecError
from autolora.variants import VariantError
from tests.support.specs import SMALL_SPEC, small_spec

DROPOUTS = [0, 0.25]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dropout")
    spec = {**SMALL_SPEC, "prior": "laws", "budget": 3, "confirm": 0}
    return autolora.tune(spec={**spec, "space": {**SMALL_SPEC["space"], "dropout": DROPOUTS}}, dir=folder)


def test_trials_are_trained_with_their_own_dropout(make_bench):
    bench = make_bench(**{"space.dropout": DROPOUTS})
    for dropout in DROPOUTS:
        config = Config(1e-3, 4, 2, 4.0).replaced(dropout=float(dropout))
        with bench.attached("lora", config, 0) as adapted:
            shares = {module.p for module in adapted.modules() if isinstance(module, nn.Dropout)}
            assert (0.25 in shares) is (dropout == 0.25)


def test_the_study_searches_it_and_starts_at_what_is_set():
    search = autolora.Search(["lora"], space=Space(dropout=DROPOUTS), budget=6, confirm=0)
    tried = set()
    while (job := search.ask()) is not None:
        tried.add(job.config.dropout)
        search.tell(job, 1.0 + job.config.dropout)
    assert tried == {0.0, 0.25}
    assert search.table.trials[0].config.dropout == 0.0


def test_time_and_memory_are_measured_with_the_most_dropout():
    """Some variants have a faster forward pass without."""
    assert searchable.largest(Space(dropout=DROPOUTS), variants.get("dora")).dropout == 0.25


def test_wall_times_with_and_without_dropout_are_not_averaged():
    dimension = next(dimension for dimension in registry() if dimension.name == "dropout")
    keys = [dimension.cost_key(Config(1e-3, 4, 2, 4.0).replaced(dropout=dropout)) for dropout in (0.0, 0.1, 0.25)]
    assert keys[0] != keys[1] == keys[2]


def test_a_baseline_has_the_dropout_of_the_training_settings():
    from autolora.driver.opening import baseline_of

    settings = {"space.dropout": DROPOUTS, "training.dropout": 0.1}
    spec = small_spec(baseline={"learning_rate": 1e-3, "rank": 2, "alpha": 4}, **settings)
    assert baseline_of(spec, spec.space)["lora"].dropout == 0.1


def test_no_dropout_is_preferred():
    rng, space = np.random.default_rng(0), Space(dropout=[0, 0.05, 0.1])
    drawn = [Prior.from_laws(64).sample(rng, space, Traits()).dropout for _ in range(600)]
    assert drawn.count(0.0) > 1.5 * drawn.count(0.05) > 1.5 * drawn.count(0.1) > 0


def test_a_recipe_has_the_tuned_dropout(tuned, tmp_path):
    recipes.write(tuned.folder, "lora", "axolotl", tmp_path)
    written = yaml.safe_load((tmp_path / "axolotl.yaml").read_text())
    assert written["lora_dropout"] == tuned["lora"].config.dropout


def test_a_variant_that_must_have_none_says_so_before_training(tmp_path):
    settings = {"variants": ["lora_ga"], "space.dropout": DROPOUTS}
    with pytest.raises(VariantError, match="without dropout"):
        autolora.tune(spec={**SMALL_SPEC}, dir=tmp_path, **settings)


@pytest.mark.parametrize(
    "wrong", [1, [0, 1.0], -0.1, "much", {"low": 0.5, "high": 0.1}, {"low": 0}, [], Range(low=0.5, high=3)]
)
def test_what_is_no_dropout_is_named(wrong):
    with pytest.raises(SpecError, match=r"space\.dropout"):
        small_spec(**{"space.dropout": wrong})
