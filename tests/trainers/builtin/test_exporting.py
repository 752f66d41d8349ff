"""What lies beside an exported adapter: it loads from anywhere, on a base that it names."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

import autolora
from autolora.recipes import RecipeError, write
from autolora.trainers.builtin.exporting import complete_export
from autolora.trainers.builtin.trainer import BuiltinTrainer
from tests.bases.test_merged import adapter
from tests.support.checkpoints import byte_tokenizer, saved, tiny
from tests.support.specs import small_spec

ROWS = [{"prompt": f"{i} plus {i}?", "completion": f"{2 * i}."} for i in range(40)]


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """``tuned(model, variant)``: the trainer of a study of one run, and its exported adapter."""
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))

    def make(model, variant):
        arguments = {
            "model": str(model),
            "data": {"train": str(data), "eval_size": 8},
            "variants": [variant],
            "training": {"examples": 16, "max_length": 64, "device": "cpu"},
            "space": {"batch_size": [8], "rank": [2], "learning_rate": [1e-2, 2e-2]},
        }
        folder = tmp_path / "run" / variant
        result = autolora.tune(**arguments, budget=1, confirm=0, prior=None, dir=folder)
        trainer = BuiltinTrainer.open(small_spec(**arguments), folder)
        monkeypatch.chdir("/")  # it loads from elsewhere
        return trainer, Path(result[variant].adapter_dir)

    return make


def assert_it_loads_as_trained(trainer, folder):
    loaded = AutoPeftModelForCausalLM.from_pretrained(str(folder)).eval()
    ids = torch.arange(24).view(2, 12)
    with torch.no_grad(), trainer.bench.trained(0) as (_, adapted):
        adapted.eval()
        assert torch.allclose(loaded(ids).logits, adapted(ids).logits, atol=1e-5)


def settings(folder):
    return json.loads((folder / "adapter_config.json").read_text())


def test_an_adapter_has_its_tokenizer_and_an_absolute_path_of_the_base(tmp_path, tuned, monkeypatch):
    saved(tmp_path / "base", tiny(), byte_tokenizer("{{ messages }}"))
    monkeypatch.chdir(tmp_path)
    trainer, folder = tuned("./base", "lora")
    assert settings(folder)["base_model_name_or_path"] == str(tmp_path / "base")
    assert AutoTokenizer.from_pretrained(folder).chat_template == "{{ messages }}"
    assert_it_loads_as_trained(trainer, folder)
    written = write(trainer.bench.checkpoints, "lora", "peft", tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == "{{ messages }}"
    assert {"tokenizer.json", "chat_template.jinja"} <= {path.name for path in written}


def test_the_revision_of_the_base_is_named(tmp_path, tuned):
    """PEFT loads the base's main branch otherwise, and so does a study whose model is the adapter."""
    trainer, folder = tuned(saved(tmp_path / "base", tiny()), "lora")
    assert settings(folder)["revision"] is None
    complete_export(replace(trainer.bench.base, revision="v2"), folder)
    assert settings(folder)["revision"] == "v2"
    write(trainer.bench.checkpoints, "lora", "peft", tmp_path / "out")
    assert settings(tmp_path / "out")["revision"] == "v2"
    assert f"from_pretrained('{tmp_path / 'base'}', revision='v2')" in (tmp_path / "out" / "README.md").read_text()


def test_the_shipped_model_is_named_by_its_absolute_path(tuned):
    _, folder = tuned("builtin:quickstart", "lora")
    assert os.path.isabs(settings(folder)["base_model_name_or_path"])


@pytest.mark.parametrize(("variant", "rank"), [("lora", 6), ("pissa", 8)])
def test_a_lora_on_a_merged_lora_leaves_as_one_on_the_original_base(tmp_path, tuned, variant, rank):
    base = saved(tmp_path / "base", tiny())
    trainer, folder = tuned(adapter(tmp_path / "sft", base, use_rslora=True), variant)
    assert (settings(folder)["r"], settings(folder)["base_model_name_or_path"]) == (rank, str(base))
    assert_it_loads_as_trained(trainer, folder)
    assert not (folder / "base").exists()


@pytest.mark.parametrize(("first", "variant"), [({"use_dora": True}, "lora"), ({}, "dora")])
def test_what_is_no_sum_of_loras_leaves_with_the_merged_base(tmp_path, tuned, first, variant):
    base = saved(tmp_path / "base", tiny())
    trainer, folder = tuned(adapter(tmp_path / "sft", base, **first), variant)
    assert settings(folder)["base_model_name_or_path"] == str(folder / "base")
    assert_it_loads_as_trained(trainer, folder)
    write(trainer.bench.checkpoints, variant, "peft", tmp_path / "out")
    assert settings(tmp_path / "out")["base_model_name_or_path"] == str(folder / "base")
    assert f"from_pretrained('{folder / 'base'}')" in (tmp_path / "out" / "README.md").read_text()


def test_other_trainers_are_not_told_to_load_an_adapter_as_a_model(tmp_path, tuned):
    base = saved(tmp_path / "base", tiny())
    trainer, _ = tuned(adapter(tmp_path / "sft", base), "lora")
    for target in ("trl", "axolotl", "llamafactory"):
        with pytest.raises(RecipeError, match=r"cannot start from .*sft, which is an adapter: merge it"):
            write(trainer.bench.checkpoints, "lora", target, tmp_path / "out")


def test_an_adapter_of_the_hub_is_known_by_the_base_that_the_exported_one_names(tmp_path, tuned):
    trainer, folder = tuned(saved(tmp_path / "base", tiny()), "lora")
    run = trainer.bench.checkpoints
    recorded = (run / "spec.yaml").read_text().replace(str(tmp_path / "base"), "me/sft")
    (run / "spec.yaml").write_text(recorded)
    for base, message in (("me/base", r"cannot start from me/sft, which is an adapter"), ("me/sft", None)):
        (folder / "adapter_config.json").write_text(json.dumps({**settings(folder), "base_model_name_or_path": base}))
        write(run, "lora", "peft", tmp_path / "out")
        assert settings(tmp_path / "out")["base_model_name_or_path"] == base
        with pytest.raises(RecipeError, match=message) if message else nullcontext():
            write(run, "lora", "trl", tmp_path / "out")
