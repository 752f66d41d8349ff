"""Whole studies through a function, up to adapters that plain PEFT loads."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

import autolora
from autolora.study.directory import read_study
from tests.support import makers
from tests.support.makers import SPEC


def tuned(folder, function, **settings):
    return autolora.tune(spec={**SPEC, "trainer": f"tests.support.makers:{function}", **settings}, dir=folder)


def test_a_study_ends_in_adapters_that_plain_peft_loads(tmp_path):
    result = tuned(tmp_path, "attached", variants=["lora", "pissa"], training={"device": "cpu"})
    batch = makers.padded(makers.rows(12, 2))
    for variant in ("lora", "pissa"):
        best = result[variant]
        model = PeftModel.from_pretrained(makers.load(), best.adapter_dir)
        with torch.no_grad():
            losses = [float(model(**makers.padded([row])).loss) for row in makers.rows(12, 2)]
        assert all(loss < 20 for loss in losses)
        with torch.no_grad():
            assert float(model(**batch).loss) == pytest.approx(best.value, rel=0.05)
    assert set(json.loads((tmp_path / "best.json").read_text())["variants"]) == {"lora", "pissa"}


def test_a_classifier_is_tuned_by_its_accuracy_and_leaves_with_its_head(tmp_path):
    metric = {"name": "accuracy", "direction": "maximize"}
    result = tuned(tmp_path, "classifier", metric=metric)
    exported = load_file(tmp_path / "best" / "lora" / "adapter_model.safetensors")
    assert "base_model.model.score.weight" in exported
    assert (tmp_path / "best" / "lora" / "tokenizer.json").is_file()
    base, _ = makers.load_classifier()
    base.save_pretrained(tmp_path / "base")
    model = PeftModel.from_pretrained(type(base).from_pretrained(tmp_path / "base"), result["lora"].adapter_dir)
    right = 0
    for row in makers.labelled(24, 2):
        with torch.no_grad():
            right += int(model(input_ids=torch.tensor([row["input_ids"]])).logits.argmax()) == row["labels"]
    assert right / 24 == pytest.approx(result["lora"].value, abs=1e-6)


def test_a_study_is_continued_with_a_larger_budget(tmp_path):
    tuned(tmp_path, "plain", budget=2)
    before, _ = read_study(tmp_path)
    tuned(tmp_path, "plain", budget=4)
    after, _ = read_study(tmp_path)
    assert after.spent("lora") > before.spent("lora")
    kept = {trial.number: trial.scores for trial in after.trials}
    assert all(trial.scores.items() <= kept[trial.number].items() for trial in before.trials)


def test_the_model_of_the_specification_is_what_base_gives(tmp_path):
    result = tuned(tmp_path, "given", model="builtin:quickstart", variants=["lora"])
    assert (tmp_path / "best" / "lora" / "tokenizer.json").is_file()
    assert result["lora"].value > 0
