"""Advice from numbers: it is the prior's own belief, completed and explained."""

from __future__ import annotations

import json

import pytest

from autolora import laws, variants
from autolora.priors import Prior
from autolora.priors.advice import SHARE, Advice, AdviceError, Question, advise
from autolora.space import Config

NAMES = pytest.mark.parametrize("name", variants.names())
ASKED = {"hidden_size": 4096, "rank": 16, "alpha": 32, "batch_size": 64, "examples": 20_000}


def advice(name: str = "lora", **values: float | None) -> Advice:
    return advise(Question.of(variants.get(name), **{**ASKED, **values}))


def test_the_interval_is_the_priors_own():
    found = advice()
    prior, traits = Prior.from_laws(4096, 20_000), variants.get("lora").traits
    config = Config(1.0, batch_size=64, rank=16, alpha=32.0)
    assert (found.low, found.high) == prior.interval(traits, config, SHARE)
    assert found.learning_rate == pytest.approx(10 ** prior.belief(traits, config).mean)


@NAMES
@pytest.mark.parametrize("hidden_size", [None, 64, 4096])
def test_every_variant_gives_an_answer_with_nothing_else_known(name, hidden_size):
    found = advise(Question.of(variants.get(name), hidden_size))
    assert 0 < found.low < found.learning_rate < found.high
    assert json.loads(json.dumps(found.as_dict()))["variant"] == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 65_536),
        ("examples", 10_000_000),
        ("alpha", 16_384),
        ("batch_size", 4096),
        ("hidden_size", None),
        ("examples", None),
    ],
)
def test_the_interval_widens_outside_of_the_evidence_and_where_less_is_known(name, value):
    inside, outside = advice(hidden_size=4096, examples=100_000, alpha=16), advice(**{"alpha": 16, name: value})
    assert outside.high / outside.low > inside.high / inside.low


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"batch_size": 1024}, "batch size 1,024 is 8 times the largest of {}, 128"),
        ({"hidden_size": 32, "rank": 16}, "hidden size 32 is 2 times below the smallest of {}, 64"),
        ({"rank": 256, "alpha": 256}, "rank 256 is 2 times the largest of {}, 128"),
        ({"alpha": 1024}, "the scale s 64 is 2 times the largest of {}, 32"),
        ({"examples": 400}, "number of training examples 400 is 2 times below the smallest of {}, 800"),
    ],
)
def test_what_lies_outside_of_the_evidence_is_said_with_the_factor(values, text, monkeypatch):
    ranges = {
        "hidden_size": (64, 8192),
        "examples": (800, 100_000),
        "batch_size": (8, 128),
        "rank": (1, 128),
        "scale": (0.25, 32),
    }
    monkeypatch.setattr("autolora.laws.EVIDENCE", {"large models": ranges, "small models": ranges})
    kind = "small" if values.get("hidden_size") else "large"
    assert [each.text for each in advice(**values).outside] == [text.format(f"the evidence on {kind} models")]


def test_nothing_is_outside_at_a_usual_setting():
    assert advice(examples=100_000).outside == ()
    assert advice().evidence == laws.EVIDENCE["large models"]


@pytest.mark.parametrize(
    ("name", "value"), [("alpha", 1e300), ("alpha", 1e-320), ("examples", 10**400), ("batch_size", 10**9)]
)
def test_values_of_which_the_laws_say_nothing_are_refused(name, value):
    with pytest.raises(AdviceError, match=f"{name} is outside of"):
        advice(**{name: value})


def test_a_length_between_the_two_kinds_of_models_is_outside_of_the_evidence():
    (length,) = advice(examples=20_000).outside
    assert length.text.startswith("number of training examples 20,000 is 4.99 times below the smallest")
    assert advice(hidden_size=96, rank=8, alpha=8, examples=800, batch_size=8).evidence_on == "small models"


def test_what_was_not_given_is_assumed_and_said():
    found = advise(Question.of(variants.get("lora")))
    assert set(found.assumed) == {"hidden_size", "rank", "alpha", "batch_size", "examples"}
    assert (found.rank, found.alpha, found.batch_size, found.examples) == (32, 32.0, 32, None)
    assert "number of training examples is unknown" in found.reason
    assert advice().assumed == {}


def test_an_assumed_rank_is_no_larger_than_the_model_is_wide():
    assert advice(hidden_size=8, rank=None, alpha=None).rank == 8


@pytest.mark.parametrize(
    ("name", "scale"), [("lora", 1), ("rslora", 1), ("pissa", 1), ("dora", 1), ("hira", 1), ("lora_alpha", 1)]
)
def test_an_assumed_alpha_is_at_s_equal_1(name, scale):
    found = advice(name, alpha=None)
    assert found.scale == pytest.approx(scale)
    assert "alpha" in found.assumed


def test_an_alpha_of_a_variant_defined_at_s_equal_1_is_ignored_and_that_is_said():
    """As a search does with its space's alpha."""
    found = advice("hira", alpha=32)
    assert found.alpha == found.rank == 16
    assert "32 is ignored" in found.assumed["alpha"]
    assert found.alphas == ()


def test_an_alpha_against_the_variants_own_law_is_refused():
    assert advice("lora_alpha_empirical", alpha=None).alpha == 256 * 4
    with pytest.raises(AdviceError, match=r"alpha=32: .* its own law of alpha, 1024 at rank 16: leave alpha out"):
        advice("lora_alpha_empirical", alpha=32)


def test_rates_of_other_alphas_are_those_of_the_laws():
    found = advice()
    assert [each.rule for each in found.alphas] == ["rank", "2 x rank", "square-root law"]
    assert [round(each.alpha) for each in found.alphas] == [16, 32, 443]
    assert found.alphas[1].learning_rate == found.learning_rate
    assert found.alphas[2].learning_rate == pytest.approx(advice(alpha=found.alphas[2].alpha).learning_rate)


def test_alpha_is_called_redundant_where_it_is():
    assert "only rescales the rate" in advice("pissa").advice[1]
    assert "only rescales the rate" not in advice("lora").advice[1]


def test_neighbors_keep_the_scale():
    found = advice()
    assert {each.rank: each.alpha for each in found.neighbors} == {8: 16.0, 16: 32.0, 32: 64.0}
    assert {each.batch_size for each in found.neighbors} == {16, 32, 64, 128, 256}
    for each in found.neighbors:
        same = advice(rank=each.rank, alpha=each.alpha, batch_size=each.batch_size)
        assert each.learning_rate == pytest.approx(same.learning_rate)


@pytest.mark.parametrize("name", ["rank", "batch_size", "examples", "hidden_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan"), float("inf"), True, "8"])
def test_a_count_that_cannot_be_is_refused_by_name(name, value):
    with pytest.raises(AdviceError, match=rf"{name}=.*give a whole number of at least 1"):
        advice(**{name: value})


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "8"])
def test_an_alpha_that_cannot_be_is_refused(value):
    with pytest.raises(AdviceError, match=r"alpha=.*give a number above 0"):
        advice(alpha=value)


def test_a_rank_above_the_width_is_refused():
    with pytest.raises(AdviceError, match="rank=128: no layer of a model of hidden size 64"):
        advice(hidden_size=64, rank=128)
