"""Rows that need a token of which the model has no embedding."""

import pytest

from autolora.tasks.causal_lm.limits import Limits
from autolora.tasks.causal_lm.preparation import prepare
from autolora.tasks.causal_lm.spec import DataSpec
from autolora.tasks.data.errors import DataError
from tests.tasks.causal_lm.conftest import CHATML

FINE = [{"prompt": f"p{number}", "completion": "c"} for number in range(9)]


@pytest.fixture
def prepared(write, tmp_path):
    def prepared(rows, tokenizer, missing=1, **options):
        """For a model whose embedding lacks the last ``missing`` tokens of the tokenizer."""
        spec = DataSpec(train=write("train.jsonl", rows), **options)
        limits = Limits(vocabulary=len(tokenizer) - missing)
        return prepare(
            spec, tokenizer, max_length=64, examples=None, seed=0, cache_dir=tmp_path / "cache", limits=limits
        )

    return prepared


@pytest.fixture
def late_tokenizer(make_tokenizer):
    """Its last token was added: the end of a text, as where a chat's end marker was."""

    def late(token, **arguments):
        tokenizer = make_tokenizer(**arguments)
        tokenizer.add_special_tokens(token)
        return tokenizer

    return late


def test_a_tokenizer_may_be_larger_than_the_model_if_no_row_needs_it(prepared, late_tokenizer):
    tokenizer = late_tokenizer({"pad_token": "[PAD]"})
    assert len(prepared(FINE, tokenizer).train) == 8


@pytest.mark.parametrize("again", [False, True])
def test_an_end_of_text_without_embedding_is_named_with_row_and_remedy(prepared, late_tokenizer, again):
    tokenizer = late_tokenizer({"eos_token": "<|end|>"})
    for _ in range(1 + again):  # the second time from the cache
        with pytest.raises(
            DataError,
            match=rf"train\.jsonl, row \d needs the token '<\|end\|>', id {len(tokenizer) - 1}, but the model has "
            rf"embeddings for the ids 0 to {len(tokenizer) - 2} .*resize_token_embeddings\({len(tokenizer)}\)",
        ):
            prepared(FINE, tokenizer)


def test_a_chat_marker_without_embedding_is_named(prepared, late_tokenizer):
    template = CHATML.replace("<|im_end|>", "<|eot|>")
    tokenizer = late_tokenizer({"additional_special_tokens": ["<|eot|>"]}, chat_template=template)
    talk = [
        {"messages": [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": "a"}]}
        for number in range(9)
    ]
    with pytest.raises(DataError, match=r"needs the token '<\|eot\|>'"):
        prepared(talk, tokenizer)


def test_pretokenized_ids_without_embedding_are_named(prepared, tokenizer):
    last = len(tokenizer) - 1
    tokens = [{"input_ids": [7, 8, 9 + number], "labels": [7, 8, 9 + number]} for number in range(8)]
    with pytest.raises(DataError, match=rf"train\.jsonl, row 9 needs the token .*, id {last}, .*1 such tokens"):
        prepared([*tokens, {"input_ids": [7, last], "labels": [7, last]}], tokenizer, eval_size=1)


def test_evaluation_rows_are_looked_at_too(prepared, write, tokenizer):
    last = tokenizer.convert_ids_to_tokens(len(tokenizer) - 1)
    rows = write("eval.jsonl", [{"prompt": "p", "completion": "fine"}, {"prompt": "q", "completion": f"x{last}"}])
    with pytest.raises(DataError, match=r"eval\.jsonl, row 2 needs the token .*in the eval split"):
        prepared(FINE, tokenizer, eval=rows)
