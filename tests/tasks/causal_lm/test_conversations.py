"""How the messages of a row, and the columns beside them, become a chat."""

import json

import pytest
from datasets import Dataset

from autolora.tasks.causal_lm.examples import Chat, Pair, Skipped
from autolora.tasks.causal_lm.formats.format import layout_of
from autolora.tasks.causal_lm.spec import DataSpec
from autolora.tasks.data.errors import DataError
from autolora.tasks.data.sources import open_source
from autolora.tasks.data.table import Table

ASK = {"role": "user", "content": "one"}
ANSWER = {"role": "assistant", "content": "ONE"}
AGAIN = {"role": "user", "content": "two"}
LAST = {"role": "assistant", "content": "TWO"}
SYSTEM = {"role": "system", "content": "be brief"}
SCHEMA = {"name": "weather", "description": "Weather of a city", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": SCHEMA}


def read(*rows, **keys):
    """The examples of rows in memory."""
    table = Table.of("rows.jsonl", rows)
    layout = layout_of(table, DataSpec(train="rows", **keys))
    return [layout.example(row, f"rows.jsonl, row {number}") for row, number in zip(rows, table.numbers, strict=True)]


def read_arrow(*rows):
    """The examples of rows that went through Arrow, which gives all objects of a column the same keys."""
    table = open_source("train", DataSpec(train=Dataset.from_list(list(rows)))).table
    layout = layout_of(table, DataSpec(train="rows"))
    return [layout.example(row, "row") for row in table.fetch(range(len(rows)), layout.columns)]


def messages(*turns, **columns):
    """The chat of a row with these messages and other columns."""
    [example] = read({"messages": list(turns), **columns})
    return example


def call(arguments, **more):
    return {"type": "function", "function": {"name": "weather", "arguments": arguments}, **more}


def calling(*calls, content=None):
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


# --- roles and keys ---


@pytest.mark.parametrize(
    ("role", "standard"),
    [
        ("human", "user"),
        ("prompter", "user"),
        ("bot", "assistant"),
        ("model", "assistant"),
        ("gpt", "assistant"),
        ("Assistant", "assistant"),
        ("observation", "tool"),
        ("function", "tool"),
    ],
)
@pytest.mark.parametrize("key", ["role", "from"])
def test_a_role_of_another_table_gets_its_standard_name(key, role, standard):
    said = "content" if key == "role" else "value"
    chat = messages({key: role, said: "x"}, ANSWER)
    assert chat.messages[0] == {"role": standard, "content": "x"}


def test_a_role_that_is_unknown_here_is_left_to_the_template():
    assert messages({"role": "critic", "content": "x"}, ANSWER).messages[0]["role"] == "critic"


@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value"), ("role", "value"), ("from", "content")])
@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_each_turn_is_read_by_its_own_keys(column, keys):
    turns = [dict(zip(keys, ("user", "one"), strict=True)), {"from": "gpt", "value": "ONE"}, AGAIN, LAST]
    assert read({column: turns}) == [Chat([ASK, ANSWER, AGAIN, LAST])]


@pytest.mark.parametrize("first", [[], [ASK, ANSWER]])
def test_rows_of_a_table_may_differ_in_their_keys(first):
    other = [{"from": "human", "value": "two"}, {"from": "gpt", "value": "TWO"}]
    assert read({"conversations": first}, {"conversations": other})[1] == Chat([AGAIN, LAST])


def test_sharegpt_is_found_behind_rows_without_a_turn():
    rows = [{"conversations": []}, {"conversations": [{"from": "human", "value": "x"}]}]
    assert layout_of(Table.of("rows", rows), DataSpec(train="rows")).format == "sharegpt"


@pytest.mark.parametrize("turn", [{"content": "x"}, {"role": None, "content": "x"}, "x", {"role": 3, "content": "x"}])
def test_a_turn_without_a_role_names_its_row(turn):
    with pytest.raises(DataError, match=r"rows\.jsonl, row 1, messages\[1\]"):
        messages(ASK, turn)


def test_other_keys_go_to_the_template():
    turn = {**ANSWER, "reasoning_content": "hm", "name": None}
    assert messages(ASK, turn).messages[1] == {**ANSWER, "reasoning_content": "hm"}


# --- content ---


@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_messages_may_be_json_text(column):
    assert read({column: json.dumps([ASK, ANSWER])}) == [Chat([ASK, ANSWER])]


def test_sharegpt_is_found_in_json_text():
    turns = json.dumps([{"from": "human", "value": "one"}, {"from": "gpt", "value": "ONE"}])
    table = Table.of("rows", [{"conversations": turns}])
    assert layout_of(table, DataSpec(train="rows")).format == "sharegpt"
    assert read({"conversations": turns}) == [Chat([ASK, ANSWER])]


@pytest.mark.parametrize("text", ["hello", "[{'role': 'user'}]", '"x"', "3"])
def test_messages_in_other_text_are_an_error(text):
    with pytest.raises(DataError, match=r"rows\.jsonl, row 1, column 'messages'"):
        read({"messages": text})


def test_content_in_text_parts_is_passed_on():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert messages({"role": "user", "content": parts}, ANSWER).messages[0]["content"] == parts


def test_what_arrow_filled_into_a_part_is_left_out():
    turn = {"role": "user", "content": [{"type": "text", "text": "a", "image_url": None}]}
    assert messages(turn, ANSWER).messages[0]["content"] == [{"type": "text", "text": "a"}]


@pytest.mark.parametrize(
    "part", [{"type": "image_url", "image_url": {"url": "x.png"}}, {"type": "input_audio"}, {"type": "text"}, "a"]
)
def test_a_part_that_is_no_text_names_row_and_message(part):
    turn = {"role": "user", "content": [{"type": "text", "text": "a"}, part]}
    with pytest.raises(DataError, match=r"row 1, messages\[0\], content\[1\] must be text.*only text is read"):
        messages(turn, ANSWER)


@pytest.mark.parametrize("value", [3, {"text": "x"}, None])
def test_content_that_is_no_text_is_an_error(value):
    with pytest.raises(DataError, match=r"row 1, messages\[1\]: 'content' must be text"):
        messages(ASK, {"role": "assistant", "content": value})


def test_a_turn_of_reasoning_alone_needs_no_content():
    turn = {"role": "assistant", "content": None, "thinking": "hm"}
    assert messages(ASK, turn).messages[1] == turn


# --- columns beside ---


@pytest.mark.parametrize("column", ["system", "system_prompt"])
@pytest.mark.parametrize("turns", [[ASK, ANSWER], [SYSTEM, ASK, ANSWER]])
def test_a_system_column_is_the_system_message(column, turns):
    assert messages(*turns, **{column: "be brief"}) == Chat([SYSTEM, ASK, ANSWER])


@pytest.mark.parametrize("empty", [None, "", " \n"])
def test_an_empty_system_column_adds_nothing(empty):
    assert messages(ASK, ANSWER, system=empty) == Chat([ASK, ANSWER])


@pytest.mark.parametrize(
    ("turns", "columns"),
    [
        ([SYSTEM, ASK, ANSWER], {"system": "be long"}),
        ([{"role": "developer", "content": "be brief"}, ASK, ANSWER], {"system": "be long"}),
        ([ASK, ANSWER], {"system": "be brief", "system_prompt": "be long"}),
    ],
)
def test_two_different_system_messages_are_an_error(turns, columns):
    with pytest.raises(DataError, match=r"rows\.jsonl, row 1 has different system messages.*'be long'.*keep one"):
        messages(*turns, **columns)


@pytest.mark.parametrize(
    "columns",
    [
        {"tools": [TOOL]},
        {"tools": json.dumps([TOOL])},
        {"tools": [json.dumps(TOOL)]},
        {"tools": [SCHEMA]},
        {"tools": [{"type": "function", **SCHEMA}]},
        {"tools": [{"type": "function", "function": {**SCHEMA, "parameters": json.dumps(SCHEMA["parameters"])}}]},
        {"functions": [SCHEMA]},
        {"functions": json.dumps([SCHEMA])},
        {"tools": [TOOL], "functions": [SCHEMA]},
        {"tools": None, "functions": [SCHEMA]},
    ],
)
def test_tools_reach_the_template_in_their_standard_form(columns):
    assert messages(ASK, ANSWER, **columns).tools == [TOOL]


@pytest.mark.parametrize("empty", [None, [], "", "[]", "null"])
def test_a_row_without_tools_has_none(empty):
    assert messages(ASK, ANSWER, tools=empty).tools is None


def test_a_tool_that_the_model_brings_along_stays_as_it_is():
    assert messages(ASK, ANSWER, tools=[{"type": "code_interpreter"}]).tools == [{"type": "code_interpreter"}]


@pytest.mark.parametrize("tools", ["weather", {"name": "weather"}, 3, [3]])
def test_tools_that_are_no_list_of_objects_name_the_row(tools):
    with pytest.raises(DataError, match=r"rows\.jsonl, row 1, column 'tools'"):
        messages(ASK, ANSWER, tools=tools)


def test_tools_and_functions_that_differ_are_an_error():
    with pytest.raises(DataError, match=r"row 1: the columns tools and functions hold different tools"):
        messages(ASK, ANSWER, tools=[TOOL], functions=[{**SCHEMA, "name": "other"}])


def test_the_columns_that_are_read_are_reported():
    table = Table.of("rows", [{"messages": [ASK, ANSWER], "tools": [TOOL], "system": "x", "id": 7}])
    layout = layout_of(table, DataSpec(train="rows"))
    assert layout.found == "messages with role/content, system, tools"
    assert layout.columns == ("messages", "system", "tools")


# --- tool calls ---


@pytest.mark.parametrize(
    "turn",
    [
        calling(call({"city": "Oslo"})),
        calling(call('{"city": "Oslo"}')),
        {"role": "assistant", "tool_calls": [call({"city": "Oslo"})]},
        {"role": "assistant", "content": None, "tool_calls": json.dumps([call({"city": "Oslo"})])},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "weather", "arguments": '{"city": "Oslo"}'}]},
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
        {"from": "function_call", "value": '[{"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}]'},
        {"role": "tool_call", "content": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
    ],
)
def test_a_call_becomes_an_object_in_its_standard_form(turn):
    assert messages(ASK, turn) == Chat([ASK, calling(call({"city": "Oslo"}))])


def test_a_call_keeps_its_identifier_and_the_text_before_it():
    chat = messages(ASK, calling(call("{}", id="c1"), content="I look."))
    assert chat.messages[1] == calling(call({}, id="c1"), content="I look.")


def test_calls_in_turns_of_their_own_are_one_message_of_the_assistant():
    def written(name):
        return {"role": "tool_call", "content": json.dumps({"name": name, "arguments": {}})}

    def made(name):
        return {"type": "function", "function": {"name": name, "arguments": {}}}

    result = {"role": "tool", "content": "rain"}
    chat = messages(ASK, ANSWER, written("a"), written("b"), result, written("c"))
    assert chat.messages == [ASK, {**ANSWER, "tool_calls": [made("a"), made("b")]}, result, calling(made("c"))]


def test_a_call_in_a_turn_of_its_own_stays_apart_if_only_it_is_learned():
    turn = {"role": "tool_call", "content": '{"name": "weather", "arguments": {}}'}
    chat = messages(ASK, {**ANSWER, "weight": 0}, turn)
    assert chat == Chat([ASK, ANSWER, calling(call({}))], None, frozenset({1}))


@pytest.mark.parametrize("arguments", [None, "", "{}", "null"])
def test_a_call_without_arguments_has_an_empty_object(arguments):
    [made] = messages(ASK, calling(call(arguments))).messages[1]["tool_calls"]
    assert made["function"]["arguments"] == {}


@pytest.mark.parametrize("arguments", ["city: Oslo", "[1]", 3])
def test_arguments_that_are_no_object_name_row_and_message(arguments):
    with pytest.raises(DataError, match=r"row 1, messages\[1\], tool_calls\[0\], arguments"):
        messages(ASK, calling(call(arguments)))


@pytest.mark.parametrize(
    "turn",
    [
        calling({"type": "function", "function": {"arguments": "{}"}}),
        {"role": "function_call", "content": "I call the weather"},
        {"role": "function_call", "content": '{"arguments": {}}'},
        {**calling(call({})), "function_call": {"name": "weather", "arguments": "{}"}},
    ],
)
def test_a_call_that_cannot_be_read_names_row_and_message(turn):
    with pytest.raises(DataError, match=r"row 1, messages\[1\]"):
        messages(ASK, turn)


@pytest.mark.parametrize("empty", [None, [], ""])
def test_a_turn_without_calls_has_no_key_of_them(empty):
    assert messages(ASK, {**ANSWER, "tool_calls": empty, "function_call": None}) == Chat([ASK, ANSWER])


def test_keys_that_arrow_filled_in_are_left_out_at_all_depths():
    other = {"name": "time", "description": "Time", "parameters": {"type": "object", "properties": {"zone": {}}}}
    rows = [
        {"messages": [ASK, calling(call({"city": "Oslo"}))], "tools": [TOOL]},
        {"messages": [ASK, calling({"type": "function", "function": {"name": "time", "arguments": {"zone": "UTC"}}})]},
        {"messages": [ASK, ANSWER], "tools": [{"type": "function", "function": other}]},
    ]
    first, second, third = read_arrow(*rows)
    assert first == Chat([ASK, calling(call({"city": "Oslo"}))], tools=[TOOL])
    assert second.messages[1]["tool_calls"][0]["function"]["arguments"] == {"zone": "UTC"}
    assert third.messages == [ASK, ANSWER]


@pytest.mark.parametrize(
    "turns",
    [
        [ASK, calling(call('{"city": null}'))],
        json.dumps([ASK, calling(call({"city": None}))]),
    ],
)
def test_a_null_in_json_text_stays(turns):
    [chat] = read({"messages": turns})
    assert chat.messages[1]["tool_calls"][0]["function"]["arguments"] == {"city": None}


# --- turns that are not learned ---


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}, {"training": False}, {"loss": False}])
def test_a_marked_turn_is_not_learned_and_the_template_does_not_see_the_mark(mark):
    assert messages(ASK, {**ANSWER, **mark}, AGAIN, LAST) == Chat([ASK, ANSWER, AGAIN, LAST], None, frozenset({1}))


@pytest.mark.parametrize("mark", [{"weight": 1}, {"weight": 1.0}, {"train": True}, {"weight": None}])
def test_a_turn_marked_as_learned_is_learned(mark):
    assert messages(ASK, {**ANSWER, **mark}) == Chat([ASK, ANSWER])


def test_marks_count_behind_a_system_message_of_a_column():
    chat = messages(ASK, {**ANSWER, "weight": 0}, AGAIN, LAST, system="be brief")
    assert chat == Chat([SYSTEM, ASK, ANSWER, AGAIN, LAST], None, frozenset({2}))


def test_what_follows_the_last_learned_turn_is_left_out():
    assert messages(ASK, ANSWER, AGAIN, {**LAST, "weight": 0}) == Chat([ASK, ANSWER])


@pytest.mark.parametrize("mark", [{"weight": 0.5}, {"weight": 2}, {"train": "no"}, {"weight": [0]}])
def test_a_mark_that_is_neither_yes_nor_no_names_row_and_message(mark):
    with pytest.raises(DataError, match=r"row 1, messages\[1\]: '(weight|train)' must be 0 or 1"):
        messages(ASK, {**ANSWER, **mark})


def test_a_mark_on_a_user_message_that_says_no_is_fine():
    assert messages({**ASK, "weight": 0}, ANSWER) == Chat([ASK, ANSWER])


def test_a_mark_that_asks_to_learn_a_user_message_is_an_error():
    with pytest.raises(DataError, match=r"messages\[0\]: 'train' asks to learn a turn of the role 'user'"):
        messages({**ASK, "train": True}, ANSWER)


def test_marks_of_single_characters_are_an_error():
    spans = [{"begin_offset": 0, "end_offset": 1, "train": False}]
    with pytest.raises(DataError, match=r"messages\[1\]: 'train_detail' marks parts of a turn"):
        messages(ASK, {**ANSWER, "train_detail": spans})


# --- rows of which nothing is learned ---


@pytest.mark.parametrize("turns", [[], [ASK], [SYSTEM, ASK]])
def test_a_conversation_without_the_assistant_is_counted(turns):
    assert messages(*turns) == Skipped("no assistant turn")


def test_a_conversation_whose_answers_are_all_marked_is_counted():
    assert messages(ASK, {**ANSWER, "weight": 0}) == Skipped("all assistant turns marked as not to be learned")


def test_an_empty_answer_is_learned_as_what_it_is():
    empty = {"role": "assistant", "content": ""}
    assert messages(ASK, empty) == Chat([ASK, empty])
    assert read({"prompt": "a", "completion": ""}) == [Pair("a\n", "")]


# --- prompt and completion as messages ---


def test_only_the_completion_of_a_conversation_is_learned():
    [chat] = read({"prompt": [ASK, ANSWER, AGAIN], "completion": [LAST]})
    assert chat == Chat([ASK, ANSWER, AGAIN, LAST], None, frozenset({1}))


def test_a_completion_may_hold_several_turns():
    result = {"role": "tool", "content": "rain", "name": "weather"}
    row = {"prompt": [ASK], "completion": [calling(call("{}")), result, LAST], "tools": [TOOL], "system": "be brief"}
    assert read(row) == [Chat([SYSTEM, ASK, calling(call({})), result, LAST], [TOOL])]


@pytest.mark.parametrize("names", [("prompt", "completion"), ("question", "answer"), ("dialog", "reply")])
def test_the_columns_may_have_other_names(names):
    row = dict(zip(names, ([ASK], [ANSWER]), strict=True))
    assert read(row, prompt=names[0], completion=names[1]) == [Chat([ASK, ANSWER])]


def test_one_of_the_two_may_be_text():
    assert read({"prompt": "one", "completion": [ANSWER]}) == [Chat([ASK, ANSWER])]
    assert read({"prompt": [ASK], "completion": "ONE"}) == [Chat([ASK, ANSWER])]


def test_a_completion_without_the_assistant_is_counted():
    assert read({"prompt": [ASK, ANSWER], "completion": [AGAIN]}) == [Skipped("no assistant turn in the completion")]


def test_text_that_looks_like_messages_is_text_as_before():
    prompt = json.dumps([ASK])
    assert read({"prompt": prompt, "completion": "x"}) == [Pair(f"{prompt}\n", "x")]


# --- preference pairs of messages ---


REJECTED = {"role": "assistant", "content": "worse"}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASK, ANSWER, AGAIN], "chosen": [LAST], "rejected": [REJECTED]},
        {"prompt": [ASK, ANSWER, AGAIN], "chosen": [ASK, ANSWER, AGAIN, LAST], "rejected": [REJECTED]},
        {"chosen": [ASK, ANSWER, AGAIN, LAST], "rejected": [ASK, ANSWER, AGAIN, REJECTED]},
        {"chosen": [ASK, ANSWER, AGAIN, LAST], "rejected": [ASK, ANSWER, AGAIN, LAST]},
    ],
)
def test_only_the_chosen_answer_is_learned(row):
    assert read(row) == [Chat([ASK, ANSWER, AGAIN, LAST], None, frozenset({1}))]


@pytest.mark.parametrize("chosen", [[ASK, ANSWER], [ANSWER]])
def test_the_prompt_of_a_preference_pair_may_be_text(chosen):
    row = {"prompt": "one", "chosen": chosen, "rejected": [ASK, REJECTED]}
    assert read(row) == [Chat([ASK, ANSWER])]


def test_a_prompt_is_found_behind_a_system_message():
    row = {"prompt": "one", "chosen": [SYSTEM, ASK, ANSWER], "rejected": [SYSTEM, ASK, REJECTED]}
    assert read(row) == [Chat([SYSTEM, ASK, ANSWER])]
