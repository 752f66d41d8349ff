"""What every data format must do. A new one gives a sample of its rows here."""

from __future__ import annotations

import pytest

from autolora.tasks.causal_lm.examples import Chat, Pair, Tokens, content_key
from autolora.tasks.causal_lm.formats.format import KEYS, Format, layout_of, register, registry
from autolora.tasks.causal_lm.spec import DataSpec
from autolora.tasks.data.errors import DataError
from autolora.tasks.data.table import Table
from autolora.testing import rendered

SAMPLES = {
    "prompt_completion": [{"prompt": "p", "completion": "c"}, {"prompt": "q", "completion": "d"}],
    "messages": [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "c"}]} for text in "pq"
    ],
    "sharegpt": [{"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "c"}]} for text in "pq"],
    "alpaca": [{"instruction": "p", "input": "", "output": "c"}, {"instruction": "p", "input": "q", "output": "c"}],
    "text": [{"text": "a text"}, {"text": "another"}],
    "tokenized": [{"input_ids": [7, 8, 9]}, {"input_ids": [7, 8, 10]}],
    "preference": [
        {"prompt": "p", "chosen": "c", "rejected": "worse"},
        {"prompt": "q", "chosen": "d", "rejected": "worse"},
    ],
    "conversational_prompt_completion": [
        {
            "prompt": [{"role": "user", "content": text}],
            "completion": [{"role": "assistant", "content": "c"}],
        }
        for text in "pq"
    ],
    "conversational_preference": [
        {
            "chosen": [{"role": "user", "content": text}, {"role": "assistant", "content": "c"}],
            "rejected": [{"role": "user", "content": text}, {"role": "assistant", "content": "worse"}],
        }
        for text in "pq"
    ],
}


def table(name: str) -> Table:
    return Table.of("rows.jsonl", SAMPLES[name])


ESTABLISHED = [
    "tokenized",
    "sharegpt",
    "messages",
    "alpaca",
    "prompt_completion",
    "text",
    "preference",
    "conversational_prompt_completion",
    "conversational_preference",
]
"""In their order. A new format comes behind them all."""


def test_a_new_format_comes_behind_those_before_it():
    """Else a study that is continued with a later version would train on something else."""
    assert list(registry())[: len(ESTABLISHED)] == ESTABLISHED


@pytest.mark.parametrize(
    ("columns", "format"),
    [
        (("prompt", "completion", "chosen", "rejected"), "prompt_completion"),
        (("text", "prompt", "chosen", "rejected"), "text"),
        (("instruction", "output", "prompt", "completion"), "alpaca"),
        (("messages", "prompt", "completion"), "messages"),
        (("messages", "chosen", "rejected"), "messages"),
        (("prompt", "chosen", "rejected"), "preference"),
    ],
)
def test_a_table_that_several_formats_fit_goes_to_the_first(columns, format):
    table = Table.of("rows", [dict.fromkeys(columns, "x")])
    assert layout_of(table, DataSpec(train="rows")).format == format


def test_columns_that_are_named_are_read_whatever_else_fits():
    table = Table.of("rows", [{"messages": [], "text": "x", "a": "p", "b": "c"}])
    assert layout_of(table, DataSpec(train="rows", prompt="a", completion="b")).columns == ("a", "b")


def test_every_format_has_a_sample():
    assert set(SAMPLES) == set(registry())


@pytest.mark.parametrize("name", registry())
class TestFormat:
    def test_it_is_found_by_its_columns_and_by_its_name(self, name):
        for spec in (DataSpec(train="rows"), DataSpec(train="rows", format=name)):
            layout = layout_of(table(name), spec)
            assert layout.format == name
            assert set(layout.columns) <= set(table(name).columns)

    def test_its_examples_are_of_the_kind_it_states_and_tell_rows_apart(self, name):
        layout = layout_of(table(name), DataSpec(train="rows", format=name))
        examples = [layout.example(row, "here") for row in SAMPLES[name]]
        assert {type(example) for example in examples} == {registry()[name].makes}
        assert registry()[name].makes in (Pair, Chat, Tokens)
        assert len(set(map(content_key, examples))) == len(examples)

    def test_something_of_every_row_is_learned(self, name, chat_tokenizer):
        texts = rendered(SAMPLES[name], chat_tokenizer, format=name)
        assert len(texts) == len(SAMPLES[name])
        assert all(learned and all(stretch in text for stretch in learned) for text, learned in texts)

    def test_a_table_without_its_columns_is_refused_with_those_there_are(self, name):
        with pytest.raises(DataError, match=r"rows.jsonl.*'foo'"):
            layout_of(Table.of("rows.jsonl", [{"foo": 1}]), DataSpec(train="rows", format=name))

    def test_a_missing_cell_is_named_with_its_row(self, name):
        layout = layout_of(table(name), DataSpec(train="rows", format=name))
        with pytest.raises(DataError, match=r"rows.jsonl, row 3"):
            layout.example(dict.fromkeys(layout.columns), "rows.jsonl, row 3")

    def test_a_key_that_it_does_not_take_is_refused(self, name):
        for key in set(KEYS) - registry()[name].keys:
            given = {"prompt": "p", "completion": "c"} if key == "prompt" else {key: "c"}
            with pytest.raises(DataError, match=f"data.format is '{name}', but data.{key} is for"):
                layout_of(table(name), DataSpec(train="rows", format=name, **given))


@pytest.mark.parametrize("name", ["auto", "text"])
def test_a_name_is_registered_once(name):
    with pytest.raises(ValueError, match=f"a format named '{name}' is registered already"):
        register(Format(name, registry()["text"].read, lambda table: False, 99, Pair))


def test_an_unknown_format_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="'mesages' is unknown; did you mean 'messages'"):
        DataSpec(train="rows", format="mesages")


def test_only_the_chosen_answer_of_a_preference_pair_is_learned(chat_tokenizer):
    [(text, learned)] = rendered(SAMPLES["preference"][:1], chat_tokenizer)
    assert "worse" not in text
    assert learned == [f"c{chat_tokenizer.eos_token}"]
