"""The rows of the study, in each tool's own words."""

from __future__ import annotations

import json

import pytest

from tests.support.recipes import (
    CHAT,
    QUESTIONS,
    TUNED,
    TURNS,
    axolotl,
    call,
    llamafactory,
    text_of,
    trl,
)


def test_recognized_columns_are_carried_over(make_run, tmp_path):
    folder = make_run()
    file = str(tmp_path / "rows.jsonl")
    [dataset] = axolotl(folder)["datasets"]
    assert (dataset["path"], dataset["ds_type"]) == (file, "json")
    kind = dataset["type"]
    assert (kind["field_instruction"], kind["field_output"]) == ("question", "answer")
    assert kind["format"].format(instruction="Q", input="ignored") == kind["no_input_format"].format(instruction="Q")
    assert kind["format"].format(instruction="Q", input="") == "Q\n"
    _, datasets = llamafactory(folder)
    assert datasets == {"train": {"file_name": file, "columns": {"prompt": "question", "response": "answer"}}}
    assert call(trl(folder), "load_dataset")["data_files"] == file
    assert text_of(trl(folder), QUESTIONS[0]) == {"prompt": "How many?\n", "completion": "Seven."}


def test_a_template_is_kept_where_the_tool_has_templates(make_run):
    template = "Q: {question} ({kind}) {{}}\nA: "
    row = {"question": "How many?", "kind": "count", "answer": "Seven."}
    folder = make_run([row], data={"template": template})
    kind = axolotl(folder)["datasets"][0]["type"]
    assert (kind["field_instruction"], kind["field_input"], kind["field_output"]) == ("question", "kind", "answer")
    assert kind["format"].format(instruction="How many?", input="count") == "Q: How many? (count) {}\nA: "
    assert kind["no_input_format"].format(instruction="How many?") == "Q: How many? () {}\nA: "
    prompt = {"prompt": "Q: How many? (count) {}\nA: ", "completion": "Seven."}
    assert text_of(trl(folder), row) == prompt


def test_what_a_tool_cannot_read_is_left_to_the_user_and_not_guessed(make_run, tmp_path):
    row = {"a": "x", "b": "y", "c": "z", "answer": "w"}
    folder = make_run([row], data={"template": "{a} {b} {c}: "})
    [dataset] = axolotl(folder)["datasets"]
    assert dataset["path"].endswith("/out/rows.jsonl")
    assert "# axolotl formats know" in (tmp_path / "out" / "axolotl.yaml").read_text()
    settings, datasets = llamafactory(folder)
    rows = str(tmp_path / "out" / "rows.jsonl")
    assert datasets["train"] == {"file_name": rows, "columns": {"prompt": "prompt", "response": "completion"}}
    assert settings["learning_rate"] == TUNED["learning_rate"]
    assert text_of(trl(folder), row)["prompt"] == "x y z: "


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"messages": CHAT}], {"role": "role", "content": "content"}),
        ([{"conversations": TURNS}], {"role": "from", "content": "value"}),
    ],
)
def test_conversations_keep_the_template_of_the_tokenizer(make_run, rows, message):
    folder = make_run(rows)
    column = next(iter(rows[0]))
    [dataset] = axolotl(folder)["datasets"]
    assert (dataset["type"], dataset["field_messages"]) == ("chat_template", column)
    assert dataset["message_property_mappings"] == message
    settings, datasets = llamafactory(folder)
    assert "template" not in settings
    assert datasets["train"]["formatting"] == "sharegpt"
    assert datasets["train"]["columns"] == {"messages": column}
    tags = datasets["train"]["tags"]
    assert (tags["role_tag"], tags["content_tag"]) == (message["role"], message["content"])
    source = trl(folder)
    assert call(source, "SFTConfig")["assistant_only_loss"] is True
    assert text_of(source, rows[0]) == {"messages": CHAT}


@pytest.mark.parametrize("write_recipe", [trl, axolotl, llamafactory])
def test_a_format_that_a_recipe_does_not_know_is_said_and_not_guessed(make_run, write_recipe):
    rows = [{"prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(4)]
    folder = make_run(rows)
    write_recipe(folder)
    text = "".join(path.read_text() for path in (folder.parent / "out").iterdir())
    assert "does not know 'preference' of these rows. Write them to rows.jsonl" in text
    assert "rows.jsonl" in text
    assert "rejected" not in text


def test_alpaca_rows_get_the_same_text(make_run):
    row = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
    bare = {**row, "input": ""}
    folder = make_run([row])
    kind = axolotl(folder)["datasets"][0]["type"]
    prompt, without = text_of(trl(folder), row)["prompt"], text_of(trl(folder), bare)["prompt"]
    assert kind["format"].format(instruction="Add.", input="1 and 2") == prompt
    assert kind["no_input_format"].format(instruction="Add.") == without
    assert "### Input:\n1 and 2" in prompt
    settings, datasets = llamafactory(folder)
    assert settings["template"] == "alpaca"
    assert datasets["train"]["columns"] == {"prompt": "instruction", "query": "input", "response": "output"}


def test_columns_beside_conversations_are_carried_over(make_run):
    tools = [{"type": "function", "function": {"name": "weather"}}]
    row = {"messages": CHAT, "system": "Be brief.", "tools": tools}
    folder = make_run([row])
    [dataset] = axolotl(folder)["datasets"]
    assert (dataset["field_system"], dataset["field_tools"]) == ("system", "tools")
    _, datasets = llamafactory(folder)
    assert datasets["train"]["columns"] == {"messages": "messages", "system": "system", "tools": "tools"}
    system = {"role": "system", "content": "Be brief."}
    source = trl(folder)
    assert text_of(source, row) == {"messages": [system, *CHAT], "tools": tools}
    assert text_of(source, {**row, "system": None})["messages"] == CHAT
    assert text_of(source, {**row, "messages": [system, *CHAT]})["messages"] == [system, *CHAT]


@pytest.mark.parametrize("write_recipe", [trl, axolotl, llamafactory])
@pytest.mark.parametrize(("mark", "said"), [({"weight": 0}, True), ({"train": True}, False)])
def test_marks_of_turns_that_a_trainer_does_not_read_are_said(make_run, write_recipe, mark, said):
    folder = make_run([{"messages": [CHAT[0], {**CHAT[1], **mark}, *CHAT]}])
    write_recipe(folder)
    text = "".join(path.read_text() for path in (folder.parent / "out").iterdir())
    assert ("marked as not to be learned" in " ".join(text.replace("#", " ").split())) is said


@pytest.mark.parametrize("write_recipe", [trl, axolotl])
def test_columns_of_alpaca_that_a_recipe_does_not_know_are_said(make_run, write_recipe):
    folder = make_run([{"instruction": "Add.", "output": "3", "system": "Be brief.", "history": []}])
    write_recipe(folder)
    text = "".join(path.read_text() for path in (folder.parent / "out").iterdir())
    assert "has no text for Alpaca's columns system and history. Write them to rows.jsonl" in text


def test_llamafactory_reads_system_and_history_and_learns_no_history(make_run):
    settings, datasets = llamafactory(make_run([{"instruction": "Add.", "output": "3", "system": "x", "history": []}]))
    columns = {"prompt": "instruction", "response": "output", "system": "system", "history": "history"}
    assert (settings["mask_history"], datasets["train"]["columns"]) == (True, columns)


def test_plain_text_is_learned_as_a_whole(make_run):
    folder = make_run([{"text": "Once."}])
    assert axolotl(folder)["datasets"][0]["type"] == "completion"
    settings, datasets = llamafactory(folder)
    assert settings["stage"] == "pt"
    assert datasets["train"]["columns"] == {"prompt": "text"}
    assert text_of(trl(folder), {"text": "Once."}) == {"text": "Once."}


def test_cells_of_a_csv_file_stay_text_in_the_trl_script(make_run):
    source = trl(make_run([{"question": "7 + 0", "answer": "007"}], suffix="csv"))
    assert 'converters={"question": str, "answer": str}' in source


def test_rows_are_held_out_where_no_evaluation_rows_were_given(make_run):
    folder = make_run(data={"eval_size": 16})
    assert axolotl(folder)["val_set_size"] == 16
    assert llamafactory(folder)[0]["val_size"] == 16
    assert "train_test_split(test_size=16, seed=5)" in trl(folder)


@pytest.mark.parametrize(("rows", "held_out"), [(6000, 512), (300, 30)])
@pytest.mark.parametrize("columns", [{}, {"prompt": "question", "completion": "answer"}])
def test_by_default_as_many_rows_are_held_out_as_in_the_study(make_run, rows, held_out, columns):
    made = [{"question": f"{row}?", "answer": "Yes."} for row in range(rows)]
    folder = make_run([*made, made[0]], data=columns)  # a repeated row is no further one
    assert axolotl(folder)["val_set_size"] == held_out
    assert llamafactory(folder)[0]["val_size"] == held_out
    assert f"train_test_split(test_size={held_out}, seed=5)" in trl(folder)


def test_a_share_is_held_out_where_the_number_of_rows_is_not_known(make_run):
    folder = make_run(data={"train": "openai/gsm8k", "prompt": "question", "completion": "answer"})
    assert axolotl(folder)["val_set_size"] == 0.1
    assert "Of more than 5,120 rows the study held out 512" in trl(folder)


def test_evaluation_rows_are_carried_over(make_run, tmp_path):
    held_out = str(tmp_path / "rows.jsonl")
    folder = make_run(data={"eval": held_out, "eval_size": 2})
    written = axolotl(folder)
    assert "val_set_size" not in written
    assert (written["test_datasets"][0]["path"], written["test_datasets"][0]["split"]) == (held_out, "train[:2]")
    settings, datasets = llamafactory(folder)
    assert settings["eval_dataset"] == "eval"
    assert (datasets["eval"]["file_name"], datasets["eval"]["num_samples"]) == (held_out, 2)
    assert ".take(2)" in trl(folder)


def test_a_hub_data_set_is_named_with_configuration_and_split(make_run):
    hub = {"train": "openai/gsm8k:train[:500]", "eval": "test", "name": "main"}
    folder = make_run(data={**hub, "prompt": "question", "completion": "answer"})
    written = axolotl(folder)
    train, evaluated = written["datasets"][0], written["test_datasets"][0]
    assert (train["path"], train["name"], train["split"]) == ("openai/gsm8k", "main", "train[:500]")
    assert (evaluated["path"], evaluated["split"]) == ("openai/gsm8k", "test")
    _, datasets = llamafactory(folder)
    assert datasets["train"]["hf_hub_url"] == "openai/gsm8k"
    assert (datasets["train"]["subset"], datasets["train"]["split"]) == ("main", "train[:500]")
    assert 'load_dataset("openai/gsm8k", "main", split="test")' in trl(folder)


@pytest.mark.parametrize("train", ["<dataset 1a2b>", "gone.jsonl"])
def test_rows_that_are_not_here_are_left_to_the_user(make_run, train):
    folder = make_run(data={"train": train})
    assert axolotl(folder)["datasets"][0]["path"].endswith("/out/rows.jsonl")
    assert "Write them to rows.jsonl" in trl(folder)


def test_a_relative_file_is_found_from_the_folder_of_the_config(make_run, tmp_path, monkeypatch):
    folder = make_run(data={"train": "rows.jsonl"})
    monkeypatch.chdir(tmp_path)
    assert axolotl(folder)["datasets"][0]["path"] == str(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("train", [["a.jsonl", "b.jsonl"], "*.jsonl", "rows.jsonl.gz", "rows.tsv", "rows.txt"])
def test_files_that_not_every_trainer_reads_are_left_to_the_user(make_run, train):
    folder = make_run(data={"train": train})
    assert axolotl(folder)["datasets"][0]["path"].endswith("/out/rows.jsonl")
    assert "which not every trainer reads as one data set. Write them to rows.jsonl" in trl(folder)


@pytest.fixture
def folder_with_validation(tmp_path):
    made = tmp_path / "set"
    made.mkdir()
    for name, count in {"train": 30, "validation": 7}.items():
        rows = [{"question": f"{name} {row}?", "answer": "Yes."} for row in range(count)]
        (made / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(made)


def test_a_validation_split_that_the_study_found_is_named(make_run, folder_with_validation):
    folder = make_run(data={"train": folder_with_validation, "eval": "auto"})
    evaluated = axolotl(folder)["test_datasets"][0]
    assert (evaluated["path"], evaluated["split"]) == (folder_with_validation, "validation[:7]")
    assert f'load_dataset("{folder_with_validation}", split="validation").take(7)' in trl(folder)


def test_a_study_that_held_rows_out_beside_one_still_does(make_run, folder_with_validation):
    folder = make_run(data={"train": folder_with_validation, "eval": None})
    assert axolotl(folder)["val_set_size"] == 3
