"""How long a row may be: asked for, found from the rows, and never more than the model takes."""

import numpy as np
import pytest

from autolora.tasks.causal_lm import length
from autolora.tasks.causal_lm.length import percentile_of, resolved
from autolora.tasks.causal_lm.limits import Limits
from autolora.tasks.causal_lm.preparation import prepare
from autolora.tasks.causal_lm.spec import DataSpec
from autolora.tasks.data.errors import DataError

# A row of the fixtures' tokenizer is <s> + prompt + line break + completion + </s>: 3 more than the characters.


def rows(*lengths):
    """A row of each length in tokens."""
    return [{"prompt": f"{number:03d}", "completion": "c" * (tokens - 6)} for number, tokens in enumerate(lengths)]


@pytest.fixture
def prepared(write, tokenizer, tmp_path):
    def prepared(rows, max_length="auto", limits=Limits(), cached=False, **options):  # noqa: B008
        spec = DataSpec(train=write("train.jsonl", rows), **options)
        cache_dir = tmp_path / "cache" if cached else None
        return prepare(
            spec, tokenizer, max_length=max_length, examples=None, seed=0, cache_dir=cache_dir, limits=limits
        )

    return prepared


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([50] * 20, 56),
        ([48] * 20, 48),
        ([20] * 198 + [400, 500], 24),  # a hundredth may be cut
        ([20] * 196 + [100, 100, 100, 500], 104),
    ],
)
def test_auto_is_the_99th_percentile_rounded_up_to_a_multiple_of_8(prepared, lengths, expected):
    data = prepared(rows(*lengths))
    assert data.report.max_length == expected
    assert f"max_length: {expected} tokens (auto: 99% of the training rows are no longer)" in data.report.lines()


def test_no_length_is_as_auto(prepared):
    assert prepared(rows(*[50] * 20), max_length=None).report == prepared(rows(*[50] * 20)).report


def test_auto_is_at_least_8(prepared):
    assert prepared([{"prompt": "", "completion": str(number)} for number in range(9)]).report.max_length == 8


@pytest.mark.parametrize("hard", [True, False])
def test_auto_is_at_most_the_positions_of_the_model(prepared, hard):
    data = prepared(rows(*[50] * 20), limits=Limits(positions=30, hard=hard))
    assert data.report.max_length == 30 == data.train.lengths.max()
    assert "max_length: 30 tokens (auto: the model's positions)" in data.report.notes


def test_a_number_that_auto_finds_gives_the_fingerprint_of_that_number(prepared):
    assert prepared(rows(*[50] * 20)).fingerprint == prepared(rows(*[50] * 20), max_length=56).fingerprint


def test_the_report_says_auto_only_to_who_asked_for_it(prepared):
    prepared(rows(*[50] * 20), cached=True)
    notes = prepared(rows(*[50] * 20), max_length=56, cached=True).report.notes
    assert not any("auto" in note for note in notes)


def test_auto_is_found_again_without_looking_at_the_rows(prepared, monkeypatch):
    first = prepared(rows(*[50] * 20), cached=True)
    monkeypatch.setattr("autolora.tasks.causal_lm.preparation.percentile_of", None)
    second = prepared(rows(*[50] * 20), cached=True)
    assert (second.report, second.fingerprint) == (first.report, first.fingerprint)


def test_a_length_that_another_rendering_had_is_not_found_again(prepared, tmp_path, monkeypatch):
    prepared(rows(*[50] * 20), cached=True)
    monkeypatch.setattr("autolora.tasks.causal_lm.preparation.RENDERING", 1000)
    prepared(rows(*[50] * 20), cached=True)
    assert len(list((tmp_path / "cache").glob("length-*.txt"))) == 2


def test_a_damaged_cache_of_the_length_is_made_again(prepared, tmp_path):
    prepared(rows(*[50] * 20), cached=True)
    (found,) = (tmp_path / "cache").glob("length-*.txt")
    found.write_text("nonsense", encoding="utf-8")
    assert prepared(rows(*[50] * 20), cached=True).report.max_length == 56
    assert found.read_text(encoding="utf-8") == "50"


def test_of_many_rows_a_sample_is_looked_at(prepared, monkeypatch):
    seen = []
    monkeypatch.setattr("autolora.tasks.causal_lm.preparation.LENGTH_SAMPLE", 10)
    monkeypatch.setattr(
        "autolora.tasks.causal_lm.preparation.percentile_of", lambda found: seen.append(found) or percentile_of(found)
    )
    many = rows(*np.random.default_rng(0).integers(10, 90, 200))
    assert prepared(many).report.max_length == prepared(many).report.max_length
    assert [len(lengths) for lengths in seen] == [10, 10]
    assert seen[0] == seen[1]


def test_beyond_hard_positions_a_number_is_lowered_and_said(prepared):
    data = prepared(rows(*[50] * 20), max_length=512, limits=Limits(positions=30, hard=True))
    assert data.train.lengths.max() == 30
    assert "max_length: 30 tokens, not 512: the model has 30 positions" in data.report.lines()


def test_beyond_soft_positions_a_number_is_warned_of(prepared):
    data = prepared(rows(*[50] * 20), max_length=512, limits=Limits(positions=30))
    assert data.train.lengths.max() == 50
    assert data.report.warnings == (
        "training.max_length is 512, but the model was made for 30 positions and may get worse beyond; set "
        "training.max_length: 30, or leave it out",
    )


def test_a_length_beyond_the_positions_is_not_warned_of_if_no_row_is_as_long(prepared):
    limits = Limits(positions=30)
    assert prepared(rows(*[20] * 40), max_length=512, limits=limits).report.warnings == ()


def test_rows_that_fit_no_position_are_an_error_that_names_the_model(prepared):
    with pytest.raises(DataError, match=r"max_length=30 tokens.*shorten the rows, for the model has 30 positions"):
        prepared(
            [{"prompt": f"{number:040d}", "completion": "c"} for number in range(9)],
            max_length=512,
            limits=Limits(positions=30, hard=True),
        )


def test_what_is_cut_of_the_completions_is_warned_of(prepared):
    data = prepared(rows(*[26] * 20), max_length=16)
    # of 21 tokens to be learned, 10 are beyond; two of the 20 rows are held out
    remedy = "are cut off at max_length 16; raise training.max_length, or leave it out"
    assert data.report.warnings == (
        f"train: 180 tokens to be learned (48%) {remedy}",
        f"eval: 20 tokens to be learned (48%) {remedy}",
    )


def test_dropped_rows_are_warned_of(prepared, numbered):
    long = [{"prompt": f"{number:020d}", "completion": "c"} for number in range(5)]
    data = prepared([*numbered(20), *long], max_length=16, eval_size=1)
    assert data.report.warnings == (
        "train: 5 rows (21%) are dropped at max_length 16; raise training.max_length, or leave it out",
    )


def test_a_few_cut_tokens_and_dropped_rows_are_not_warned_of(prepared, numbered):
    long = [{"prompt": f"{number:020d}", "completion": "c"} for number in range(2)]
    assert prepared([*numbered(40), *long, *rows(20)], max_length=19).report.warnings == ()


def test_a_long_tail_is_warned_of_with_auto_too(prepared):
    (warning, *_) = prepared(rows(*[12] * 198, 2000, 2000), eval_size=1).report.warnings
    assert warning.startswith("train: ")
    assert warning.endswith("are cut off at max_length 16; raise training.max_length")


def test_resolving_asks_for_the_rows_with_auto_alone():
    assert resolved(64, Limits(), percentile=None).tokens == 64
    assert resolved("auto", Limits(), percentile=lambda: 0).tokens == length.LEAST
