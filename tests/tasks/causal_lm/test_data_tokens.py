"""Where a row begins, ends, and is learned."""

import numpy as np
import pytest

from autolora.tasks.causal_lm.split import Split
from autolora.tasks.data.errors import DataError

ROWS = [{"prompt": "ab", "completion": "cd"}]
OTHER = [{"prompt": "x", "completion": "y"}]


@pytest.fixture
def first_row(prepare_rows, learned):
    def first_row(tokenizer, rows=ROWS, **options):
        data = prepare_rows(rows, tokenizer=tokenizer, eval_rows=options.pop("eval_rows", OTHER), **options)
        return learned(tokenizer, data.train, 0)

    return first_row


def test_a_row_is_bos_prompt_newline_completion_eos(first_row, tokenizer):
    assert first_row(tokenizer)[0] == "<s>ab\ncd</s>"


def test_only_completion_and_eos_are_learned(first_row, tokenizer):
    assert first_row(tokenizer)[1] == "cd</s>"


def test_a_template_adds_no_newline(first_row, tokenizer):
    rows = [{"q": "ab", "answer": "cd"}]
    options = {"template": "Q: {q} A:", "eval_rows": [{"q": "x", "answer": "y"}]}
    assert first_row(tokenizer, rows, **options) == ("<s>Q: ab A:cd</s>", "cd</s>")


def test_a_token_glued_across_the_boundary_is_learned(make_tokenizer, first_row):
    tokenizer = make_tokenizer(merges=[(":", "c")])
    rows = [{"q": "ab", "answer": "cd"}]
    options = {"template": "{q}:", "eval_rows": [{"q": "x", "answer": "y"}]}
    assert first_row(tokenizer, rows, **options) == ("<s>ab:cd</s>", ":cd</s>")


def test_bos_of_the_tokenizer_is_not_doubled(make_tokenizer, first_row):
    assert first_row(make_tokenizer(adds_bos=True))[0] == "<s>ab\ncd</s>"


def test_bos_in_the_text_is_not_doubled(tokenizer, first_row):
    assert first_row(tokenizer, [{"prompt": "<s>ab", "completion": "cd"}])[0] == "<s>ab\ncd</s>"


def test_eos_in_the_text_is_not_doubled(tokenizer, first_row):
    assert first_row(tokenizer, [{"prompt": "ab", "completion": "cd</s>"}])[0] == "<s>ab\ncd</s>"


def test_a_bos_that_is_also_eos_is_not_prepended(make_tokenizer, first_row):
    assert first_row(make_tokenizer(bos="</s>"))[0] == "ab\ncd</s>"


def test_a_tokenizer_configured_against_bos_gets_none(make_tokenizer, first_row):
    assert first_row(make_tokenizer(add_bos_token=False))[0] == "ab\ncd</s>"


def test_a_bos_that_opens_every_message_is_not_prepended(make_tokenizer, first_row):
    template = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    tokenizer = make_tokenizer(bos="<|im_start|>", eos="<|im_end|>", chat_template=template)
    assert first_row(tokenizer)[0] == "ab\ncd<|im_end|>"


def test_text_is_learned_from_its_first_token(tokenizer, first_row):
    assert first_row(tokenizer, [{"text": "abc"}], eval_rows=[{"text": "x"}]) == ("<s>abc</s>", "abc</s>")


def test_the_first_token_is_never_a_target(make_tokenizer, first_row):
    tokenizer = make_tokenizer(bos=None)
    assert first_row(tokenizer, [{"text": "abc"}], eval_rows=[{"text": "x"}]) == ("abc</s>", "bc</s>")


def test_a_long_completion_is_cut_on_the_right(tokenizer, first_row):
    assert first_row(tokenizer, [{"prompt": "ab", "completion": "c" * 20}], max_length=8)[0] == "<s>ab\ncccc"


def test_rows_hold_prompt_as_tokenized_and_completion_without_eos(prepare_rows):
    rows = prepare_rows(ROWS, eval_rows=[{"prompt": "x", "completion": "y</s>"}]).eval.rows
    assert rows == [{"prompt": "x\n", "completion": "y"}]


def test_prompt_tokens_are_what_precedes_the_completion(prepare_rows, tokenizer):
    data = prepare_rows(ROWS, eval_rows=OTHER)
    assert tokenizer.decode(data.eval.prompt_tokens(0)) == "<s>x\n"


def test_given_tokens_are_taken_as_they_are(prepare_rows):
    row = {"input_ids": [5, 6, 7, 8, 0], "labels": [-100, -100, 7, 8, -100], "attention_mask": [1, 1, 1, 1, 0]}
    data = prepare_rows([row], eval_rows=[{"input_ids": [9, 10]}])
    assert (data.train.tokens.tolist(), data.train.targets.tolist()) == ([5, 6, 7, 8], [False, False, True, True])


def test_given_tokens_are_decoded_for_metrics(prepare_rows, tokenizer):
    ids = tokenizer("ab").input_ids
    row = {"input_ids": [*ids, tokenizer.eos_token_id], "labels": [-100, ids[1], tokenizer.eos_token_id]}
    data = prepare_rows([{"input_ids": [9, 10]}], eval_rows=[row])
    assert data.eval.rows == [{"prompt": "a", "completion": "b"}]


def test_tokens_outside_the_vocabulary_are_an_error(prepare_rows):
    with pytest.raises(DataError, match=r"train.jsonl, row 1, column 'input_ids': 99999 is no token"):
        prepare_rows([{"input_ids": [5, 99999]}], eval_rows=[{"input_ids": [9, 10]}])


def test_shifted_labels_are_an_error(prepare_rows):
    with pytest.raises(DataError, match="row 1: labels must equal input_ids"):
        prepare_rows([{"input_ids": [5, 6], "labels": [6, 7]}])


def test_a_fully_masked_row_is_counted(prepare_rows):
    rows = [{"input_ids": [5, 6], "labels": [5, 6]}, {"input_ids": [5, 7], "labels": [-100, -100]}]
    report = prepare_rows(rows, eval_rows=[{"input_ids": [9, 10]}]).report.splits["train"]
    assert (report.rows, [count for count, _ in report.unlearnable.values()]) == (1, [1])


def test_only_fully_masked_rows_are_an_error_that_names_the_first(prepare_rows):
    rows = [{"input_ids": [5, each], "labels": [-100, -100]} for each in (6, 7)]
    with pytest.raises(DataError, match=r"no training rows remain: .*2 not used \(.*train.jsonl, row 1: no token"):
        prepare_rows(rows, eval_rows=[{"input_ids": [9, 10]}])


def test_a_batch_is_padded_on_the_right():
    batch = _split().batch([1, 0], pad_token_id=9)
    assert batch["input_ids"].tolist() == [[4, 5, 6], [1, 2, 9]]


def test_a_batch_attends_to_real_tokens_only():
    assert _split().batch([1, 0], pad_token_id=9)["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_labels_are_ignored_outside_the_targets():
    assert _split().batch([1, 0], pad_token_id=9)["labels"].tolist() == [[-100, -100, 6], [-100, 2, -100]]


def test_a_split_knows_its_lengths():
    assert _split().lengths.tolist() == [2, 3]


def _split():
    return Split(
        tokens=np.array([1, 2, 4, 5, 6], dtype=np.int32),
        offsets=np.array([0, 2, 5]),
        targets=np.array([False, True, False, False, True]),
        indices=np.array([0, 1]),
    )
