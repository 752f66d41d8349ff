"""Which columns are read, and what is said when they do not fit."""

import pytest

from autolora.tasks.data.errors import DataError


def test_alpaca_with_input_has_its_standard_prompt(prepare_rows, tokenizer, learned):
    row = {"instruction": "add", "input": "1 2", "output": "3"}
    text, target = learned(tokenizer, prepare_rows([row, row | {"output": "4"}], max_length=400).train, 0)
    assert (text, target) == (
        "<s>Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n### Instruction:\nadd\n\n### Input:\n1 2\n\n"
        "### Response:\n4</s>",
        "4</s>",
    )


@pytest.mark.parametrize("extra", [{}, {"input": ""}, {"input": None}])
def test_alpaca_without_input_says_nothing_of_one(prepare_rows, extra):
    row = {"instruction": "add", "output": "3"} | extra
    data = prepare_rows([row, row | {"output": "4"}], max_length=400)
    assert data.eval.rows[0]["prompt"].endswith("### Instruction:\nadd\n\n### Response:\n")


ALPACA = {"instruction": "add", "input": "", "output": "3"}


def prompt_of(prepare_rows, row):
    return prepare_rows([row], eval_rows=[row | {"output": "4"}], max_length=600).eval.rows[0]["prompt"]


@pytest.mark.parametrize("columns", [{}, {"input": "1 2"}])
def test_alpacas_system_stands_in_place_of_the_opening(prepare_rows, columns):
    opened = prompt_of(prepare_rows, ALPACA | columns)
    prompt = prompt_of(prepare_rows, ALPACA | columns | {"system": "Be brief."})
    assert prompt == "Be brief.\n\n" + opened[opened.index("### Instruction") :]


@pytest.mark.parametrize("history", [[["hi", "hello"], ["add", "4"]], '[["hi", "hello"], ["add", "4"]]'])
def test_alpacas_history_stands_before_the_instruction(prepare_rows, history):
    opening, request = prompt_of(prepare_rows, ALPACA).split("### Instruction", 1)
    assert prompt_of(prepare_rows, ALPACA | {"history": history}) == (
        f"{opening}### Instruction:\nhi\n\n### Response:\nhello\n\n"
        f"### Instruction:\nadd\n\n### Response:\n4\n\n### Instruction{request}"
    )


@pytest.mark.parametrize("empty", [{"system": "", "history": []}, {"system": None, "history": None}, {"history": ""}])
def test_alpaca_with_empty_system_and_history_reads_as_without(prepare_rows, empty):
    assert prompt_of(prepare_rows, ALPACA | empty) == prompt_of(prepare_rows, ALPACA)


@pytest.mark.parametrize("history", [["hi", "hello"], [["hi"]], [["hi", 3]], "hi", 3, {"a": 1}])
def test_a_history_that_is_no_list_of_exchanges_names_the_row(prepare_rows, history):
    with pytest.raises(DataError, match=r"jsonl, row 1, column 'history'"):
        prepare_rows([ALPACA | {"history": history}])


@pytest.mark.parametrize(
    ("row", "format", "columns"),
    [
        ({"prompt": "a", "completion": "b"}, "prompt_completion", "prompt -> completion"),
        ({"question": "a", "answer": "b"}, "prompt_completion", "question -> answer"),
        ({"instruction": "a", "output": "b", "text": "ab"}, "alpaca", "instruction, output"),
        (
            {"instruction": "a", "output": "b", "system": "c", "history": []},
            "alpaca",
            "instruction, output, system, history (whose answers are not learned)",
        ),
        ({"text": "ab"}, "text", "text"),
        ({"input_ids": [7, 8], "text": "ab"}, "tokenized", "input_ids"),
    ],
)
def test_the_format_found_is_reported(prepare_rows, row, format, columns):
    report = prepare_rows([row], eval_rows=[_other(row)], max_length=400).report.splits["train"]
    assert (report.format, report.columns) == (format, columns)


def _other(row):
    return {key: value + value for key, value in row.items()}


def test_two_columns_can_be_named(prepare_rows):
    row = {"title": "a", "body": "b"}
    data = prepare_rows([row], eval_rows=[_other(row)], prompt="title", completion="body")
    assert data.eval.rows == [{"prompt": "aa\n", "completion": "bb"}]


def test_a_template_finds_the_completion_column(prepare_rows):
    row = {"question": "a", "context": "c", "answer": "b"}
    data = prepare_rows([row], eval_rows=[_other(row)], template="{context} {question} ")
    assert data.eval.rows == [{"prompt": "cc aa ", "completion": "bb"}]


def test_a_template_may_print_numbers(prepare_rows):
    row = {"a": 1, "b": 2, "answer": "3"}
    data = prepare_rows([row], eval_rows=[{"a": 2, "b": 2, "answer": "4"}], template="{a} + {b} = ")
    assert data.eval.rows == [{"prompt": "2 + 2 = ", "completion": "4"}]


def test_an_unknown_template_field_names_the_columns(prepare_rows):
    with pytest.raises(DataError, match=r"no column 'qestion'; its columns are 'question', 'answer'"):
        prepare_rows([{"question": "a", "answer": "b"}], template="{qestion}")


def test_a_malformed_template_is_an_error(prepare_rows):
    with pytest.raises(DataError, match=r"data\.template '\{question' is malformed"):
        prepare_rows([{"question": "a", "answer": "b"}], template="{question")


def test_a_template_with_two_possible_completions_asks(prepare_rows):
    with pytest.raises(DataError, match=r"Name it with data\.completion"):
        prepare_rows([{"q": "a", "answer": "b", "response": "c"}], template="{q}")


def test_a_missing_column_names_the_available_ones(prepare_rows):
    with pytest.raises(DataError, match=r"train.jsonl has no column 'titel'; its columns are 'title', 'body'"):
        prepare_rows([{"title": "a", "body": "b"}], prompt="titel", completion="body")


def test_a_column_missing_in_one_row_names_the_row(prepare_rows):
    with pytest.raises(DataError, match=r"train.jsonl, row 2 has no column 'completion'; it has 'prompt'"):
        prepare_rows([{"prompt": "a", "completion": "b"}, {"prompt": "a"}])


@pytest.mark.parametrize("value", [7, ["b"], True])
def test_a_value_that_is_no_text_names_file_row_column_and_value(prepare_rows, value):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": value}]
    with pytest.raises(DataError) as error:
        prepare_rows(rows)
    assert f"train.jsonl, row 2, column 'completion' must be text, not {value!r}" in str(error.value)


def test_an_empty_cell_is_an_error(prepare_rows):
    with pytest.raises(DataError, match=r"row 1, column 'completion' is empty"):
        prepare_rows([{"prompt": "a", "completion": None}])


def test_unknown_columns_are_listed(prepare_rows):
    with pytest.raises(DataError, match=r"the columns 'foo', 'bar' fit no known format"):
        prepare_rows([{"foo": "a", "bar": "b"}])


def test_two_possible_pairs_ask(prepare_rows):
    with pytest.raises(DataError, match=r"question -> answer, input -> output.*more than one pair"):
        prepare_rows([{"question": "a", "answer": "b", "input": "c", "output": "d"}])


def test_a_pair_beside_a_context_asks(prepare_rows):
    with pytest.raises(DataError, match=r"'context' may belong to the prompt"):
        prepare_rows([{"question": "a", "answer": "b", "context": "c"}])


def test_a_completion_without_prompt_asks(prepare_rows):
    with pytest.raises(DataError, match="nothing says what the prompt is"):
        prepare_rows([{"question": "a", "answer": "b"}], completion="answer")


def test_text_may_stand_in_another_column(prepare_rows):
    data = prepare_rows([{"body": "a"}], eval_rows=[{"body": "b"}], format="text", completion="body")
    assert data.eval.rows == [{"prompt": "", "completion": "b"}]


def test_a_template_contradicts_another_format(prepare_rows):
    with pytest.raises(DataError, match=r"data\.format is 'alpaca'"):
        prepare_rows([{"instruction": "a", "output": "b"}], format="alpaca", template="{instruction}")
