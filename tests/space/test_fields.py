"""Any field of the trainer as a searched one: how it is written, when it counts, what the search sees of it."""

from __future__ import annotations

import itertools
import json
import math
import pickle
import re

import numpy as np
import pytest

from autolora import Search, variants
from autolora.priors.prior import Prior, uniform_sample
from autolora.search.features import Features
from autolora.search.trials import Sampled
from autolora.space import FIELDS, Config, Named, Range, Space, Traits, searchable
from autolora.space.dimension import UNSET, Category, Encoding
from autolora.study.study import Study
from tests.support.simulation import loss

PRIOR = Prior.from_laws(64, 800)
LORA = variants.get("lora")
PINNED = {"learning_rate": 1e-3, "batch_size": 8, "rank": 4, "alpha": 8.0, "hidden_size": 64}
MIXED = {
    "optimizer": ["adamw", "nadam"],
    "adam_beta2": {"choices": [0.95, 0.999], "when": {"optimizer": "adamw"}},
    "packed": [True, False],
    "target_modules": ["all-linear", ["q_proj", "v_proj"]],
    "steepness": {"low": 1e-4, "high": 1.0, "log": True},
}


def space(**fields):
    return Space(**PINNED, fields=fields)


def scope(searched):
    return searchable.scope(searched, LORA, Traits())


def drawn(searched, count=40, seed=0):
    rng = np.random.default_rng(seed)
    return [uniform_sample(rng, *scope(searched)) for _ in range(count)]


def domain(given):
    return space(x=given).fields["x"].domain


class TestWritten:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ([0.9, 0.95], (0.9, 0.95)),
            ([3, 1.0, 2], (1, 2, 3)),
            (["1e-8", 1e-6], (1e-8, 1e-6)),
            (0.5, (0.5,)),
            ("nadam", ("nadam",)),
            (True, (True,)),
            ([8, "auto"], (8, "auto")),
            ([["q_proj", "v_proj"], "all-linear", []], (("q_proj", "v_proj"), "all-linear", ())),
            ({"choices": [4, 16]}, (4, 16)),
            ({"low": 1, "high": 8, "whole": True}, (1, 2, 3, 4, 5, 6, 7, 8)),
            ({"low": 1, "high": 8, "whole": True, "log": True}, (1, 2, 4, 8)),
            ((0.0, 0.5), Range(low=0.0, high=0.5, log=False)),
            ({"low": 1e-3, "high": 0.5, "log": True}, Range(low=1e-3, high=0.5, log=True)),
        ],
    )
    def test_values_choices_and_ranges(self, given, expected):
        assert domain(given) == expected

    def test_a_space_survives_as_plain_data(self):
        searched = space(**MIXED)
        assert Space(**json.loads(json.dumps(searched.model_dump()))) == searched

    def test_how_it_is_written_does_not_matter_to_the_order_of_draws(self):
        assert drawn(space(**dict(reversed(MIXED.items())))) == drawn(space(**MIXED))

    def test_none_and_nothing_are_not_searched(self):
        assert Space(fields=None) == Space(fields={}) == Space()
        assert "fields" not in Space(fields={}).model_dump()

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"x": None}, "null is not allowed; leave x out"),
            ({"x": [1, None]}, "None cannot be a choice"),
            ({"x": [1, True]}, "among its choices twice"),
            ({"x": []}, "no choice is given"),
            ({"x": {"low": 1.0}}, "is not allowed; write a value"),
            ({"x": {"low": 2.0, "high": 1.0}}, "low must be below high"),
            ({"x": {"low": 0.0, "high": 1.0, "log": True}}, "low must be above 0"),
            ({"x": {"low": 0.5, "high": 3, "whole": True}}, "from one whole number"),
            ({"x": {"lowest": 1.0, "high": 2.0}}, "did you mean 'low'?"),
            ({"x": {"choices": [1, 2], "prefer": 3}}, "prefer 3 is not among its values, 1, 2"),
            ({"x": {"choices": [1], "when": {"y": 1}}, "yy": [1]}, "did you mean 'yy'?"),
            ({"x": {"choices": [1], "when": {"y": 3}}, "y": [1, 2]}, "y = 3, which it never has: 1, 2"),
            ({"x": {"choices": [1], "when": {"x": 1}}}, "x -> x: when leads in a circle"),
            (
                {"x": {"choices": [1], "when": {"y": 1}}, "y": {"choices": [1], "when": {"x": 1}}},
                "x -> y -> x: when leads in a circle",
            ),
            ({"x": {"choices": [1], "when": "y"}}, "write the other field and its value"),
            ({"lora_dropout": [0]}, "lora_dropout has a key of its own; write space.dropout"),
            ({"learning_rate": [0.1]}, "write space.learning_rate"),
            ({"trl.beta": [1]}, "is not a name of a field"),
            ({"x": ['["q_proj"]']}, "write the names as a list"),
            ([1], "give values by name"),
        ],
    )
    def test_errors_name_the_field_and_what_to_do(self, fields, said):
        with pytest.raises(ValueError, match=re.escape(said)):
            Space(fields=fields)


class TestConfig:
    def test_every_field_is_an_attribute_and_a_mapping_in_plain_data(self):
        config = Config.of(**PINNED_CONFIG, fields={"target_modules": ["q_proj"], "adam_beta2": 1.0})
        assert (config.adam_beta2, config.target_modules) == (1, ("q_proj",))
        assert config.as_dict()["fields"] == {"adam_beta2": 1, "target_modules": ["q_proj"]}
        assert Config.of(**json.loads(json.dumps(config.as_dict()))) == config
        assert config.value("optimizer") is None

    def test_it_is_equal_hashed_copied_and_ordered_whatever_the_values_are(self):
        configs = drawn(space(**MIXED), 60)
        assert [pickle.loads(pickle.dumps(config)) for config in configs] == configs  # our own
        assert len({hash(config) for config in configs}) == len(set(configs))
        ordered = sorted(set(configs))
        assert all(a < b and b > a and a <= b and b >= a for a, b in itertools.pairwise(ordered))

    def test_texts_and_numbers_of_one_field_are_ordered(self):
        values = [Named.of({"x": value}) for value in (True, 2, "auto", ("q_proj",), 0.5)]
        assert [dict(each)["x"] for each in sorted(values)] == [True, 0.5, 2, "auto", ("q_proj",)]

    def test_a_plain_configuration_is_as_it_was(self):
        assert repr(Config(1e-3, 8, 4, 8.0)) == (
            "Config(learning_rate=0.001, batch_size=8, rank=4, alpha=8.0, options=())"
        )


PINNED_CONFIG = {"learning_rate": 1e-3, "batch_size": 8, "rank": 4, "alpha": 8.0}


class TestConditions:
    def test_a_field_is_missing_where_it_does_not_count(self):
        for config in drawn(space(**MIXED)):
            assert ("adam_beta2" in dict(config.fields)) is (config.optimizer == "adamw")

    def test_conditions_of_conditions(self):
        searched = space(
            a=["on", "off"],
            b={"choices": [1, 2], "when": {"a": "on"}},
            c={"low": 0.0, "high": 1.0, "when": {"b": [2]}},
        )
        shapes = {tuple(dict(config.fields)) for config in drawn(searched, 60)}
        assert shapes == {("a",), ("a", "b"), ("a", "b", "c")}

    def test_every_combination_is_listed_once(self):
        searched = space(optimizer=MIXED["optimizer"], adam_beta2=MIXED["adam_beta2"], packed=[True, False])
        listed = list(searched.enumerate(Traits(), "lora"))
        assert len(listed) == len(set(listed)) == 2 * (2 + 1)
        total = sum(math.exp(PRIOR.log_pdf(searched, Traits(), config, "lora")) for config in listed)
        assert total == pytest.approx(1)

    def test_too_many_combinations_are_not_listed_and_every_value_is_a_corner(self):
        many = {f"x{number}": [1, 2, 3, 4] for number in range(8)}
        searched = space(**many, y={"choices": ["a", "b"], "when": {"x3": 4}})
        assert searched.enumerate(Traits(), "lora") is None
        corners = [dict(corner) for corner in FIELDS.corners(scope(searched), UNSET)]
        assert len(corners) < 64
        for name, values in {**many, "y": ["a", "b"]}.items():
            assert {corner.get(name) for corner in corners} >= set(values)

    def test_neighbors_keep_to_the_conditions(self):
        searched, rng = space(**MIXED), np.random.default_rng(4)
        for trial in drawn(searched):
            near = FIELDS.near(rng, scope(searched), trial, trial, PRIOR.coordinates)
            assert ("adam_beta2" in dict(near)) is (dict(near)["optimizer"] == "adamw")


class TestPrior:
    def test_the_preferred_value_is_the_mode_and_the_likeliest(self):
        searched = space(x={"choices": ["a", "b", "c"], "prefer": "b"}, y={"choices": [1, 2, 3], "prefer": 3})
        mode = PRIOR.mode(*scope(searched))
        assert (mode.x, mode.y) == ("b", 3)
        density = {value: searched.fields["x"].density(value) for value in "abc"}
        assert density["b"] == pytest.approx(4 * density["a"]) == pytest.approx(4 * density["c"])
        assert searched.fields["y"].density(3) == pytest.approx(4 * searched.fields["y"].density(1))

    def test_what_the_trainer_does_is_preferred_unless_the_user_says_otherwise(self):
        searched = space(x=["a", "b"], y=[0.9, 0.99], z={"choices": [1, 2], "prefer": 1}, u=["a", "b"])
        informed = FIELDS.informed(searched, {"x": "b", "y": 0.999, "z": 2, "u": "other"})
        assert {name: field.preferred for name, field in informed.items()} == {"x": "b", "y": 0.99, "z": 1, "u": None}

    def test_without_either_all_choices_are_alike(self):
        assert {space(x=["a", "b"]).fields["x"].density(value) for value in "ab"} == {0.5}


class TestSurrogate:
    def encoder(self, searched):
        return FIELDS.encoder(Encoding(searched, {"lora": Traits()}, PRIOR.coordinates, 0.3))

    def test_choices_that_are_no_numbers_may_move_the_best_rate(self):
        encoder = self.encoder(space(optimizer={"choices": ["adamw", "nadam", "radam"], "prefer": "adamw"}))
        assert len(encoder.shift_sds) == 2
        shifts = [
            encoder.shifts("lora", Config.of(**PINNED_CONFIG, fields={"optimizer": name}))
            for name in ("adamw", "radam")
        ]
        assert shifts == [[0, 0], [0, 1]]

    def test_what_does_not_count_or_is_none_of_the_choices_moves_nothing(self):
        encoder = self.encoder(space(**MIXED))
        for given in ({}, {"fields": {"optimizer": "other"}}):
            config = Config.of(**PINNED_CONFIG, **given)
            assert not any([*encoder.shifts("lora", config), *encoder.lines("lora", config)])

    def test_two_choices_are_as_far_apart_as_the_ends_of_a_range(self):
        words, numbers = self.encoder(space(x=["a", "b", "c"])), self.encoder(space(x=[1, 2, 3]))

        def distance(encoder, *values):
            at = [np.array(encoder.settings("lora", Config.of(**PINNED_CONFIG, fields={"x": x}))) for x in values]
            return float(np.linalg.norm(at[0] - at[1]))

        assert (
            distance(words, "a", "b")
            == pytest.approx(distance(words, "a", "c"))
            == pytest.approx(distance(numbers, 1, 3))
        )

    def test_every_number_has_a_belief(self):
        searched = space(**MIXED)
        features = Features(searched, {"lora": Traits()}, PRIOR.coordinates, (0.5, 1.0), 0.3)
        points = features.full("lora", drawn(searched))
        assert points.shifts.shape[1] == len(features.shift_beliefs)
        assert points.levels.shape[1] == len(features.level_beliefs)
        assert np.isfinite(points.settings).all()


class TestStudy:
    def test_it_gives_back_what_was_recorded(self, tmp_path):
        searched = space(**MIXED)
        terms = {"variants": ["lora"], "space": searched.model_dump(), "rungs": [1.0], "examples": 8, "prior": None}
        study = Study.open(f"sqlite:///{tmp_path / 'study.db'}", "one", "minimize", terms)
        events = [
            Sampled(number, "lora", config, 0, "search", 0, "test") for number, config in enumerate(drawn(searched))
        ]
        for event in events:
            study.write(event)
        assert study.events() == events
        study.close()

    def test_numbers_are_numbers_there_and_other_choices_are_categories(self):
        searched = space(**MIXED)
        config = Config.of(**PINNED_CONFIG, fields={"steepness": 0.5, "target_modules": ["q_proj", "v_proj"]})
        parameters = FIELDS.parameters(searched, "lora", config)
        assert (parameters["fields.steepness"].low, parameters["fields.steepness"].log) == (1e-4, True)
        assert parameters["fields.target_modules"] == Category(
            '["q_proj", "v_proj"]', ("all-linear", '["q_proj", "v_proj"]')
        )

    def test_what_the_trainer_does_outside_the_choices_is_a_category_too(self):
        searched = space(optimizer=["nadam", "radam"])
        searched = searched.model_copy(update={"fields": FIELDS.informed(searched, {"optimizer": "adamw"})})
        config = Config.of(**PINNED_CONFIG, fields={"optimizer": "adamw"})
        assert FIELDS.parameters(searched, "lora", config)["fields.optimizer"].choices == ("nadam", "radam", "adamw")

    def test_a_continued_search_goes_on_as_if_it_had_never_stopped(self, tmp_path):
        def jobs(stops, storage):
            found = []
            for stop in stops:
                search = Search(variants=["lora"], space=space(**MIXED), budget=5.0, confirm=0, seed=1, storage=storage)
                while len(found) < stop and (job := search.ask()) is not None:
                    search.tell(job, loss(job) + 0.2 * (job.config.optimizer == "nadam"))
                    found.append(job)
                search.close()
            return found

        whole = jobs([999], f"sqlite:///{tmp_path / 'whole.db'}")
        assert jobs([4, 9, 999], f"sqlite:///{tmp_path / 'again.db'}") == whole
        assert {job.config.optimizer for job in whole} == {"adamw", "nadam"}


class TestBaseline:
    def test_it_gets_what_counts_and_is_left_open(self):
        searched = space(**{**MIXED, "adam_beta2": {**MIXED["adam_beta2"], "prefer": 0.999}})
        found = searchable.completed(searched, LORA, Config.of(**PINNED_CONFIG, fields={"packed": False}))
        assert dict(found.fields)["packed"] is False
        assert dict(found.fields)["adam_beta2"] == 0.999

    @pytest.mark.parametrize(
        ("given", "said"),
        [({"unknown": 1}, "which space.fields does not name"), ({"optimizer": "sgd"}, "not among its values")],
    )
    def test_what_the_space_does_not_have_is_refused(self, given, said):
        with pytest.raises(ValueError, match=f"baseline of lora .*{said}"):
            searchable.completed(space(**MIXED), LORA, Config.of(**PINNED_CONFIG, fields=given))
