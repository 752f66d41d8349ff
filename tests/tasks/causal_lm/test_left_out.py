"""Rows and parts of rows that are not learned are counted and said."""

import pytest

from autolora.tasks.causal_lm import preparation

USER, ASSISTANT = {"role": "user", "content": "one"}, {"role": "assistant", "content": "ONE"}
EVAL = [{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "X"}]}]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "no assistant turn"),
        ([USER], "no assistant turn"),
        ([USER, ASSISTANT | {"weight": 0}], "all assistant turns marked as not to be learned"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_conversation_without_an_answer_to_learn_is_counted(prepare_rows, chat_tokenizer, turns, reason, place):
    rows = [{"messages": [USER, ASSISTANT]}]
    rows.insert(place, {"messages": turns})
    data = prepare_rows(rows, tokenizer=chat_tokenizer, eval_rows=EVAL)
    count, first = data.report.splits["train"].unlearnable[reason]
    assert (len(data.train), count) == (1, 1)
    assert first.endswith(f"train.jsonl, row {place + 1}")
    assert any(reason in line for line in data.report.lines())


def test_of_an_empty_completion_the_end_is_learned_and_that_is_said(prepare_rows, tokenizer, learned):
    rows = [{"prompt": "p", "completion": ""}, {"prompt": "q", "completion": "c"}]
    data = prepare_rows(rows, tokenizer=tokenizer, eval_rows=[{"prompt": "x", "completion": "X"}])
    assert learned(tokenizer, data.train, 0) == ("<s>p\n</s>", "</s>")
    assert "empty completions, of which the end alone is learned: 1" in data.report.lines()[0]


def test_columns_that_are_not_read_are_said(prepare_rows, tokenizer):
    row = {"id": 7, "prompt": "p", "completion": "c", "source": "web"}
    data = prepare_rows([row], eval_rows=[{"prompt": "x", "completion": "X"}])
    train, held_out = data.report.lines()[:2]
    assert train.endswith("columns not read: id, source")
    assert "not read" not in held_out


def test_of_many_columns_that_are_not_read_the_first_are_said(prepare_rows, tokenizer):
    row = {"prompt": "p", "completion": "c"} | {f"extra{i}": i for i in range(9)}
    report = prepare_rows([row], eval_rows=[{"prompt": "x", "completion": "X"}]).report
    assert report.splits["train"].unread == "extra0, extra1, extra2, extra3, extra4, extra5 and 3 more"


@pytest.mark.parametrize(("columns", "same"), [({}, True), ({"system": "s"}, False), ({"history": []}, False)])
def test_data_with_columns_that_were_not_read_before_has_a_fingerprint_of_its_own(
    prepare_rows, monkeypatch, columns, same
):
    row = {"instruction": "a", "output": "b"} | columns
    fingerprints = []
    for rendering in (1, 2):
        monkeypatch.setattr(preparation, "RENDERING", rendering)
        data = prepare_rows([row], eval_rows=[row | {"output": "c"}], max_length=400)
        fingerprints.append(data.fingerprint)
    assert (fingerprints[0] == fingerprints[1]) is same
