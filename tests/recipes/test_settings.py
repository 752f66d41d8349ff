"""The settings of the study, in each tool's own option names."""

from __future__ import annotations

import ast
import json
import math
import re
from pathlib import Path
from typing import get_args

import pytest
import torch
from peft import LoraConfig

from autolora import quickstart, variants
from autolora.adapters.export import CONFIG
from autolora.bases.device import find_dtype
from autolora.recipes import Recipe, RecipeError, write
from autolora.spec import TrainingSpec
from autolora.study import Study
from autolora.study.directory import STUDY_FILE, NoStudyError
from tests.support.recipes import (
    ACCUMULATION,
    EXAMPLES,
    MICRO,
    NAMES,
    STEPS,
    TRAINING,
    TUNED,
    WARMUP,
    axolotl,
    call,
    llamafactory,
    trl,
)


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


def test_a_float16_study_is_continued_in_float16(make_run):
    folder = make_run(training={"dtype": "float16"})
    assert {key: axolotl(folder)[key] for key in ("bf16", "fp16")} == {"bf16": False, "fp16": True}
    assert {key: llamafactory(folder)[0][key] for key in ("bf16", "fp16")} == {"bf16": False, "fp16": True}
    assert "dtype = torch.float16" in trl(folder)
    assert "fp16=dtype == torch.float16" in trl(folder)


@pytest.mark.parametrize(
    ("cuda", "bfloat16", "dtype"),
    [(False, False, torch.float32), (True, True, torch.bfloat16), (True, False, torch.float16)],
)
def test_a_script_takes_the_dtype_that_a_study_would(make_run, monkeypatch, cuda, bfloat16, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
    statements = [node for node in ast.parse(trl(make_run())).body if isinstance(node, ast.Assign)]
    (value,) = (node.value for node in statements if ast.unparse(node.targets[0]) == "dtype")
    assert eval(ast.unparse(value)) == dtype
    assert find_dtype("auto", torch.device("cuda" if cuda else "cpu")) == dtype


@pytest.mark.parametrize("dtype", get_args(TrainingSpec.model_fields["dtype"].annotation))
def test_every_dtype_has_a_recipe(make_run, dtype):
    folder = make_run(training={"dtype": dtype})
    assert axolotl(folder)["bf16"] is not None
    assert llamafactory(folder)[0]["bf16"] is not None
    assert "dtype = " in trl(folder)


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


FIELDS = {"optimizer": "nadam", "adam_beta2": 0.95, "schedule": "constant", "max_grad_norm": 0.3}


def test_fields_that_were_tuned_are_in_every_recipe(make_run):
    tuned = {"fields": {**FIELDS, "optimizer": "adamw"}}
    folder = make_run(tuned=tuned)
    arguments = call(trl(folder), "SFTConfig")
    for found, schedule in ((arguments, "lr_scheduler_type"), (axolotl(folder), "lr_scheduler")):
        assert (found["adam_beta2"], found[schedule], found["max_grad_norm"]) == (0.95, "constant", 0.3)
        assert "adam_beta1" not in found
    assert llamafactory(folder)[0]["adam_beta2"] == 0.95


def test_an_optimizer_that_a_tool_does_not_have_is_made_or_said(make_run):
    folder = make_run(tuned={"fields": FIELDS})
    made = call(trl(folder), "torch.optim.NAdam")
    assert (made["betas"], made["eps"], made["decoupled_weight_decay"]) == ((0.9, 0.95), 1e-8, True)
    plus = call(trl(folder, "lora_plus"), "create_loraplus_optimizer")
    assert (plus["betas"], plus["decoupled_weight_decay"]) == ((0.9, 0.95), True)
    for write_tool in (axolotl, llamafactory):
        with pytest.raises(RecipeError, match="has no option for the optimizer 'nadam'"):
            write_tool(folder)


def test_layers_that_were_tuned_are_those_of_the_adapter(make_run):
    folder = make_run(tuned={"fields": {"target_modules": ["q_proj", "v_proj"]}})
    path = folder / "best" / "lora" / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": ["q_proj", "v_proj"]}))
    assert call(trl(folder), "LoraConfig")["target_modules"] == ["q_proj", "v_proj"]
    assert axolotl(folder)["lora_target_modules"] == ["q_proj", "v_proj"]
    assert llamafactory(folder)[0]["lora_target"] == "q_proj,v_proj"
