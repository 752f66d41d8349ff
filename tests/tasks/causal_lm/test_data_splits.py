"""Which rows go where."""

import json

import numpy as np
import pytest

from autolora.tasks.causal_lm import preparation
from autolora.tasks.causal_lm.preparation import prepare
from autolora.tasks.causal_lm.spec import DataSpec
from autolora.tasks.data.errors import DataError


@pytest.fixture
def split(write, tokenizer):
    def split(rows, *, eval=None, test=None, seed=0, max_length=50, examples=None, **options):
        files = {name: write(f"{name}.jsonl", given) for name, given in (("eval", eval), ("test", test)) if given}
        spec = DataSpec(train=write("train.jsonl", rows), **files, **options)
        return prepare(spec, tokenizer, max_length=max_length, examples=examples, seed=seed, cache_dir=None)

    return split


@pytest.fixture
def texts(tokenizer):
    def texts(split):
        return [tokenizer.decode(split.tokens[a:b]) for a, b in zip(split.offsets, split.offsets[1:], strict=False)]

    return texts


def test_evaluation_is_a_tenth_of_the_training_rows(split, numbered):
    assert len(split(numbered(50)).eval) == 5


def test_evaluation_has_at_most_512_rows(split, numbered):
    assert len(split(numbered(6000)).eval) == 512


def test_no_test_split_by_default(split, numbered):
    assert split(numbered(20)).test is None


def test_the_three_splits_share_no_row_and_lose_none(split, numbered, texts):
    data = split(numbered(50), eval_size=10, test_size=7)
    parts = [texts(part) for part in (data.train, data.eval, data.test)]
    assert ([len(p) for p in parts], len(set().union(*parts))) == ([33, 10, 7], 50)


def test_duplicates_never_straddle_splits(split, numbered, texts):
    data = split(numbered(20) * 3, eval_size=5, test_size=5)
    parts = [set(texts(part)) for part in (data.train, data.eval, data.test)]
    assert [len(a & b) for a, b in ((parts[0], parts[1]), (parts[0], parts[2]), (parts[1], parts[2]))] == [0, 0, 0]


def test_repeated_training_rows_stay(split, numbered):
    assert len(split(numbered(20) * 3, eval_size=5).train) == 45


def test_copies_of_held_out_rows_are_counted(split, numbered):
    report = split(numbered(20) * 3, eval_size=5).report.splits["train"]
    assert (report.held_out, report.duplicates) == (5, 10)


def test_training_rows_found_in_the_evaluation_file_are_removed(split, numbered):
    data = split(numbered(10), eval=numbered(3, start=8))
    assert (len(data.train), data.report.splits["train"].duplicates) == (8, 2)


def test_test_rows_found_in_the_evaluation_rows_are_removed(split, numbered):
    data = split(numbered(10), eval=numbered(5, start=100), test=numbered(5, start=103))
    assert (len(data.eval), len(data.test)) == (5, 3)


def test_a_row_differing_only_in_white_space_is_no_duplicate(split):
    data = split([{"prompt": "a", "completion": "b"}], eval=[{"prompt": "a", "completion": "b "}])
    assert len(data.train) == 1


def test_evaluation_takes_the_first_rows_that_survive(split, numbered):
    long = {"prompt": "x" * 100, "completion": "y"}
    data = split(numbered(10), eval=[long, *numbered(10, start=100)], eval_size=2)
    assert [row["completion"] for row in data.eval.rows] == ["c100", "c101"]


def test_the_same_seed_gives_the_same_splits(split, numbered, texts):
    assert texts(split(numbered(40), seed=3).eval) == texts(split(numbered(40), seed=3).eval)


def test_global_random_state_does_not_matter(split, numbered, texts):
    np.random.seed(1)
    first = texts(split(numbered(40)).eval)
    np.random.seed(2)
    assert texts(split(numbered(40)).eval) == first


def test_held_out_rows_keep_the_order_of_the_file(split, numbered):
    completions = [int(row["completion"][1:]) for row in split(numbered(40), eval_size=10).eval.rows]
    assert completions == sorted(completions)


def test_another_seed_gives_another_split(split, numbered, texts):
    assert texts(split(numbered(40), seed=3).eval) != texts(split(numbered(40), seed=4).eval)


def test_a_test_split_leaves_the_evaluation_rows_alone(split, numbered):
    rows = numbered(40)
    assert split(rows, eval_size=5).eval.rows == split(rows, eval_size=5, test_size=5).eval.rows


def test_rows_without_room_are_dropped_and_counted(split, numbered):
    rows = [*numbered(5), {"prompt": "x" * 60, "completion": "y"}]
    report = split(rows, eval=numbered(1, start=50)).report.splits["train"]
    assert (report.rows, report.dropped) == (5, 1)


def test_cut_rows_are_counted(split, numbered):
    rows = [*numbered(5), {"prompt": "x", "completion": "y" * 60}]
    assert split(rows, eval=numbered(1, start=50)).report.splits["train"].cut == 1


def test_the_counts_add_up(split, numbered):
    rows = [*numbered(20), *numbered(20), {"prompt": "x" * 60, "completion": "y"}]
    r = split(rows, eval_size=4).report.splits["train"]
    assert r.read == r.rows + r.dropped + r.duplicates + r.held_out + r.unused


def test_the_report_says_in_a_line_what_became_of_the_rows(split, numbered):
    rows = [*numbered(2), {"prompt": "x" * 60, "completion": "y"}]
    line = split(rows, eval=numbered(1)).report.lines()[0]
    assert line.endswith(
        "train.jsonl (prompt_completion: prompt -> completion; 7 tokens, 43% of them learned); "
        "1 left out, also in another split; 1 dropped, the prompt fills 50 tokens"
    )


def test_the_report_says_how_a_text_begins_and_ends(split, numbered):
    assert split(numbered(20)).report.lines()[-1] == "texts: begin with <s> and end with </s>"


def test_more_examples_than_rows_mean_several_epochs(split, numbered):
    assert len(split(numbered(10), eval=numbered(1, start=50), examples=1000).train) == 10


def test_fewer_rows_than_examples_by_dropping_is_an_error(split, numbered):
    rows = [*numbered(5), *({"prompt": "x" * 60, "completion": f"{i}"} for i in range(5))]
    with pytest.raises(DataError, match=r"examples asks for 8 rows, but only 5 .* remain, because 5 have a prompt"):
        split(rows, eval=numbered(1, start=50), examples=8)


def test_no_training_rows_left_is_an_error(split, numbered):
    with pytest.raises(DataError, match=r"no training rows remain.*3 are also in another split"):
        split(numbered(3), eval=numbered(3))


def test_fewer_evaluation_rows_than_asked_is_an_error(split, numbered):
    with pytest.raises(DataError, match=r"eval_size asks for 5 rows, but only 3 of the 3 rows of .*eval.jsonl"):
        split(numbered(3), eval=numbered(3, start=10), eval_size=5)


def test_a_huge_data_set_is_tokenized_only_as_far_as_examples_need(split, numbered, monkeypatch):
    monkeypatch.setattr(preparation, "LIMIT_LEAST", 8)
    report = split(numbered(100), eval=numbered(1, start=500), examples=3).report.splits["train"]
    assert (report.rows, report.unused) == (12, 88)


def test_an_unchanged_file_gives_an_unchanged_fingerprint(split, numbered):
    assert split(numbered(20)).fingerprint == split(numbered(20)).fingerprint


def test_a_changed_row_changes_the_fingerprint(split, numbered):
    assert split(numbered(20)).fingerprint != split(numbered(19) + numbered(1, start=99)).fingerprint


def test_a_template_changes_the_fingerprint(split, numbered):
    plain, templated = split(numbered(20)), split(numbered(20), template="{prompt}: ", completion="completion")
    assert plain.fingerprint != templated.fingerprint


def test_training_rows_keep_no_text(split, numbered):
    assert json.dumps(split(numbered(20)).train.rows) == "[]"
