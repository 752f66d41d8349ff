"""What every dimension must do. A new one gets these tests by registering."""

from __future__ import annotations

import itertools
import json
import math
from statistics import NormalDist

import numpy as np
import optuna
import pytest

from autolora import variants
from autolora.integrations.optuna import LoraSampler
from autolora.priors.prior import Prior, uniform_sample
from autolora.report.summary import cells, columns, setting
from autolora.search.features import Features
from autolora.search.trials import Sampled
from autolora.space import Config, Range, Scope, Space, Traits, drawing_order, registry, searchable
from autolora.space.dimension import Encoding
from autolora.space.space import listing_order, specified
from autolora.spec import TrainingSpec
from autolora.study.study import Study

PRIOR = Prior.from_laws(64, 800)
VARIANT = variants.get("lora_ga")
NUMBERS = (4, 16, 0.0, 0.05, 0.25)
"""Of which every dimension accepts two, at least."""
NAMES = [dimension.name for dimension in registry()]
BY_NAME = {dimension.name: dimension for dimension in registry()}


KEYS = {"options": "lora_ga.gamma", "fields": "adam_beta2"}
"""Of dimensions that hold several hyperparameters by name: one of them."""


def accepted(name: str) -> list[float]:
    return [number for number in NUMBERS if name == "fields" or BY_NAME[name].accepts(number)]


def two_of(name: str) -> list[float]:
    return accepted(name)[:2]


def named(name: str, given: object) -> object:
    return {KEYS[name]: given} if name in KEYS else given


def choices(name: str) -> Space:
    """A finite space with two choices of the dimension."""
    given = named(name, two_of(name))
    pinned = {"learning_rate": 1e-3, "batch_size": 8, "rank": 4, "alpha": 8.0, "hidden_size": 64}
    return Space(**{**pinned, name: given})


def ranged(name: str, **scale: bool) -> Space:
    low, high = sorted([number for number in accepted(name) if number or not scale][:2])
    given = {"low": low, "high": high, **scale}
    pinned = {"learning_rate": 1e-3, "batch_size": 8, "rank": 4, "alpha": 8.0, "hidden_size": 64}
    return Space(**{**pinned, name: named(name, given)})


def scope(space: Space) -> Scope:
    return searchable.scope(space, VARIANT, Traits())


def linear(name: str) -> Space:
    return ranged(name, log=False)


def logarithmic(name: str) -> Space:
    return ranged(name, log=True)


SPACES = pytest.mark.parametrize("made", [choices, ranged, linear, logarithmic])


@pytest.mark.parametrize("name", NAMES)
class TestDimension:
    @SPACES
    def test_a_space_with_it_survives_as_plain_data_and_as_a_specification(self, name, made):
        space = made(name)
        plain = json.loads(json.dumps(space.model_dump()))
        assert Space(**plain) == Space(**specified(plain)) == space

    def test_a_space_that_says_nothing_of_it_does_not_mention_it_if_it_is_optional(self, name):
        assert (name in Space().model_dump()) is not BY_NAME[name].optional

    @SPACES
    def test_draws_are_in_the_domain_and_have_a_density(self, name, made):
        space, rng, dimension = made(name), np.random.default_rng(0), BY_NAME[name]
        for _ in range(50):
            for config in (uniform_sample(rng, *scope(space)), PRIOR.sample(rng, *scope(space))):
                assert math.isfinite(PRIOR.log_pdf(space, Traits(), config, VARIANT.name))
                if name not in KEYS:
                    domain = dimension.domain(scope(space), config)
                    value = config.value(name)
                    assert domain.contains(value) if isinstance(domain, Range) else value in domain

    @SPACES
    def test_neighbors_are_in_the_domain(self, name, made):
        space, rng, dimension = made(name), np.random.default_rng(1), BY_NAME[name]
        trial = uniform_sample(rng, *scope(space))
        for _ in range(50):
            near = trial.replaced(**{name: dimension.near(rng, scope(space), trial, trial, PRIOR.coordinates)})
            assert math.isfinite(PRIOR.log_pdf(space, Traits(), near, VARIANT.name))

    @SPACES
    def test_a_trial_without_a_value_has_neighbors(self, name, made):
        """As a user's baseline may have none."""
        dimension, rng = BY_NAME[name], np.random.default_rng(2)
        if name in ("learning_rate", "batch_size", "rank", "alpha"):
            pytest.skip("every configuration has a value")
        outside = Config(1e-3, 8, 4, 8.0)
        assert dimension.near(rng, scope(made(name)), outside, outside, PRIOR.coordinates) is not None

    def test_the_prior_s_draws_follow_its_density(self, name):
        space, rng = choices(name), np.random.default_rng(3)
        drawn = [PRIOR.sample(rng, *scope(space)) for _ in range(3000)]
        for config in space.enumerate(Traits(), VARIANT.name):
            expected = math.exp(PRIOR.log_pdf(space, Traits(), config, VARIANT.name))
            expected /= 1 if name != "options" else len(two_of(name))  # options have no density of their own
            assert drawn.count(config) / len(drawn) == pytest.approx(expected, abs=0.04)

    @SPACES
    def test_draws_follow_their_densities_over_one_measure(self, name, made):
        """The mean of p/q over draws from q is 1, either way: the prior against uniform draws."""
        if name == "options":
            pytest.skip("options have no density of their own")
        dimension, within, rng = BY_NAME[name], scope(made(name)), np.random.default_rng(6)
        start, ratios = uniform_sample(rng, *within), {"uniform": [], "prior": []}

        def ratio(value: float) -> float:
            config = start.replaced(**{name: value})
            return dimension.density(within, config, belief) / dimension.uniform_density(within, config)

        def belief(config: Config) -> NormalDist:
            return NormalDist(0.8, 0.5)

        for _ in range(1000):
            ratios["uniform"].append(ratio(dimension.uniform(rng, within, start)))
            ratios["prior"].append(1 / ratio(dimension.sample(rng, within, start, belief)))
        for drawn in ratios.values():
            assert np.mean(drawn) == pytest.approx(1, abs=4 * np.std(drawn) / len(drawn) ** 0.5 + 1e-9)

    def test_every_value_is_listed_once(self, name):
        listed = list(choices(name).enumerate(Traits(), VARIANT.name))
        assert len(listed) == len(set(listed)) == 2

    def test_corners_are_the_choices_or_the_ends(self, name):
        config = uniform_sample(np.random.default_rng(4), *scope(ranged(name)))
        for made in (choices, ranged):
            corners = BY_NAME[name].corners(scope(made(name)), config)
            values = [value[0][1] for value in corners] if name in KEYS else corners
            assert {min(values), max(values)} == set(two_of(name))

    @SPACES
    def test_the_surrogate_has_a_belief_for_every_number(self, name, made):
        space = made(name)
        configs = [uniform_sample(np.random.default_rng(seed), *scope(space)) for seed in range(4)]
        encoder = BY_NAME[name].encoder(Encoding(space, {VARIANT.name: Traits()}, PRIOR.coordinates, 0.3))
        for config in (*configs, Config(0.3, 5, 7, 11.0)):
            assert len(encoder.shifts(VARIANT.name, config)) == len(encoder.shift_sds)
            assert len(encoder.lines(VARIANT.name, config)) == len(encoder.line_sds)
            assert encoder.choices(config).shape == (encoder.choice_count,)
            assert len(encoder.settings(VARIANT.name, config)) == encoder.width
        features = Features(space, {VARIANT.name: Traits()}, PRIOR.coordinates, (1.0,), 0.3)
        assert np.isfinite(features.full(VARIANT.name, configs).settings).all()

    def test_it_costs_the_surrogate_nothing_where_it_is_not_searched(self, name):
        if not BY_NAME[name].optional:
            pytest.skip("always searched")
        encoder = BY_NAME[name].encoder(Encoding(Space(), {VARIANT.name: Traits()}, PRIOR.coordinates, 0.3))
        assert (encoder.shift_sds, encoder.line_sds, encoder.choice_count, encoder.width) == ((), (), 0, 0)

    @SPACES
    def test_a_study_gives_back_what_was_recorded(self, name, made, tmp_path):
        space = made(name)
        terms = {"variants": [VARIANT.name], "space": space.model_dump(), "rungs": [1.0], "examples": 8, "prior": None}
        study = Study.open(f"sqlite:///{tmp_path / 'study.db'}", "one", "minimize", terms)
        config = uniform_sample(np.random.default_rng(5), *scope(space))
        event = Sampled(0, VARIANT.name, config, 0, "search", 0, "test")
        study.write(event)
        assert study.events() == [event]
        study.close()

    def test_the_space_documents_it(self, name):
        documented = " ".join(Space.__doc__.split())
        assert f"{name}: {' '.join(BY_NAME[name].about.split())}" in documented

    def test_it_is_shown_where_a_configuration_has_it(self, name):
        config = next(iter(choices(name).enumerate(Traits(), VARIANT.name)))
        shown = columns([config])
        assert BY_NAME[name] in shown
        assert cells(config, shown)[shown.index(BY_NAME[name])] != "-"
        assert BY_NAME[name].brief in setting(config)

    def test_users_of_optuna_can_search_it_by_each_of_its_names(self, name):
        for alias in BY_NAME[name].aliases:
            sampler = LoraSampler(seed=0)
            study = optuna.create_study(sampler=sampler)
            values = two_of(name)

            def objective(trial: optuna.Trial, alias=alias, values=values) -> float:
                if name != "learning_rate":
                    trial.suggest_float("lr", 1e-5, 1e-2, log=True)
                return trial.suggest_categorical(alias, values)

            study.optimize(objective, n_trials=3)
            assert alias in sampler.infer_relative_search_space(study, study.trials[-1])

    def test_what_it_sets_is_a_setting_of_training(self, name):
        dimension = BY_NAME[name]
        if dimension.sets is None:
            pytest.skip("the trainer takes it from the configuration")
        for value in two_of(name):
            config = Config(1e-3, 8, 4, 8.0).replaced(**{name: value})
            assert getattr(TrainingSpec().of_trial(config), dimension.sets) == value
        space = choices(name)
        baseline = TrainingSpec(**{dimension.sets: two_of(name)[1]}).baseline(Config(1e-3, 8, 4, 8.0), space)
        assert baseline.value(name) == two_of(name)[1]
        assert TrainingSpec().of_trial(Config(1e-3, 8, 4, 8.0)) == TrainingSpec()


def test_values_are_drawn_after_what_they_depend_on():
    space = Space(**{name: named(name, two_of(name)) for name in NAMES if BY_NAME[name].optional})
    for order in (drawing_order(space), listing_order(space)):
        places = {dimension.name: place for place, dimension in enumerate(order)}
        for dimension in order:
            assert all(places[before] < places[dimension.name] for before in dimension.after)


def test_columns_and_names_are_different():
    labels = [dimension.label for dimension in registry()]
    assert len(set(labels)) == len(labels)
    aliases = list(itertools.chain.from_iterable(dimension.aliases for dimension in registry()))
    assert len(set(aliases)) == len(aliases)
