"""Exports: the written files are parsed, and their values are those of the study, in each tool's own option names."""

from __future__ import annotations

import ast
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import LoraConfig

from autolora import quickstart, recipes, variants
from autolora.adapters.export import CONFIG, config_file
from autolora.adapters.start import Start
from autolora.driver.result import ResultError
from autolora.recipes import Recipe, RecipeError, write
from autolora.study import Study
from autolora.study.directory import STUDY_FILE, NoStudyError
from autolora.variants import Variant

NAMES = variants.names()
TUNED = {"learning_rate": 3.0e-4, "batch_size": 24, "rank": 8, "alpha": 39.2}
EXAMPLES, STEPS, WARMUP = 1000, 42, 5
TRAINING = {
    "examples": EXAMPLES,
    "max_length": 96,
    "schedule": "linear",
    "warmup_ratio": 0.1,
    "weight_decay": 0.01,
    "dropout": 0.05,
    "max_grad_norm": 0.5,
    "micro_batch": 9,
}
MICRO, ACCUMULATION = 8, 3  # of a batch of 24, at most 9 at a time
QUESTIONS = [{"question": "How many?", "answer": "Seven."}, {"question": "And now?", "answer": "Eight."}]
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
TURNS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]


@pytest.fixture
def make_run(tmp_path):
    """A run directory as a finished study leaves it; ``make_run(rows, data={...}, training={...}, tuned={...})``."""

    def make(
        rows: list[dict[str, Any]] = QUESTIONS,
        data: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
        tuned: dict[str, Any] | None = None,
        suffix: str = "jsonl",
        **spec: Any,
    ) -> Path:
        file = tmp_path / f"rows.{suffix}"
        if suffix == "csv":
            lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
            file.write_text("\n".join(lines) + "\n")
        else:
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        folder = tmp_path / "run"
        recorded = {
            "model": "owner/model",
            "data": {"train": str(file), "format": "auto", **(data or {})},
            "variants": NAMES,
            "training": {**TRAINING, **(training or {})},
            "seed": 5,
            "trust_remote_code": False,
            **spec,
        }
        outcome = {
            "config": {**TUNED, **(tuned or {})},
            "value": 1.25,
            "spread": 0.01,
            "seeds": [1.24, 1.26],
            "baseline": 1.5,
            "test": None,
            "adapter_dir": "elsewhere/best/lora",
            "seconds": 1.0,
        }
        for name in NAMES:
            adapter = folder / "best" / name
            adapter.mkdir(parents=True)
            (adapter / config_file(variants.get(name).export_form)).write_text(json.dumps({"r": 8, "variant": name}))
            (adapter / "adapter_model.safetensors").write_bytes(name.encode())
        (folder / "spec.yaml").write_text(yaml.safe_dump(recorded))
        best = {"variants": dict.fromkeys(NAMES, outcome), "spent": {}, "metric": "eval_loss", "direction": "minimize"}
        (folder / "best.json").write_text(json.dumps({**best, "seconds": {}, "versions": {}}))
        return folder

    return make


def axolotl(folder: Path, variant: str = "lora") -> dict[str, Any]:
    [path] = write(folder, variant, "axolotl", folder.parent / "out")
    return yaml.safe_load(path.read_text())


def llamafactory(folder: Path, variant: str = "lora") -> tuple[dict[str, Any], dict[str, Any]]:
    settings, datasets = write(folder, variant, "llamafactory", folder.parent / "out")
    return yaml.safe_load(settings.read_text()), json.loads(datasets.read_text())


def trl(folder: Path, variant: str = "lora") -> str:
    [path] = write(folder, variant, "trl", folder.parent / "out")
    source = path.read_text()
    compile(source, str(path), "exec")
    return source


def call(source: str, function: str) -> dict[str, Any]:
    """The constant keyword arguments of the one call of ``function`` in a script."""
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == function
    ]
    assert len(calls) == 1
    found = {}
    for keyword in calls[0].keywords:
        try:
            found[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            found[keyword.arg] = ast.unparse(keyword.value)
    return found


def text_of(source: str, row: dict[str, Any]) -> dict[str, Any]:
    """What the script makes of a row."""
    kept = []
    for node in ast.parse(source).body:
        constant = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper()
        if constant or isinstance(node, ast.FunctionDef):
            kept.append(node)
    names: dict[str, Any] = {}
    exec(compile(ast.Module(kept, []), "script", "exec"), names)
    return names["example"](row)


# --- what every target does ---


def test_an_unknown_target_is_refused_with_the_known_ones(make_run, tmp_path):
    with pytest.raises(RecipeError, match=r"'verl'.*peft, trl, axolotl, llamafactory"):
        write(make_run(), "lora", "verl", tmp_path / "out")


def test_a_variant_without_a_result_is_refused_with_those_that_have_one(make_run, tmp_path):
    with pytest.raises(RecipeError, match=f"'nolora'.*finished: {', '.join(NAMES)}"):
        write(make_run(), "nolora", "peft", tmp_path / "out")


def test_a_folder_that_is_no_run_directory_is_refused(tmp_path):
    with pytest.raises(NoStudyError):
        write(tmp_path, "lora", "peft", tmp_path / "out")


def test_an_unfinished_study_is_refused(make_run, tmp_path):
    folder = make_run()
    (folder / "best.json").unlink()
    with pytest.raises(ResultError):
        write(folder, "lora", "trl", tmp_path / "out")


@pytest.mark.parametrize("target", recipes.TARGETS)
def test_the_returned_paths_are_the_files_written(make_run, tmp_path, target):
    out = tmp_path / "deep" / "out"
    assert sorted(write(make_run(), "lora", target, out)) == sorted(out.iterdir())


@pytest.mark.parametrize("target", ["trl", "axolotl", "llamafactory"])
def test_a_variant_that_plain_peft_cannot_train_is_refused_by_name(make_run, tmp_path, monkeypatch, target):
    folder = make_run()
    private = Variant(name="lora", title="PrivateLoRA", paper="none")
    monkeypatch.setattr(variants, "get", lambda name: private)
    with pytest.raises(RecipeError, match=r"no option for PrivateLoRA.*--to peft"):
        write(folder, "lora", target, tmp_path / "out")
    assert write(folder, "lora", "peft", tmp_path / "out")


@pytest.mark.parametrize("name", NAMES)
def test_the_peft_options_of_a_variant_build_its_configuration(name):
    variant = variants.get(name)
    if variant.peft_options is None:
        pytest.skip("not for plain PEFT")
    config = LoraConfig(r=8, lora_alpha=16, **variant.peft_options)
    trained = variant.lora_config(Start(None, {}, rank=8, alpha=16.0), ["q_proj"])
    assert (config.use_dora, config.use_rslora) == (trained.use_dora, trained.use_rslora)


# --- peft ---


def test_peft_copies_the_adapter_of_the_run_directory(make_run, tmp_path):
    out = tmp_path / "out"
    write(make_run(), "pissa", "peft", out)
    assert json.loads((out / "adapter_config.json").read_text())["variant"] == "pissa"
    assert (out / "adapter_model.safetensors").read_bytes() == b"pissa"


def test_peft_adds_the_settings_and_a_readme(make_run, tmp_path):
    out = tmp_path / "out"
    write(make_run(), "dora", "peft", out)
    settings = yaml.safe_load((out / "autolora.yaml").read_text())
    assert settings["config"] == TUNED
    assert settings["training"]["max_length"] == TRAINING["max_length"]
    _, front, body = (out / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["base_model"] == "owner/model"
    assert "DoRA" in body
    assert "0.0003" in body


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rslora", "W + alpha / r B A with the r and alpha that are\nthere"),
        ("relora", "W + alpha / r B A with the r and alpha that are\nthere"),
        ("dora", "The load_adapter of a transformers model leaves DoRA's magnitudes out"),
        ("loha", "is how the trained\nadapter loads.\n"),
        ("loramoe", "loads with autolora, not with plain PEFT.\n"),
    ],
)
def test_the_readme_says_how_the_adapter_loads(make_run, tmp_path, name, says):
    write(make_run(), name, "peft", tmp_path / "out")
    assert says in (tmp_path / "out" / "README.md").read_text()


def test_an_adapter_in_a_format_of_its_own_is_copied_with_what_loads_it(make_run, tmp_path):
    out = tmp_path / "out"
    write(make_run(), "loramoe", "peft", out)
    assert json.loads((out / "autolora_adapter.json").read_text())["variant"] == "loramoe"
    assert not (out / "adapter_config.json").exists()
    _, front, body = (out / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "autolora"
    assert "model = load_adapter(base," in body
    assert "PeftModel" not in body


@pytest.mark.parametrize(("name", "message"), [("loramoe", r"autolora\.load_adapter"), ("pissa", "plain LoRA already")])
def test_no_plain_lora_is_made_of_what_is_one_or_is_near_none(make_run, tmp_path, name, message):
    with pytest.raises(RecipeError, match=message):
        recipes.write_lora(make_run(), name, tmp_path / "out")


def test_peft_without_the_adapter_files_says_what_is_missing(make_run, tmp_path):
    folder = make_run()
    (folder / "best" / "lora" / "adapter_model.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"no adapter_model\.safetensors"):
        write(folder, "lora", "peft", tmp_path / "out")


# --- the settings of a full run ---


def test_axolotl_has_the_tuned_settings(make_run):
    written = axolotl(make_run())
    expected = {
        "base_model": "owner/model",
        "adapter": "lora",
        "lora_r": 8,
        "lora_alpha": 39,
        "lora_dropout": 0.05,
        "lora_target_linear": True,
        "sequence_len": 96,
        "micro_batch_size": MICRO,
        "gradient_accumulation_steps": ACCUMULATION,
        "max_steps": STEPS,
        "learning_rate": 3.0e-4,
        "lr_scheduler": "linear",
        "warmup_steps": WARMUP,
        "max_grad_norm": 0.5,
        "weight_decay": 0.01,
        "seed": 5,
        "bf16": "auto",
    }
    assert {key: written[key] for key in expected} == expected


def test_llamafactory_has_the_tuned_settings(make_run):
    written, _ = llamafactory(make_run())
    expected = {
        "model_name_or_path": "owner/model",
        "stage": "sft",
        "finetuning_type": "lora",
        "lora_rank": 8,
        "lora_alpha": 39,
        "lora_dropout": 0.05,
        "lora_target": "all",
        "cutoff_len": 96,
        "per_device_train_batch_size": MICRO,
        "gradient_accumulation_steps": ACCUMULATION,
        "max_steps": STEPS,
        "learning_rate": 3.0e-4,
        "lr_scheduler_type": "linear",
        "warmup_steps": WARMUP,
        "max_grad_norm": 0.5,
        "weight_decay": 0.01,
        "seed": 5,
    }
    assert {key: written[key] for key in expected} == expected


def test_trl_has_the_tuned_settings(make_run):
    source = trl(make_run())
    arguments = call(source, "SFTConfig")
    expected = {
        "per_device_train_batch_size": MICRO,
        "gradient_accumulation_steps": ACCUMULATION,
        "max_steps": STEPS,
        "learning_rate": 3.0e-4,
        "lr_scheduler_type": "linear",
        "warmup_steps": WARMUP,
        "max_grad_norm": 0.5,
        "weight_decay": 0.01,
        "max_length": 96,
        "seed": 5,
    }
    assert {key: arguments[key] for key in expected} == expected
    adapter = {"r": 8, "lora_alpha": 39.2, "lora_dropout": 0.05, "target_modules": "all-linear"}
    assert call(source, "LoraConfig") == {**adapter, "task_type": "CAUSAL_LM"}
    assert '"owner/model"' in source


def test_the_batch_is_one_where_nothing_limits_it(make_run):
    written = axolotl(make_run(training={"micro_batch": None}))
    assert (written["micro_batch_size"], written["gradient_accumulation_steps"]) == (24, 1)


def test_a_constant_schedule_has_no_warmup(make_run):
    assert axolotl(make_run(training={"schedule": "constant"}))["warmup_steps"] == 0


def test_examples_that_were_not_given_are_those_the_study_counted(make_run):
    folder = make_run(training={"examples": None})
    terms = {"variants": ["lora"], "space": {}, "rungs": [1.0], "examples": 240, "seed": 0, "prior": None}
    Study.open(f"sqlite:///{folder}/study.db", "autolora", "minimize", terms)
    assert axolotl(folder)["max_steps"] == 10


def test_a_study_that_tells_no_length_is_an_error(make_run, tmp_path):
    with pytest.raises(NoStudyError, match="length of a full run"):
        write(make_run(training={"examples": None}), "lora", "trl", tmp_path / "out")


def test_an_alpha_that_cannot_be_rounded_is_refused_where_it_must_be_whole(make_run, tmp_path):
    folder = make_run(tuned={"alpha": 2.4})
    for target in ("axolotl", "llamafactory"):
        with pytest.raises(RecipeError, match=r"whole alpha, and 2\.4"):
            write(folder, "lora", target, tmp_path / "out")
    assert call(trl(folder), "LoraConfig")["lora_alpha"] == 2.4


def test_a_float32_study_is_not_continued_in_bfloat16(make_run):
    folder = make_run(training={"dtype": "float32"})
    assert axolotl(folder)["bf16"] is False
    assert llamafactory(folder)[0]["bf16"] is False
    assert "dtype = torch.float32" in trl(folder)


def test_a_shipped_model_is_named_by_its_absolute_path(make_run):
    assert axolotl(make_run(model="builtin:quickstart"))["base_model"] == str(quickstart.FOLDER / "model")


# --- variants ---


def test_variants_become_the_options_of_axolotl(make_run):
    folder = make_run()
    found = {}
    plain = axolotl(folder)
    for name in ("lora", "dora", "rslora", "lora_plus", "pissa", "olora"):
        written = axolotl(folder, name)
        found[name] = {key: written[key] for key in written.keys() - plain.keys()}
    assert found == {
        "lora": {},
        "dora": {"peft_use_dora": True},
        "rslora": {"peft_use_rslora": True},
        "lora_plus": {"loraplus_lr_ratio": 16.0},
        "pissa": {"peft_init_lora_weights": "pissa"},
        "olora": {"peft_init_lora_weights": "olora"},
    }


def test_variants_become_the_options_of_llamafactory(make_run):
    folder = make_run()
    found = {}
    plain, _ = llamafactory(folder)
    for name in ("lora", "dora", "rslora", "lora_plus", "pissa"):
        written, _ = llamafactory(folder, name)
        found[name] = {key: written[key] for key in written.keys() - plain.keys()}
    assert found == {
        "lora": {},
        "dora": {"use_dora": True},
        "rslora": {"use_rslora": True},
        "lora_plus": {"loraplus_lr_ratio": 16.0},
        "pissa": {"pissa_init": True, "pissa_iter": -1, "pissa_convert": True},
    }


def test_llamafactory_cannot_express_olora(make_run, tmp_path):
    with pytest.raises(RecipeError, match="LLaMA-Factory has no option for OLoRA"):
        write(make_run(), "olora", "llamafactory", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_variants_become_peft_options_in_the_trl_script(make_run):
    folder = make_run()
    for name in NAMES:
        options = variants.get(name).peft_options
        if options is None:
            continue
        written = call(trl(folder, name), "LoraConfig")
        assert {key: written[key] for key in options} == options
        LoraConfig(**written)


def test_the_trl_script_has_lora_plus_optimizer(make_run):
    assert call(trl(make_run(), "lora_plus"), "create_loraplus_optimizer")["loraplus_lr_ratio"] == 16.0


@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_the_trl_script_saves_what_loads_on_the_unmodified_base(make_run, name):
    source = trl(make_run(), name)
    assert source.index(".init_lora_weights = True") < source.index("trainer.train()")
    assert "path_initial_model_for_weight_conversion=start" in source


# --- data ---


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
    assert dataset["path"] == "rows.jsonl"
    assert "# axolotl formats know" in (tmp_path / "out" / "axolotl.yaml").read_text()
    settings, datasets = llamafactory(folder)
    assert datasets["train"] == {"file_name": "rows.jsonl", "columns": {"prompt": "prompt", "response": "completion"}}
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
    assert axolotl(folder)["datasets"][0]["path"] == "rows.jsonl"
    assert "Write them to rows.jsonl" in trl(folder)


def test_a_relative_file_is_found_from_the_folder_of_the_config(make_run, tmp_path, monkeypatch):
    folder = make_run(data={"train": "rows.jsonl"})
    monkeypatch.chdir(tmp_path)
    assert axolotl(folder)["datasets"][0]["path"] == str(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("train", [["a.jsonl", "b.jsonl"], "*.jsonl", "rows.jsonl.gz", "rows.tsv", "rows.txt"])
def test_files_that_not_every_trainer_reads_are_left_to_the_user(make_run, train):
    folder = make_run(data={"train": train})
    assert axolotl(folder)["datasets"][0]["path"] == "rows.jsonl"
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


@pytest.mark.parametrize("target", ["trl", "axolotl", "llamafactory", "peft"])
def test_the_length_that_the_study_found_is_written(make_run, target):
    folder = make_run(training={"max_length": "auto"})
    best = json.loads((folder / "best.json").read_text())
    (folder / "best.json").write_text(json.dumps({**best, "training": {"max_length": 104}}))
    files = write(folder, "lora", target, folder.parent / "out")
    written = "".join(path.read_text() for path in files if path.suffix in (".py", ".yaml"))
    assert re.findall(r"(?:max_length|sequence_len|cutoff_len)\W+(\w+)", written) == ["104"]


def test_the_steps_are_those_of_the_study():
    assert math.ceil(EXAMPLES / TUNED["batch_size"]) == STEPS
    assert math.ceil(TRAINING["warmup_ratio"] * STEPS) == WARMUP


class TestLayers:
    """Other trainers adapt what the study adapted."""

    @pytest.fixture
    def make_partial(self, make_run, monkeypatch):
        """A run whose layers are not all linear ones, with these in the adapter's configuration."""

        def make(**layers: list[str]) -> Path:
            folder = make_run(tuned={"alpha": 40.0})
            (folder / STUDY_FILE).touch()
            (folder / "best" / "lora" / CONFIG).write_text(json.dumps({"r": 8, "target_parameters": None, **layers}))
            monkeypatch.setattr(Recipe, "terms", {"context": {"layers": "a digest"}, "examples": EXAMPLES})
            return folder

        return make

    def test_modules_are_named(self, make_partial):
        names = ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"]
        folder = make_partial(target_modules=names)
        assert call(trl(folder), "LoraConfig")["target_modules"] == names
        written = axolotl(folder)
        assert written["lora_target_modules"] == names
        assert "lora_target_linear" not in written
        assert llamafactory(folder)[0]["lora_target"] == ",".join(names)

    def test_parameters_are_named_or_refused(self, make_partial):
        modules, parameters = ["model.layers.0.self_attn.q_proj"], ["model.layers.0.mlp.experts.down_proj"]
        folder = make_partial(target_modules=modules, target_parameters=parameters)
        assert call(trl(folder), "LoraConfig")["target_parameters"] == parameters
        assert axolotl(folder)["lora_target_parameters"] == parameters
        with pytest.raises(RecipeError, match=r"LLaMA-Factory trains no parameter by its name.*export to trl"):
            llamafactory(folder)

    def test_all_linear_layers_have_a_name_of_their_own(self, make_run):
        folder = make_run(tuned={"alpha": 40.0})
        assert call(trl(folder), "LoraConfig")["target_modules"] == "all-linear"
        assert axolotl(folder)["lora_target_linear"] is True
        assert llamafactory(folder)[0]["lora_target"] == "all"
