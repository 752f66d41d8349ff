"""What a space says is searched, in all the ways it can be written."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from pydantic import ValidationError

import autolora
from autolora import laws, variants
from autolora.space import AUTO_LEARNING_RATE, Config, Coordinates, Range, Space, Traits
from autolora.space.space import specified

LORA, PISSA, RSLORA = (variants.get(name).traits for name in ("lora", "pissa", "rslora"))

RANKS = (1, 4, 8, 16, 32, 64, 128, 256)
COORDINATES = Coordinates(centre=-3.0, hidden_size=4096)


def alphas(alpha, rank=8, traits=LORA, hidden_size=None):
    return Space(alpha=alpha, rank=rank, hidden_size=hidden_size).alphas(traits, rank)


def test_auto_is_a_wide_range():
    assert Space().learning_rates == Range(low=AUTO_LEARNING_RATE[0], high=AUTO_LEARNING_RATE[1])


@pytest.mark.parametrize("pair", [(1e-4, 1e-2), ("1e-4", "1e-2"), {"low": 1e-4, "high": "1e-2"}])
def test_a_tuple_of_two_and_low_and_high_are_a_range(pair):
    assert Space(learning_rate=pair).learning_rates == Range(low=1e-4, high=1e-2)


@pytest.mark.parametrize("two", [[1e-2, 1e-4], ["1e-4", "1e-2"], {"choices": [1e-4, 1e-2]}])
def test_a_list_of_two_learning_rates_is_choices(two):
    assert Space(learning_rate=two).learning_rates == [1e-4, 1e-2]


@pytest.mark.parametrize("written", [{"learning_rate": [1e-4, 1e-2]}, {"learning_rate": ["1e-4", "1e-2"]}])
def test_in_a_specification_two_learning_rates_are_a_range(written):
    assert Space(**specified(written)) == Space(learning_rate=(1e-4, 1e-2))


def test_in_a_specification_two_of_anything_else_are_choices():
    written = {"batch_size": [16, 64], "rank": [4, 8], "alpha": [8, 64]}
    assert Space(**specified(written)) == Space(**written)


def test_two_choices_of_the_learning_rate_survive_as_a_specification():
    space = Space(learning_rate=[1e-4, 1e-2])
    assert Space(**specified(space.model_dump())) == space


@pytest.mark.parametrize("name", ["rank", "batch_size"])
@pytest.mark.parametrize(
    ("written", "choices"),
    [
        ((4, 64), [4, 8, 16, 32, 64]),
        ({"low": 6, "high": 20}, [6, 8, 16, 20]),
        ({"low": 2, "high": 5, "log": False}, [2, 3, 4, 5]),
        ({"choices": [32, 8]}, [8, 32]),
    ],
)
def test_a_range_of_whole_numbers_stands_for_choices(name, written, choices):
    assert getattr(Space(**{name: written}), name) == choices


def test_a_range_may_be_linear():
    space = Space(alpha={"low": 8, "high": 64, "log": False})
    assert space.alpha == Range(low=8, high=64, log=False)
    assert space.alpha.at(0.5) == 36
    assert space.alpha.place(36) == 0.5
    assert Space(**space.model_dump()) == space


@pytest.mark.parametrize("name", ["learning_rate", "alpha"])
def test_a_range_of_what_a_logarithm_is_taken_of_stays_above_0(name):
    with pytest.raises(ValidationError, match="low must be above 0"):
        Space(**{name: {"low": 0, "high": 1, "log": False}})


@pytest.mark.parametrize("log", ["false", "no", False])
def test_a_scale_may_be_written_as_yaml_does(log):
    given = {"low": 2, "high": 5, "log": log}
    assert Space(rank=given).rank == [2, 3, 4, 5]
    assert not Space(weight_decay=given).weight_decay.log


def test_the_record_of_a_range_on_a_log_scale_is_as_in_earlier_versions():
    assert Space(alpha=(8, 64)).model_dump()["alpha"] == {"low": 8, "high": 64}


@pytest.mark.parametrize("number", [1e-3, "1e-3", [1e-3]])
def test_one_learning_rate_is_pinned(number):
    assert Space(learning_rate=number).learning_rates == [1e-3]


def test_three_learning_rates_are_choices():
    assert Space(learning_rate=[1e-2, "1e-4", 1e-3, 1e-3]).learning_rates == [1e-4, 1e-3, 1e-2]


def test_ranks_and_batches_are_sorted_and_different():
    space = Space(rank=[32, 8, 8], batch_size=[64, 16])
    assert (space.rank, space.batch_size) == ([8, 32], [16, 64])


def test_one_rank_or_batch_may_stand_alone():
    space = Space(rank=8, batch_size=16)
    assert (space.rank, space.batch_size) == ([8], [16])


def test_alpha_by_law_with_a_width_is_analytic():
    assert alphas("law", hidden_size=4096) == [pytest.approx(math.sqrt(3 * 4096 * 8))]


def test_alpha_by_law_without_a_width_is_empirical():
    assert alphas("law") == [pytest.approx(256 * math.sqrt(8))]


def test_alpha_by_rank_is_scale_one():
    assert alphas("rank", rank=16) == [16.0]


@pytest.mark.parametrize("number", [24, 24.0, "24"])
def test_alpha_as_a_number_is_pinned(number):
    assert alphas(number) == [24.0]


def test_a_list_of_alphas_is_choices_even_of_two():
    assert alphas([32, 8]) == [8.0, 32.0]


@pytest.mark.parametrize("pair", [(8, 64), {"low": 8, "high": 64}])
def test_a_pair_of_alphas_is_a_range(pair):
    assert alphas(pair) == Range(low=8, high=64)


@pytest.mark.parametrize("alpha", ["law", "rank", [4, 16], (4, 16)])
def test_alpha_is_pinned_at_the_rank_where_it_is_redundant(alpha):
    for rank in (4, 8):
        assert alphas(alpha, rank=rank, traits=PISSA, hidden_size=4096) == [float(rank)]


def test_a_number_is_taken_at_its_word_even_where_alpha_is_redundant():
    assert alphas(24, traits=PISSA) == [24.0]


def test_alpha_by_law_of_a_rank_stabilized_variant_has_the_law_s_scale():
    ours, plain = alphas("law", traits=RSLORA)[0], alphas("law")[0]
    assert RSLORA.scale(ours, 8) == pytest.approx(LORA.scale(plain, 8))


def test_a_range_has_no_end_of_configurations():
    assert Space().enumerate(LORA) is None
    assert Space(learning_rate=1e-3, alpha=(4, 16)).enumerate(LORA) is None


def test_a_range_of_alpha_is_finite_where_alpha_is_redundant():
    assert len(list(Space(learning_rate=1e-3, alpha=(4, 16)).enumerate(PISSA))) == 4


def test_a_finite_space_lists_every_combination_once():
    space = Space(learning_rate=[1e-4, 1e-3, 1e-2], batch_size=[8, 16], rank=[4, 8], alpha=[8, 16])
    configs = list(space.enumerate(LORA))
    assert len(configs) == len(set(configs)) == 3 * 2 * 2 * 2


def test_options_are_choices_sorted_and_different():
    assert Space(options={"lora_ga.gamma": (64, 4, 16.0, 4)}).options == {"lora_ga.gamma": [4, 16, 64]}


def test_an_option_may_be_zero():
    assert Space(options={"adalora.orthogonality": [0, 0.1]}).options == {"adalora.orthogonality": [0, 0.1]}


@pytest.mark.parametrize("written", [(4, 64), {"low": 4, "high": 64}, {"low": 4, "high": 64, "log": True}])
def test_an_option_may_be_a_range(written):
    space = Space(options={"lora_ga": {"gamma": written}})
    assert space.options == {"lora_ga.gamma": Range(low=4, high=64)}
    assert Space(**space.model_dump()) == space
    assert Space(learning_rate=1e-3, alpha=8, options=space.options).enumerate(LORA, "lora_ga") is None


@pytest.mark.parametrize("number", [8, 8.0, "8", [8]])
def test_one_number_pins_an_option(number):
    assert Space(options={"lora_ga.gamma": number}).options == {"lora_ga.gamma": [8]}


def test_options_may_be_grouped_by_variant():
    grouped = Space(options={"lora_plus": {"ratio": 4}, "lora_ga": {"gamma": [4, 16]}})
    assert grouped == Space(options={"lora_ga.gamma": [4, 16], "lora_plus.ratio": [4]})


def test_whole_choices_are_integers_and_others_are_not():
    choices = Space(options={"lora_ga.gamma": [2.0, 0.5]}).options["lora_ga.gamma"]
    assert [(choice, type(choice)) for choice in choices] == [(0.5, float), (2, int)]


def test_the_options_of_one_variant_are_named_without_it():
    space = Space(options={"lora_ga.gamma": [4, 16], "lora.gamma": [2]})
    assert space.options_of("lora_ga") == {"gamma": [4, 16]}
    assert space.options_of("pissa") == {}


def test_a_finite_space_lists_every_choice_of_the_variant_s_options():
    space = Space(learning_rate=1e-3, batch_size=8, rank=[4, 8], alpha=8, options={"x.a": [1, 2, 3], "x.b": [5, 6]})
    configs = list(space.enumerate(LORA, "x"))
    assert len(configs) == len(set(configs)) == 2 * 3 * 2
    assert {config.options for config in configs} == {(("a", a), ("b", b)) for a in (1, 2, 3) for b in (5, 6)}
    assert len(list(space.enumerate(LORA, "lora"))) == 2


def test_a_range_holds_its_ends():
    interval = Range(low=1e-6, high=1e-1)
    assert all(interval.contains(value) for value in (1e-6, 10**-6.0, 1e-3, 1e-1))
    assert not interval.contains(9e-7)
    assert not interval.contains(0.11)


def test_clipping_moves_to_the_nearer_end():
    assert [Range(low=1, high=4).clip(value) for value in (0.5, 2, 9)] == [1, 2, 4]


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": (1e-2, 1e-4)},
        {"learning_rate": (1e-3, 1e-3)},
        {"learning_rate": (0, 1e-3)},
        {"learning_rate": (1e-3, math.inf)},
        {"learning_rate": -1e-3},
        {"learning_rate": math.nan},
        {"learning_rate": []},
        {"learning_rate": "high"},
        {"learning_rate": [1e-4, 1e-3, -1]},
        {"rank": []},
        {"rank": 0},
        {"rank": [8, 2.5]},
        {"rank": True},
        {"batch_size": [16, -1]},
        {"batch_size": "large"},
        {"alpha": 0},
        {"alpha": (64, 8)},
        {"alpha": "sqrt"},
        {"alpha": []},
        {"hidden_size": 0},
        {"ranks": [8]},
        {"options": [4]},
        {"options": None},
        {"options": {"gamma": [4]}},
        {"options": {"lora_ga.gamma.low": 4}},
        {"options": {"lora_ga.gamma": []}},
        {"options": {"lora_ga.gamma": [4, -1]}},
        {"options": {"lora_ga.gamma": {"low": 4}}},
        {"options": {"lora_ga.gamma": {"low": 16, "high": 4}}},
        {"learning_rate": {"low": 0, "high": 1e-3}},
        {"rank": (64, 4)},
        {"rank": {"low": 4, "high": 64.5}},
        {"rank": {"low": 1, "high": 1e6, "log": False}},
        {"batch_size": {"low": 8, "up": 16}},
        {"options": {"lora_ga.gamma": math.inf}},
        {"options": {"lora_ga.gamma": math.nan}},
        {"options": {"lora_ga.gamma": True}},
        {"options": {"lora_ga.gamma": "large"}},
        {"options": {"lora_ga.gamma": 4, "lora_ga": {"gamma": 16}}},
    ],
)
def test_impossible_spaces_are_refused(wrong):
    with pytest.raises(ValidationError):
        Space(**wrong)


@pytest.mark.parametrize(("rank", "alpha"), zip(RANKS, (111, 222, 314, 443, 627, 887, 1254, 1774), strict=True))
def test_the_analytic_law_of_alpha_at_width_4096(rank, alpha):
    assert round(LORA.law_alpha(rank, 4096)) == alpha


@pytest.mark.parametrize(("rank", "alpha"), zip(RANKS, (256, 512, 724, 1024, 1448, 2048, 2896, 4096), strict=True))
def test_the_empirical_law_of_alpha_without_a_width(rank, alpha):
    assert round(LORA.law_alpha(rank, None)) == alpha


@pytest.mark.parametrize("width", [None, 4096])
def test_a_start_that_is_not_kaiming_has_scale_one_by_law(width):
    assert [PISSA.scale(PISSA.law_alpha(rank, width), rank) for rank in RANKS] == [1.0] * len(RANKS)


@pytest.mark.parametrize("name", variants.names())
def test_the_learning_rate_inverts_z(name):
    traits = variants.get(name).traits
    for batch, rank, alpha, eta in itertools.product((1, 16, 256), (1, 8, 256), (1.0, 8.0, 1774.0), (1e-6, 3e-4, 1e-1)):
        z = COORDINATES.z(traits, Config(eta, batch, rank, alpha))
        assert COORDINATES.learning_rate(traits, z, batch, rank, alpha) == pytest.approx(eta)


def test_w_counts_octaves_from_the_law():
    law = LORA.law_alpha(8, 4096)
    assert [COORDINATES.w(LORA, Config(1e-3, 16, 8, law * 2**w)) for w in (-3, 0, 1)] == pytest.approx([-3, 0, 1])


def test_four_times_the_batch_doubles_the_rate_at_one_z():
    one, four = (COORDINATES.learning_rate(LORA, 0.0, batch, 8, 8.0) for batch in (16, 64))
    assert four == pytest.approx(2 * one)


def test_four_times_the_rank_at_one_scale_is_the_law_s_fall_of_the_rate():
    one, four = (COORDINATES.learning_rate(LORA, 0.0, 16, rank, float(rank)) for rank in (8, 32))
    assert four == pytest.approx(one * 4**laws.RANK_EXPONENT)


LAW = 16**-laws.SCALE_EXPONENT


@pytest.mark.parametrize(
    ("traits", "factor"), [(LORA, LAW), (PISSA, 1 / 4), (RSLORA, LAW), (Traits(exponent=1.0), 1 / 16)]
)
def test_sixteen_times_the_scale(traits, factor):
    """PiSSA's factors carry the square root of s: s = 16 at eta / 4 is the run of s = 1 at eta."""
    one, sixteen = (COORDINATES.learning_rate(traits, 0.0, 16, 8, alpha) for alpha in (8.0, 128.0))
    assert sixteen == pytest.approx(factor * one)


def test_a_space_survives_as_plain_data():
    options = {"lora_ga.gamma": [4, 16]}
    space = Space(learning_rate=(1e-4, 1e-2), batch_size=[8], rank=[4], alpha=[4, 8], hidden_size=64, options=options)
    assert Space(**space.model_dump()) == space


def test_a_configuration_as_plain_data():
    config = Config(learning_rate=1e-3, batch_size=16, rank=8, alpha=16.0)
    assert Config(**config.as_dict()) == config


def test_a_configuration_with_options_as_plain_data():
    config = Config(1e-3, 16, 8, 16.0, {"k": 2, "gamma": 0.5})
    assert config.as_dict()["options"] == {"gamma": 0.5, "k": 2}
    assert Config(**json.loads(json.dumps(config.as_dict()))) == config


def test_a_configuration_without_options_does_not_mention_them():
    assert "options" not in Config(1e-3, 16, 8, 16.0).as_dict()


def test_configurations_are_equal_however_their_options_were_written():
    one, other = (
        Config(1e-3, 16, 8, 16.0, {"k": 2, "gamma": 16.0}),
        Config(1e-3, 16, 8, 16.0, (("gamma", 16), ("k", 2))),
    )
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == repr(other)


def test_the_public_space_is_this_one():
    assert autolora.Space is Space


@pytest.mark.parametrize("alpha", ["law", "rank", 64.0, [8.0, 64.0], (1.0, 100.0)])
def test_a_variant_of_one_scale_has_one_alpha_whatever_the_space_says(alpha):
    traits = Traits(unit_scale=True)
    assert Space(alpha=alpha).alphas(traits, 16) == [16.0]
    assert traits.law_alpha(16, 4096) == 16.0
